"""The section `machine` of params.yaml."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from moonshine.params.schema.dataset import Source
from moonshine.params.schema.values import Count, FilePath, Section

SlurmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,-]*$", max_length=200)]
Stage = Literal[
    "prepare", "fetch", "train", "distil", "search", "evaluate", "compare", "quantise", "attention_maps", "report"
]


def _downloads(path: str) -> str:
    """Names and contents of the files come from params.yaml, which must not write into ~/.ssh or over code."""
    if not PurePath(path).name.endswith("downloads"):
        raise ValueError(f"{path!r} must end in downloads, as in /disk/downloads")
    return path


class Job(Section):
    """What a cluster reserves for one job of a stage. What is left out is as the cluster or the profile sets it."""

    partition: SlurmName | None = None
    """Partition to submit to."""
    account: SlurmName | None = None
    """Account to charge. `partition` and `account` are one name, or several separated by commas; they become arguments
    of sbatch."""
    minutes: Count | None = None
    """Time limit, in minutes. A training that needs more is submitted again and resumes."""
    memory_mb: Count | None = None
    """Memory, in MB."""
    cpus: Count | None = None
    """CPUs. If left out, `recipe.threads` for each process; with JPEG images and `device: cuda`, at least 12 for each
    GPU of a training, evaluation or drawing of attention maps, because CPUs decode the images."""


class Machine(Section):
    """Settings that differ between machines; no stage declares them, so a change makes nothing stale."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if there is one, and refuses to run if torch cannot use it; `cuda` requires one."""
    trainings_per_gpu: Count = 1
    """Jobs that may use one GPU at the same time; more than one is meant for small networks, which alone leave it idle
    between kernels."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Time between checkpoints, in seconds: the most work that a kill can cost."""
    checkpoint_steps: Count | None = None
    """Also save a checkpoint every so many steps."""
    raw_data: dict[Source, FilePath] = {}
    """Source -> the folder of its `files` on this machine, such as `{cifar10: /data/cifar}`. It is only read."""
    downloads: Annotated[FilePath, AfterValidator(_downloads)] = "downloads"
    """Folder for downloaded files; several checkouts may share one. Its name must end in `downloads`, so that a
    params.yaml from somebody else cannot write elsewhere."""
    download_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Time, in seconds, after which a silent server counts as unreachable."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode JPEG images. If left out, one per usable CPU in `prepare`; otherwise one per CPU in this
    process's share, at most 16, and no more than fit into `/dev/shm`
    ([CPUs that load images](gpu-workstation.md#cpus-that-load-images))."""
    jobs: dict[Stage, Job] = {}
    """Stage -> what a cluster reserves for each of its jobs."""
    folders: list[FilePath] = []
    """Further folders that containers must see, for example the targets of links in `data/` or in DVC's cache."""
