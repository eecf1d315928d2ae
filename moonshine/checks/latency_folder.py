"""The folder of measured latencies, which DVC needs to be there, and git keeps no empty folders."""

from moonshine.project import artefacts
from moonshine.runtime.files import write_text

TEXT = "What `moonshine measure` has measured, one file per machine; the results page shows it.\n"


def make_latency_folder(experiment: str) -> None:
    """Write the folder's README.md if it is absent; .dvcignore and Snakemake's rule ignore it."""
    path = artefacts.latency_folder(experiment) / "README.md"
    if not path.exists():
        write_text(path, TEXT)
