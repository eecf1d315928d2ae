"""`moonshine verify`: rehash everything that the project has on record.

DVC trusts a read-only file in its cache without reading it, and Snakemake goes by times; this reads every byte.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moonshine.checks.made_for import find_mismatches
from moonshine.engines.dvc_project import hash_of_list, open_project
from moonshine.errors import DataError, MachineError
from moonshine.images.store import SPLITS, read_manifest, split_path
from moonshine.params import Params
from moonshine.preparation.raw_images import raw_changes
from moonshine.project import artefacts
from moonshine.project.git import git
from moonshine.project.lock_file import DVC_LOCK, read_stages
from moonshine.report.index import FILE as HEADLINE
from moonshine.report.index import index_page
from moonshine.runtime.files import md5, md5_of_file, sha256
from moonshine.runtime.progress import say, tracked


@dataclass(frozen=True)
class Recorded:
    """A file, or a folder of files, as recorded in dvc.lock."""

    path: Path
    md5: str
    stage: str


def verify(params: Params) -> None:
    """Check prepared data against the manifest, models against records, outputs against dvc.lock, and the index page.

    Also check, by their own records, whether data, models and metrics were made for params.yaml as it is now, and
    whether raw images that no checksum pins are still those that the data were made from.

    Raises DataError (exit code 3) with one line per file and the command that repairs it. A dvc.lock without any stage
    of the experiment proves nothing and counts as such a file.
    """
    with open_project() as repo:
        cache, present = Path(repo.cache.local.path), {stage.addressing for stage in repo.index.stages}
    problems: dict[Path, str] = {}
    recorded = [each for each in _recorded() if each.path.exists() or each.stage in present]
    if not any(each.stage in present for each in recorded):
        lack = f"has nothing of {params.experiment}" if DVC_LOCK.exists() else "missing"
        problems[DVC_LOCK] = (
            f"{lack}; repair: git checkout HEAD -- {DVC_LOCK}, moonshine record if Snakemake ran, or run it"
        )
    for output in tracked(recorded, "verify", len(recorded), "outputs"):
        if damage := _problem(output):
            problems[output.path] = f"{damage}; repair: {_repair(output, cache)}"
    damaged = [*_data(params.dataset.name), *_models(params.experiment)]
    for path, problem in [*damaged, *_index()]:
        problems.setdefault(path, problem)
    for each in () if damaged else find_mismatches(params):  # a damaged file contradicts all that was made from it
        problems.setdefault(each.path, f"{each.problem}; repair: {each.command}, or an engine")
    if changes := raw_changes(params):
        problems.setdefault(artefacts.manifest(params.dataset.name), f"not of the images there are now: {changes}")
    if problems:
        raise DataError("\n".join(f"{path}: {problem}" for path, problem in sorted(problems.items())))
    say(
        f"{len(recorded)} outputs are what dvc.lock says, data and models are what their manifests say, "
        f"and made for {artefacts.PARAMS}"
    )


def _recorded() -> Iterator[Recorded]:
    """All outputs in dvc.lock, of every experiment."""
    try:
        for name, stage in read_stages().items():
            for output in stage.get("outs", []):
                yield Recorded(Path(output["path"]), output["md5"], name)
    except (AttributeError, KeyError, TypeError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{DVC_LOCK}: damaged ({problem}); repair: git checkout -- {DVC_LOCK}") from None


def _problem(recorded: Recorded) -> str | None:
    if not recorded.path.exists():
        return "missing"
    found = _folder_md5(recorded.path) if recorded.path.is_dir() else md5_of_file(recorded.path)
    return None if found == recorded.md5 else f"its md5 is not that of {recorded.stage} in {DVC_LOCK}"


def _folder_md5(folder: Path) -> str:
    """What dvc.lock has for a folder: the hash of the list of its files and their hashes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != artefacts.SNAKEMAKE_TIMESTAMP]
    return hash_of_list({path.relative_to(folder).parts: md5_of_file(path) for path in files})


def _repair(recorded: Recorded, cache: Path) -> str:
    """The command that brings the recorded content back: from git, the cache or a remote, or by running the stage."""
    if _md5_in_git(recorded.path) == recorded.md5:
        return f"git checkout HEAD -- {recorded.path}"
    again = f"dvc pull --force {recorded.path}, or dvc repro --force --single-item {recorded.stage}"
    kept = cache / recorded.md5[:2] / recorded.md5[2:]
    if not kept.is_file():
        return again
    if md5_of_file(kept) != recorded.md5.removesuffix(".dir"):  # DVC would trust it, and what was checked out from it
        return f"rm -rf {kept} {recorded.path} && {again}"
    return f"dvc checkout --force {recorded.path}"


def _md5_in_git(path: Path) -> str | None:
    """The md5, as in dvc.lock, of what the last commit has there; None if it has nothing or git is not installed."""
    try:
        names = (git("ls-tree", "-r", "--name-only", "-z", "HEAD", "--", str(path)) or b"").decode().split("\0")[:-1]
    except MachineError:
        return None
    contents = {Path(name): git("show", f"HEAD:./{name}") or b"" for name in names}
    hashes = {name: md5(content) for name, content in contents.items()}
    if path in hashes:
        return hashes[path]
    return hash_of_list({name.relative_to(path).parts: each for name, each in hashes.items()}) if hashes else None


def _data(dataset: str) -> Iterator[tuple[Path, str]]:
    folder = artefacts.data_folder(dataset)
    if not folder.exists():
        return
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        named, _, problem = str(error).partition(": ")
        yield Path(named), problem
        return
    for split in SPLITS:
        path = split_path(folder, split)
        if not path.is_file() or sha256(path) != manifest["splits"][split]["sha256"]:
            yield path, "missing, or its sha256 is not the manifest's; repair: moonshine prepare"


def _models(experiment: str) -> Iterator[tuple[Path, str]]:
    """Models of the experiment that were trained here, against their records."""
    base = Path("models", experiment)
    trained = (path for folder in ("train", "distil") for path in (base / folder).rglob("*.safetensors"))
    for path in sorted(trained):  # the record of a published network has the hash of the file that it was made from
        record = (base / "records" / path.relative_to(base)).with_suffix(".json")
        try:
            matches = sha256(path) == json.loads(record.read_text())["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            yield record, "missing or damaged; repair: delete the model as well, and run its stage"
            continue
        if not matches:
            yield path, f"its sha256 is not that of {record}; repair: delete it and run its stage"


def _index() -> Iterator[tuple[Path, str]]:
    """The page of all experiments, which is not an output of any of them, against what it was made from."""
    index = Path("results", "README.md")
    try:
        expected = index_page(index.parent)
        if any(index.parent.glob(f"*/{HEADLINE}")) and (not index.exists() or index.read_text() != expected):
            yield index, "not what the experiments' headlines say; repair: moonshine report"
    except DataError as error:  # a headline
        named, _, problem = str(error).partition(": ")
        yield Path(named), problem
    except (OSError, UnicodeDecodeError) as error:
        yield index, f"cannot be read ({error}); repair: delete it, then moonshine report"
