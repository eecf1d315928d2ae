"""`moonshine lineage`: from a number in a table back to the hashes of the raw data, each link checked."""

import json
import os
import re
import statistics
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from moonshine.checks.data import data_problem
from moonshine.checks.made_for import convs_found, locked_stages, model_problem
from moonshine.engines.dvc_project import open_project, outputs
from moonshine.engines.edits import only_layout_changed
from moonshine.errors import DataError, ParamsError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import Row, parse_model
from moonshine.runs.identity import ENVIRONMENT, run_identity
from moonshine.runtime.differences import differences
from moonshine.runtime.files import sha256
from moonshine.runtime.suggest import suggest

SHOWN = 4
"""How many changes of a stage are listed one by one."""


def lineage(params: Params, target: str) -> None:
    """Print the chain behind a row, or behind one model of it, to stdout.

    Two kinds of links are checked. dvc.lock records which stage made each file from which inputs, code and params, and
    `dvc status` reports whether these are still the same. The files themselves name others by sha256: metrics name the
    models, a model's record its data and teacher, the manifest its images. Raises DataError (exit code 3) if a link
    does not hold.
    """
    row, seed = _resolve(params, target)
    with open_project() as repo:
        chain = _Chain(params, repo.status(), outputs(repo))
    try:
        if seed is None and row.stage != "fetch":
            chain.row(row)
        else:
            chain.model(row, seed, 0)
        chain.data()
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"a file of the chain lacks {error}; `dvc status` names what is not as its stage left it"
        ) from None
    if chain.broken:
        raise DataError(f"{chain.broken} of {chain.links} links do not hold")
    print(f"all {chain.links} links hold")


def _resolve(params: Params, target: str) -> tuple[Row, int | None]:
    """The row and, for a single model, the seed that a path or a name refers to."""
    if target.endswith(".safetensors"):  # a path, however it is written
        target = os.path.relpath(target)
    name = target.removeprefix(f"models/{params.experiment}/").removesuffix(".safetensors")
    parts = re.fullmatch(r"(.+?)(?:/seed(\d+))?", name)
    named, seed = (parts[1], parts[2]) if parts else (name, None)
    rows = {row.name: row for row in params.rows}
    if named not in rows or (seed and int(seed) not in params.seeds):
        known = [*rows, *(f"{row}/seed{seed}" for row in rows for seed in params.seeds)]
        raise ParamsError(f'unknown row or model "{target}" of {params.experiment}{suggest(name, known)}')
    return rows[named], int(seed) if seed else None


class _Chain:
    """Prints links and counts them."""

    def __init__(self, params: Params, changed: dict[str, list[Any]], stage_of: dict[str, str]):
        self._params, self._changed, self._stage_of = params, changed, stage_of
        self._recorded = locked_stages()
        self.links = self.broken = 0

    def row(self, row: Row) -> None:
        path = artefacts.metrics(self._params.experiment, row)
        metrics = _read(path)
        number = f"{metrics['top1']['mean']:.2f}"
        print(f"{row}: top-1 error {number} %, top-5 error {metrics['top5']['mean']:.2f} %")
        page = artefacts.results_folder(self._params.experiment) / "README.md"
        self._made_by_its_stage(1, page)
        self._made_by_its_stage(1, path)
        if seeds := metrics.get("seeds"):
            mean = round(statistics.mean(seed["top1"] for seed in seeds.values()), 6)
            self._link(1, f"{path}: the top-1 error is the mean of {len(seeds)} seeds", mean == metrics["top1"]["mean"])
        if row in self._params.quantised_rows:
            self._in_int8(row, metrics)
        manifest = _read(artefacts.manifest(self._params.dataset.name))
        images = metrics["dataset"]["sha256"]
        same = (images, metrics["n"]) == tuple(manifest["splits"]["val"][key] for key in ("sha256", "count"))
        self._link(1, f"measured on all {metrics['n']} images with sha256 {images[:16]}, the manifest's", same)
        for seed, measured in (seeds or {None: metrics}).items():  # a published network has no seeds
            self.model(row, None if seed is None else int(seed), 1, measured["model_sha256"])

    def _in_int8(self, row: Row, metrics: dict[str, Any]) -> None:
        """Whether the int8 networks are the files that were measured, made from the models of the row."""
        path = artefacts.int8_metrics(self._params.experiment, row)
        self._made_by_its_stage(1, path)
        int8 = _read(path)
        for seed, measured in (metrics.get("seeds") or {None: metrics}).items():
            quantised = int8["seeds"][seed] if seed is not None else int8
            file = artefacts.int8_model(self._params.experiment, row, None if seed is None else int(seed))
            self._link(1, f"{file} is the file that was measured", _sha256(file) == quantised["int8_sha256"])
            same = quantised["model_sha256"] == measured["model_sha256"]
            self._link(1, f"{file} was made from the model that was measured", same)

    def model(self, row: Row, seed: int | None, depth: int, expected: str | None = None) -> None:
        """A model and what made it, down to its teacher; `expected` is its sha256 as noted elsewhere."""
        path = artefacts.model(self._params.experiment, row, seed)
        digest = _sha256(path)
        print(f"{'  ' * depth}{path}: sha256 {digest[:16]}")
        depth += 1
        if expected:
            self._link(depth, "is the file that was used", digest == expected)
        self._made_by_its_stage(depth, path)
        if search := self._params.networks[row.network].found_by:
            self._search(depth, row.network, search)
        record = _read(artefacts.record(self._params.experiment, row, seed))
        facts = {key: record[key] for key in sorted(record.keys() - {"identity", "row"})}
        print(f"{'  ' * depth}record: {json.dumps(facts)}")
        if seed is not None:  # the record of a published network has the hash of the file that it was made from
            self._link(depth, "is the file that its record describes", digest == record["sha256"])
            clean = self._stage_of.get(str(path)) not in self._changed
            self._identity(depth, row, seed, record["identity"], clean)
        else:
            problem = model_problem(self._params, row, seed)
            self._link(depth, problem or "is what params.yaml pins and describes", not problem)

    def _identity(self, depth: int, row: Row, seed: int, made_by: dict[str, Any], clean: bool) -> None:
        now = run_identity(self._params, row, seed)
        for part in dict.fromkeys((*made_by, *(now.keys() & {"init"}))):
            found = differences({part: made_by.get(part)}, {part: now.get(part)})
            hashed = ("data", "teacher", "init", *ENVIRONMENT)
            label = f"{part} {str(made_by.get(part))[:16]}" if part in hashed else part
            if found and part in ENVIRONMENT:
                print(f"{'  ' * depth}{label}; here {now.get(part)}")
            elif found and part == "code" and clean:
                for module in sorted(made_by[part].keys() | now[part].keys()):
                    if (digest := made_by[part].get(module)) != now[part].get(module):
                        print(f"{'  ' * depth}code: {_accepted(module, digest)}")
            else:
                self._link(depth, f"{label}: {'; '.join(found) or 'as it is now'}", not found)
        if "teacher" in made_by:
            self.model(*parse_model(self._params.teacher), depth, made_by["teacher"])

    def _search(self, depth: int, network: str, search: str) -> None:
        """What found the convolutions of a network."""
        path = artefacts.search(self._params.experiment, search)
        content = _read(path)
        settings = self._params.networks[network]
        candidate = content["candidate"] if settings.candidate is None else settings.candidate
        print(f"{'  ' * depth}{path}: candidate {candidate} of {len(content['candidates'])}")
        same = convs_found(content, settings.candidate) == settings.convs
        self._link(depth + 1, f"has the convolutions of networks.{network}", same)
        self._made_by_its_stage(depth + 1, path)

    def data(self) -> None:
        """The prepared data and the hashes of what it was made from."""
        name = self._params.dataset.name
        manifest = _read(artefacts.manifest(name))
        print(f"{artefacts.manifest(name)}: sha256 {_sha256(artefacts.manifest(name))[:16]}")
        self._made_by_its_stage(1, artefacts.manifest(name))
        problem = data_problem(self._params)
        self._link(1, problem or "prepared as params.yaml says", not problem)
        for split, about in manifest["splits"].items():
            path = artefacts.data_folder(name) / f"{split}.arrow"
            self._link(
                1, f"{path}: {about['count']} images, sha256 {about['sha256'][:16]}", _sha256(path) == about["sha256"]
            )
        print(f"  made from: {json.dumps(manifest['origin'])}")

    def _made_by_its_stage(self, depth: int, path: Path) -> None:
        stage = self._stage_of.get(str(path))
        if cause := _cause(stage, self._changed, self._recorded):
            self._link(depth, f"{path}: {cause}", False)
        else:
            self._link(depth, f"{path}: as {stage} left it, inputs, code and params unchanged (dvc.lock)", True)

    def _link(self, depth: int, text: str, holds: bool) -> None:
        self.links += 1
        self.broken += not holds
        print(f"{'  ' * depth}{'ok' if holds else 'BROKEN'}  {text}")


def _cause(stage: str | None, changed: dict[str, list[Any]], recorded: Container[str]) -> str | None:
    """Why a file of this stage is not what dvc.lock has; None if it is."""
    if stage is None:
        return "no stage of params.yaml makes it"
    if stage not in changed:
        return None
    if stage not in recorded:
        return f"{stage} was never recorded; `moonshine record` does if Snakemake ran it, else an engine has to run it"
    found = list(_changes(changed[stage]))
    code = [change for change in found if change.startswith(("moonshine/", "requirements/"))]
    told = [change for change in found if change not in code] + code
    more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    return f"not as {stage} has it in dvc.lock: {'; '.join([*told[:SHOWN], *more])}"


def _changes(entries: list[Any]) -> Iterator[str]:
    """What `dvc status` reports for a stage, such as `recipe in params.yaml is modified`."""
    for entry in entries:
        for paths in entry.values() if isinstance(entry, dict) else ():
            for path, change in paths.items():
                if isinstance(change, dict):
                    yield from (f"{key} in {path} is {kind}" for key, kind in change.items())
                else:
                    yield f"{path} is {change}"
        if isinstance(entry, str):
            yield entry


def _accepted(module: str, digest: str | None) -> str:
    """How a module differs from the version that made a model, although dvc.lock has the model as up to date."""
    path = f"moonshine/{module}"
    harmless = only_layout_changed(path, "sha256", digest) if digest and Path(path).exists() else False
    if harmless:
        return f"{path}: only comments, docstrings or layout changed since"
    lost = " (the version that made it is not in git)" if harmless is None else ""
    return f"{path}: changed since, accepted in dvc.lock without proof{lost}"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run its stage or `dvc pull`") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); run its stage or `dvc checkout`") from None


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run its stage or `dvc pull`") from None
