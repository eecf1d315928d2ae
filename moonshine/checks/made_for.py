"""Whether data, models and results were made for the params, data and teacher that are here now.

The manifest, the record of each model and the hashes in metrics show this. The engines go by the hashes and times of
what they ran, and miss commands run by hand, `dvc commit`, and files copied in. What has no record cannot contradict.
Code is not compared, because an edit that has been accepted changes no result. Nothing here imports torch.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from moonshine.checks.data import data_problem
from moonshine.checks.unchanged import values_at
from moonshine.errors import DataError, ParamsError
from moonshine.images.store import read_manifest
from moonshine.params import Params
from moonshine.params.read import read_content
from moonshine.params.schema import Checkpoint, Quantise
from moonshine.project import artefacts
from moonshine.project.lock_file import DVC_LOCK, read_stages
from moonshine.project.records import RunRecord
from moonshine.project.rows import Row, parse_model
from moonshine.runs.identity import identity_in_params, latencies_identity
from moonshine.runtime.differences import differences
from moonshine.runtime.files import sha256

DESCRIPTION = "moonshine"
"""Name of the description in a model file's metadata. models/model_file.py has it as well, but imports torch."""

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError)
"""What damaged records and models raise."""


@dataclass(frozen=True)
class Mismatch:
    """An artefact that is not what params.yaml and the files here ask for."""

    path: Path
    problem: str
    command: str
    """The command that remakes it."""
    of_params: bool = False
    """Whether params.yaml alone contradicts it, and not the data, a teacher or another file as well."""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; run `{self.command}`, or an engine"


def find_mismatches(params: Params) -> Iterator[Mismatch]:
    """Everything in the experiment whose own record says that it was made for something else."""
    yield from _data(params)
    for row in params.rows:
        for seed in params.seeds_of(row):
            yield from _model(params, row, seed)
        yield from _metrics(params, row, artefacts.metrics(params.experiment, row), f"moonshine evaluate {row}")
    for row, settings in params.quantised_rows.items():
        path, command = artefacts.int8_metrics(params.experiment, row), f"moonshine quantise {row}"
        yield from _quantised_otherwise(settings, path, command)
        yield from _metrics(params, row, path, command)
    yield from _maps(params)
    for name in params.search:
        yield from _search(params, name)


def require_models(params: Params, models: Iterable[tuple[Row, int | None]]) -> None:
    """DataError (exit code 3) for models, by row and seed, that were made for something else or replaced since."""
    _refuse([problem for row, seed in models for problem in _model(params, row, seed, hashed=True)])


def require_results(params: Params, path: Path) -> None:
    """DataError (exit code 3) for rows measured for something other than the params, whose file is `path`.

    If the records are missing, as in a clone without models, the params that dvc.lock has for the rows are compared.
    """
    _refuse([*find_mismatches(params), *_by_lock(params, read_content(path))])


def _refuse(mismatches: list[Mismatch]) -> None:
    if mismatches:
        raise DataError("\n".join(map(str, dict.fromkeys(mismatches))))


def model_problem(params: Params, row: Row, seed: int | None, hashed: bool = False) -> str | None:
    """How a model, by its record, differs from what it should be here; None if it does not, or if either is missing.

    `hashed` also reads the whole model to compute its sha256.
    """
    path, record_path = artefacts.model(params.experiment, row, seed), artefacts.record(params.experiment, row, seed)
    if not (path.exists() and record_path.exists()):
        return None
    try:
        if changed := _changes(params, row, seed):
            return f"outdated ({'; '.join(changed)})"
        if hashed and seed is not None and _digest(path) != json.loads(record_path.read_text())["sha256"]:
            return f"damaged or replaced, its sha256 is not that of {record_path}"
    except UNREADABLE:
        return f"its record {record_path}, or the file itself, is damaged"
    if params.needs_teacher(row):
        problem = model_problem(params, *parse_model(params.teacher))
        return f"its teacher {params.teacher} is {problem}" if problem else None
    return None


def _changes(params: Params, row: Row, seed: int | None) -> list[str]:
    record = json.loads(artefacts.record(params.experiment, row, seed).read_text())
    return _changed_fetched(params, row, record) if seed is None else _changed(params, row, seed, record)


def _changed(params: Params, row: Row, seed: int, record: RunRecord) -> list[str]:
    """What has changed since a model was trained here."""
    settings = params.dataset
    now = {**identity_in_params(params, row, settings.classes, settings.channels), "seed": seed}
    inputs = {"data": artefacts.manifest(settings.name)}
    if params.needs_teacher(row):
        inputs["teacher"] = artefacts.named_model(params.experiment, params.teacher)
    now |= {part: _digest(path) for part, path in inputs.items() if path.exists()}
    made = {part: record["identity"].get(part) for part in (*now, "init")}
    return differences({"row": record["row"], **made}, {"row": row.name, **now})


def _changed_fetched(params: Params, row: Row, record: dict[str, Any]) -> list[str]:
    noted = [key for key, field in Checkpoint.model_fields.items() if key in record or not field.is_required()]
    pinned = {key: value for key, value in params.checkpoints[row.network].model_dump().items() if key in noted}
    with safe_open(artefacts.model(params.experiment, row), framework="numpy") as file:
        network_made = json.loads(file.metadata()[DESCRIPTION])["architecture"]
    network_now = params.architecture(row.network)
    return differences(
        {"fetch": {key: record.get(key) for key in noted}, "network": network_made},
        {"fetch": pinned, "network": network_now},
    )


def _model(params: Params, row: Row, seed: int | None, hashed: bool = False) -> Iterator[Mismatch]:
    if problem := model_problem(params, row, seed, hashed):
        path, of_params = artefacts.model(params.experiment, row, seed), _is_of_params(params, row, seed)
        yield Mismatch(path, problem, _command(row, seed), of_params)


def _is_of_params(params: Params, row: Row, seed: int | None) -> bool:
    """Whether params.yaml alone contradicts a model or, if not the model itself, its teacher."""
    try:
        changes = _changes(params, row, seed)
    except UNREADABLE:
        return False
    if not changes and params.needs_teacher(row):
        return _is_of_params(params, *parse_model(params.teacher))
    return bool(changes) and not any(line.startswith(("row: ", "data: ", "teacher: ")) for line in changes)


def _command(row: Row, seed: int | None) -> str:
    return f"moonshine {row.stage} {row.argument}" + ("" if seed is None else f" --seed {seed}")


def _data(params: Params) -> Iterator[Mismatch]:
    path = artefacts.manifest(params.dataset.name)
    try:
        problem, of_params = data_problem(params), True
    except DataError as error:
        problem, of_params = str(error).removeprefix(f"{path}: ").partition(";")[0], False
    if problem:
        yield Mismatch(path, problem, "moonshine prepare", of_params)


def _quantised_otherwise(settings: Quantise, path: Path, command: str) -> Iterator[Mismatch]:
    """Metrics in int8 with other settings than those of params.yaml."""
    if not (content := _content(path)) or not isinstance(made := content.get("settings"), dict):
        return
    if changed := differences({"quantise": made}, {"quantise": settings.model_dump()}):
        yield Mismatch(path, f"outdated ({'; '.join(changed)})", command, True)


def _metrics(params: Params, row: Row, path: Path, command: str) -> Iterator[Mismatch]:
    """Metrics whose models or images are no longer those that were measured."""
    if not (content := _content(path)):
        return
    measured = content.get("seeds", {}) if isinstance(content.get("seeds", {}), dict) else {}
    for seed in params.seeds_of(row):
        about = content if seed is None else measured.get(str(seed))
        expected = about.get("model_sha256") if isinstance(about, dict) else None
        now = _published(params.experiment, row, seed)
        if expected and now and expected != now:
            model = artefacts.model(params.experiment, row, seed)
            yield Mismatch(path, f"measured on another {model}", command)
    yield from _images(params.dataset.name, path, content, command)


def _maps(params: Params) -> Iterator[Mismatch]:
    path = artefacts.attention_maps(params.experiment) / "distances.json"
    if not (content := _content(path)):
        return
    for about in content["models"].values() if isinstance(content.get("models"), dict) else ():
        if not isinstance(about, dict) or not isinstance(about.get("model"), str):
            continue
        try:
            row, seed = parse_model(about["model"])
        except ValueError:  # a damaged name; the report refuses it
            continue
        expected, now = about.get("sha256"), _published(params.experiment, row, seed)
        if expected and now and expected != now:
            model = artefacts.model(params.experiment, row, seed)
            yield Mismatch(path, f"drawn of another {model}", "moonshine attention-maps")
    yield from _images(params.dataset.name, path, content, "moonshine attention-maps")


def search_problem(params: Params, name: str) -> str | None:
    """How what a search has found differs from what is asked for here; None if it does not, or is not there."""
    if not (content := _content(artefacts.search(params.experiment, name))):
        return None
    augmentation = params.recipe.augmentation.model_dump()
    now = {
        "search": params.search[name].model_dump(exclude_none=True),
        "network": params.search_architecture(name),
        "recipe": {"augmentation": augmentation, "threads": params.recipe.threads},
        **latencies_identity(params, name),
    }
    changed = differences({part: content.get(part) for part in now}, now)
    return f"outdated ({'; '.join(changed)})" if changed else None


def _search(params: Params, name: str) -> Iterator[Mismatch]:
    path, command = artefacts.search(params.experiment, name), f"moonshine search {name}"
    if problem := search_problem(params, name):
        yield Mismatch(path, problem, command, of_params="latencies: " not in problem)
    elif content := _content(path):
        yield from _images(params.dataset.name, path, content, command, "train")


def convs_found(content: dict[str, Any], candidate: int | None) -> list[str] | None:
    """The convolutions of a candidate, or of the best one, in the content of a search's file; None if it has none."""
    if candidate is None:
        return content.get("convs")
    try:
        convs: str = content["candidates"][candidate][content["columns"].index("convs")]
        return convs.split(" ")
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def check_found_convs(params: Params) -> None:
    """ParamsError (exit code 2) for `convs` that are not those that the search named by `found_by` has found."""
    mistakes = []
    for name, network in params.networks.items():
        if network.found_by is None:
            continue
        path = artefacts.search(params.experiment, network.found_by)
        content = _content(path)
        if content and convs_found(content, network.candidate) != network.convs:
            option = "" if network.candidate is None else f" --candidate {network.candidate}"
            cure = f"run `moonshine search {network.found_by} --adopt {name}{option}`, or leave out found_by"
            mistakes.append(f"networks.{name}.convs: not those that {path} has; {cure}")
    if mistakes:
        raise ParamsError("\n".join(mistakes))


def _images(dataset: str, path: Path, content: dict[str, Any], command: str, split: str = "val") -> Iterator[Mismatch]:
    data = artefacts.manifest(dataset)
    expected = content["dataset"].get("sha256") if isinstance(content.get("dataset"), dict) else None
    try:
        now = read_manifest(data.parent)["splits"][split]["sha256"] if data.exists() else None
    except DataError:
        return  # already reported for the data
    if expected and now and expected != now:
        yield Mismatch(path, f"made from other images than {data.parent} has now", command)


def _content(path: Path) -> dict[str, Any] | None:
    """The content of a result file; None if it is missing or damaged, which its reader reports."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _published(experiment: str, row: Row, seed: int | None) -> str | None:
    """A model's sha256 from its record; for a fetched model, from the file, because its record has the original's."""
    try:
        if seed is None:
            return _digest(artefacts.model(experiment, row))
        return str(json.loads(artefacts.record(experiment, row, seed).read_text())["sha256"])
    except UNREADABLE:
        return None


def _by_lock(params: Params, content: Any) -> Iterator[Mismatch]:
    """Results without a record here that were made with other params according to dvc.lock."""
    unrecorded = list(_unrecorded(params))
    stages = locked_stages() if unrecorded else {}
    for names, path, command in unrecorded:
        for entry in (stages[name] for name in names if name in stages):
            made = entry.get("params", {}).get("params.yaml", {})
            if changed := differences(made, values_at(content, made)):
                yield Mismatch(path, f"outdated, says {DVC_LOCK} ({'; '.join(changed)})", command)


def _unrecorded(params: Params) -> Iterator[tuple[list[str], Path, str]]:
    """For each missing record: the names its stage may have in dvc.lock, the results made from it, and its command."""
    experiment, dataset = params.experiment, params.dataset.name
    if not artefacts.manifest(dataset).exists() and artefacts.all_metrics(experiment).exists():
        names = [f"prepare@{dataset}", f"prepare_licensed@{dataset}"]
        yield names, artefacts.all_metrics(experiment), "moonshine prepare"
    for row in params.rows:
        path = artefacts.metrics(experiment, row)
        for seed in params.seeds_of(row) if path.exists() else ():
            if not artefacts.record(experiment, row, seed).exists():
                parts = [row.argument.replace("/", "-"), *([] if seed is None else [str(seed)])]
                name = "-".join([experiment, *parts])
                kinds = {"train": ("train", "train_from_teacher"), "distil": ("distil", "distil_more")}
                yield [f"{kind}@{name}" for kind in kinds.get(row.stage, (row.stage,))], path, _command(row, seed)


def locked_stages() -> dict[str, Any]:
    """What dvc.lock has for each stage of all experiments; empty if it is missing or damaged."""
    try:
        return {name: entry for name, entry in read_stages().items() if isinstance(entry, dict)}
    except DataError:
        return {}


def _digest(path: Path) -> str:
    status = path.stat()
    return _hash(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1000)
def _hash(path: Path, *stamp: int) -> str:
    """Cached, because teachers and manifests are needed again and again."""
    return sha256(path)
