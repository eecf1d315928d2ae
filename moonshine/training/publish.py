"""Copy the results of a finished run from runs/ to the paths that the engines declare; nothing here imports torch."""

from collections.abc import Sequence

from moonshine.project import artefacts
from moonshine.runs.run_folder import RunFolder
from moonshine.runtime.files import write_bytes, write_json, write_text
from moonshine.runtime.progress import say


def publish(experiment: str, run: RunFolder) -> None:
    """Publish model, record and curve of a finished run, each written whole, the model last."""
    finished = run.finished()
    assert finished is not None
    model, record = finished
    row, seed = run.row, run.seed
    write_text(artefacts.curve(experiment, row, seed), curve_csv(record["history"]))
    made = {key: value for key, value in record.items() if key != "history"}
    write_json(artefacts.record(experiment, row, seed), {"row": row.name, **made, "identity": run.identity})
    path = artefacts.model(experiment, row, seed)
    write_bytes(path, model)
    say(f"{path}: val top-1 error {record['history'][-1]['val_top1']:.2f} %, sha256 {record['sha256'][:16]}")


def curve_csv(history: Sequence[dict[str, float]]) -> str:
    """The history of a run as CSV, one line per epoch."""
    lines = [",".join(history[0])]
    lines += [",".join(f"{value:.6g}" for value in epoch.values()) for epoch in history]
    return "\n".join(lines) + "\n"
