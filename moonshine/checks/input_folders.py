"""Folders that stages depend on and that DVC needs to be there; git keeps no empty folders."""

from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.runtime.files import write_text

TEXTS = {
    "latency": "What `moonshine measure` has measured, one file per machine; the results page shows it.\n",
    "search": "What `moonshine search` has found, one file per search; the results page shows it.\n",
}
TEXTS_WITH_SEARCHES = {
    "block-latency": "What `moonshine measure --blocks` has measured, one file per machine; searches go by it.\n"
}
"""Those that only an experiment with searches has."""


def make_input_folders(params: Params) -> None:
    """Write the README.md of each folder if it is absent; .dvcignore and Snakemake's rules ignore it."""
    for name, text in {**TEXTS, **(TEXTS_WITH_SEARCHES if params.search else {})}.items():
        path = artefacts.results_folder(params.experiment) / name / "README.md"
        if not path.exists():
            write_text(path, text)
