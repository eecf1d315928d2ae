"""`moonshine adopt`: let a run that older code or libraries made count as a current one.

A run is identified by everything that determines its bytes, so an edit of declared code restarts it from scratch. If
you know that the edit changes no result, or do not mind, you can continue the older work, deliberately and on record.
"""

from pathlib import Path
from typing import Any

from moonshine.errors import CheckpointError, DataError, ParamsError
from moonshine.params import Params
from moonshine.project.rows import Row
from moonshine.runs.checkpoints import has_checkpoint, load_newest_with_step, save_checkpoint
from moonshine.runs.identity import ENVIRONMENT
from moonshine.runs.run_folder import RESULT, RunFolder, older_runs
from moonshine.runtime.differences import differences, in_words
from moonshine.runtime.files import sha256
from moonshine.runtime.progress import say

MAY_DIFFER = ("code.", *ENVIRONMENT, "recipe.compile", "recipe.processes", "recipe.threads")
"""What changes no more than rounding, if anything; another recipe, network, seed or data makes it another run."""


def adopt(params: Params, row: Row, seed: int, chosen: str | None) -> None:
    """Copy the work of an older run of `row` and `seed` into the folder of the current run.

    `chosen` is the beginning of the older run's folder name; it may be omitted if there is only one. Raises ParamsError
    (exit code 2) if the choice is ambiguous, CheckpointError (8) if more differs than may.
    """
    run = RunFolder.open(params, row, seed)
    if run.finished() or has_checkpoint(run.path):
        raise DataError(f"{run.path}: has work of its own; delete this folder first")
    older, identity = _choose(run, chosen)
    changed = differences(identity, run.identity)
    if forbidden := [change for change in changed if not change.startswith(MAY_DIFFER)]:
        raise CheckpointError(f"{older}: cannot be adopted because it differs in {'; '.join(forbidden)}")
    note = {"run": older.name, "differs": changed}
    if finished := run.finished_in(older):
        run.note_adoption(note)
        model, record = finished
        run.finish(model, {key: value for key, value in record.items() if key not in ("run", "sha256")})
        assert sha256(run.path / RESULT) == record["sha256"]
    else:
        step, state = load_newest_with_step(older)  # may fail, so it comes before anything is noted
        run.note_adoption(note)
        save_checkpoint(run.path, step, state)
    say(f"{run.path}: resumes from {older.name}, which differs in {in_words(changed)}; run its stage now")


def _choose(run: RunFolder, chosen: str | None) -> tuple[Path, dict[str, Any]]:
    candidates = [
        (folder, identity)
        for folder, identity in older_runs(run.parent)
        if folder != run.path and (run.finished_in(folder) or has_checkpoint(folder))
    ]
    matching = [each for each in candidates if each[0].name.startswith(chosen or "")]
    if len(matching) == 1:
        return matching[0]
    if not candidates:
        raise DataError(f"{run.parent}: no older run with work in it")
    choice = "\n".join(
        f"{folder.name}: differs in {in_words(differences(identity, run.identity))}" for folder, identity in candidates
    )
    raise ParamsError(f"say which of these to adopt by --run and the start of its name:\n{choice}")
