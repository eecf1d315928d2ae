"""`moonshine status`: how far an experiment is, from what its runs leave in runs/ and models/, under either engine.

It queries neither the engines nor the machines that train, so it works from any machine that sees the folder. It
compares what is there with params.yaml, the data and the teacher, and raw images with the data made from them, but not
with code: `dvc status` does that.
"""

import csv
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from moonshine.checks.data import data_problem
from moonshine.checks.made_for import model_problem, search_problem
from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.preparation.raw_images import raw_changes
from moonshine.project import artefacts
from moonshine.project.rows import Row, model_name
from moonshine.runs.live import CURVE, HEARTBEAT
from moonshine.runs.run_folder import RESULT_RECORD

SECONDS_OF_SILENCE = 120.0
"""After this, a run elsewhere, which writes every ten seconds and after validation, has probably died."""

MEANINGS = {
    "done": "trained and published",
    "outdated": "made for other params, data or another teacher than there are now",
    "finished": "trained; not yet published by its stage",
    "running": "in training",
    "silent": f"no sign of life for {SECONDS_OF_SILENCE:.0f} s",
    "stopped": "its process has ended; the same command resumes from the last checkpoint",
    "diverged": "the loss stopped being finite",
    "waiting": "not begun",
}


@dataclass(frozen=True)
class RunStatus:
    """One network of the experiment; `seed` is None for published weights, numbers are None if not known."""

    row: Row
    seed: int | None
    state: str
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    top1: float | None = None
    """Top-1 error in per cent on the validation images after the last completed epoch."""
    seconds_left: float | None = None
    reason: str | None = None
    """Why it is outdated."""


@dataclass(frozen=True)
class SearchStatus:
    """One search for convolutions; `candidate` is how many are ranked, numbers are None if not known."""

    name: str
    state: str
    candidate: int | None
    candidates: int
    seconds_left: float | None = None
    reason: str | None = None
    """Why it is outdated."""


def show_status(params: Params, as_json: bool, watch: float | None) -> None:
    """Print the status once, or every `watch` seconds until nothing is left to train or the user interrupts.

    Raw images are compared with the prepared data only once, because there may be a million of them.
    """
    of_images = raw_changes(params)
    while True:
        runs, searches = list(experiment_status(params)), list(map(partial(_search_status, params), params.search))
        text = (_json if as_json else _table)(params, runs, searches, of_images)
        clear = "\x1b[H\x1b[J" if watch and sys.stdout.isatty() else ""
        print(clear + text, flush=True)
        if not watch or all(run.state == "done" for run in runs):
            return
        try:
            time.sleep(watch)
        except KeyboardInterrupt:
            return


def experiment_status(params: Params) -> Iterator[RunStatus]:
    """Every network of the experiment, in the order of its rows."""
    of_data = _data_problem(params)
    return (_run_status(params, row, seed, of_data) for row in params.rows for seed in params.seeds_of(row))


def _run_status(params: Params, row: Row, seed: int | None, of_data: str | None) -> RunStatus:
    model = artefacts.model(params.experiment, row, seed)
    epochs = None if seed is None else params.recipe_of(row).epochs
    folder, heartbeat = (None, None) if seed is None else _newest(artefacts.run_folder(params.experiment, row, seed))
    if model.exists() and not (folder and heartbeat and _goes_on(params.experiment, row, seed, folder, heartbeat)):
        problem = of_data or model_problem(params, row, seed)
        epoch, error = (None, None) if seed is None else _last_epoch(artefacts.curve(params.experiment, row, seed))
        return RunStatus(row, seed, "outdated" if problem else "done", epoch, epochs, top1=error, reason=problem)
    if epochs is None or folder is None or heartbeat is None:
        return RunStatus(row, seed, "waiting", epochs=epochs)
    state = _state(folder, heartbeat)
    return RunStatus(
        row,
        seed,
        state,
        min(heartbeat["epoch"], epochs),
        epochs,
        heartbeat["step"],
        heartbeat["steps"],
        _last_epoch(folder / CURVE)[1],
        heartbeat["seconds_left"] if state == "running" else None,
    )


def _search_status(params: Params, name: str) -> SearchStatus:
    candidates = params.search[name].candidates
    if artefacts.search(params.experiment, name).exists():
        problem = search_problem(params, name)
        return SearchStatus(name, "outdated" if problem else "done", None, candidates, reason=problem)
    folder, heartbeat = _newest(artefacts.search_runs(params.experiment, name))
    if folder is None or heartbeat is None:
        return SearchStatus(name, "waiting", None, candidates)
    state = _state(folder, heartbeat)
    left = heartbeat["seconds_left"] if state == "running" else None
    return SearchStatus(name, state, heartbeat["step"], candidates, left)


def _goes_on(experiment: str, row: Row, seed: int | None, folder: Path, heartbeat: dict[str, Any]) -> bool:
    """Whether a run is newer than the published model, and not the run that the model came from.

    An abandoned older run may exist next to a model that was published later. Copies may keep only whole seconds.
    """
    model, record = (of(experiment, row, seed) for of in (artefacts.model, artefacts.record))
    if (folder / RESULT_RECORD).exists() and _run_of(record) == folder.name:
        return False
    return int(heartbeat["written"]) > model.stat().st_mtime


def _run_of(record: Path) -> str | None:
    """The run that a published model came from."""
    try:
        return json.loads(record.read_text())["run"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _data_problem(params: Params) -> str | None:
    try:
        problem = data_problem(params)
    except DataError as error:
        return str(error)
    return f"data/{params.dataset.name} is {problem}" if problem else None


def _newest(parent: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """The run below `parent` with the latest heartbeat, and that heartbeat."""
    beats = []
    for path in parent.glob(f"*/{HEARTBEAT}"):
        try:
            beat = json.loads(path.read_text())
            beats.append((float(beat["written"]), path.parent, beat))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # replaced or removed while we looked
    return max(beats, key=lambda each: each[0])[1:] if beats else (None, None)


def _state(folder: Path, heartbeat: dict[str, Any]) -> str:
    if "diverged" in heartbeat:
        return "diverged"
    if (folder / RESULT_RECORD).exists():
        return "finished"
    if heartbeat["host"] == socket.gethostname() and not _alive(heartbeat["process"]):
        return "stopped"
    return "silent" if time.time() - heartbeat["written"] > SECONDS_OF_SILENCE else "running"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's process
    return True


def _last_epoch(curve: Path) -> tuple[int | None, float | None]:
    """The number of the last epoch, and the error after it."""
    try:
        with curve.open() as file:
            *_, last = csv.DictReader(file)
            return int(last["epoch"]), float(last["val_top1"])
    except (OSError, ValueError, KeyError):
        return None, None


def _summary(params: Params, runs: list[RunStatus]) -> str:
    counts = Counter(run.state for run in runs)
    parts = [f"{counts[state]} {state}" for state in MEANINGS if counts[state]]
    measured = sum(artefacts.metrics(params.experiment, row).exists() for row in params.evaluated_rows)
    of_rows = f"{measured} of {len(params.evaluated_rows)} rows measured"
    if params.quantised_rows:
        in_int8 = sum(artefacts.int8_metrics(params.experiment, row).exists() for row in params.quantised_rows)
        of_rows += f", {in_int8} of {len(params.quantised_rows)} in int8"
    return f"{params.experiment}: of {len(runs)} networks {', '.join(parts)}; {of_rows}"


def _json(params: Params, runs: list[RunStatus], searches: list[SearchStatus], of_images: str | None) -> str:
    measured = [row.name for row in params.evaluated_rows if artefacts.metrics(params.experiment, row).exists()]
    content = {
        "experiment": params.experiment,
        "measured": measured,
        "raw_images": of_images,
        "runs": [{**asdict(run), "row": run.row.name} for run in runs],
        "searches": [asdict(search) for search in searches],
    }
    return json.dumps(content, indent=2)


def _table(params: Params, runs: list[RunStatus], searches: list[SearchStatus], of_images: str | None) -> str:
    lines = [
        [
            run.row.name,
            "" if run.seed is None else run.seed,
            run.state,
            f"{run.epoch}/{run.epochs}" if run.epoch else "",
            "" if run.top1 is None else f"{run.top1:.2f}",
            "" if run.seconds_left is None else tqdm.format_interval(run.seconds_left),
        ]
        for run in runs
    ]
    headers = ["row", "seed", "state", "epoch", "error, %", "left"]
    alignment = ["left", "right", "left", "right", "right", "right"]
    table = tabulate(lines, headers, "simple", disable_numparse=True, colalign=alignment)
    present = {run.state for run in runs} | {search.state for search in searches}
    meanings = [f"{state}: {meaning}" for state, meaning in MEANINGS.items() if state in present]
    reasons = dict.fromkeys(f"{model_name(run.row, run.seed)}: {run.reason}" for run in runs if run.reason)
    reasons |= dict.fromkeys(f"search {search.name}: {search.reason}" for search in searches if search.reason)
    tables = [table, "", *([_table_of_searches(searches), ""] if searches else [])]
    return "\n".join([_summary(params, runs), "", *tables, *meanings, *reasons, *([of_images] if of_images else [])])


def _table_of_searches(searches: list[SearchStatus]) -> str:
    lines = [
        [
            search.name,
            search.state,
            f"{search.candidate:,}/{search.candidates:,}" if search.candidate else "",
            "" if search.seconds_left is None else tqdm.format_interval(search.seconds_left),
        ]
        for search in searches
    ]
    alignment = ["left", "left", "right", "right"]
    return tabulate(
        lines, ["search", "state", "candidate", "left"], "simple", disable_numparse=True, colalign=alignment
    )
