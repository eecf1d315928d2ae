"""`moonshine record`: tell DVC what Snakemake made."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dvc.repo import Repo, lock_repo

from moonshine.checks.made_for import Mismatch, find_mismatches
from moonshine.engines.dvc_project import check_stages, downstream, is_check, open_project, outputs, staleness
from moonshine.engines.snakemake_plan import Plan, job_metadata, read_plan
from moonshine.errors import DataError
from moonshine.params import Params, read_params
from moonshine.project import artefacts
from moonshine.runs.identity import ENVIRONMENT, run_identity
from moonshine.runtime.differences import differences
from moonshine.runtime.files import sha256
from moonshine.runtime.progress import say


def record(named: Sequence[str]) -> None:
    """Write the state of stages that Snakemake ran, their inputs, params and outputs, into dvc.lock and DVC's cache.

    Without names: every stage for which dvc.lock is out of date. A stage is recorded only if its outputs are as its job
    left them and its inputs and params as its job saw them; a named one that cannot be recorded raises DataError (exit
    code 3) after the others have been recorded.
    """
    with open_project() as repo:
        wanted = sorted({name for name in named if not is_check(name)} if named else staleness(repo).changed)
        objections = find_objections(repo, wanted)
        sound = [name for name in wanted if name not in objections]
        # params.yaml has just been checked
        commit(repo, [*check_stages(repo), *sound] if sound or not objections else [])
    say(f"recorded {len(sound)} stages in dvc.lock")
    lines = [f"{name}: {reason}" for name, reason in objections.items()]
    if named and lines:
        raise DataError("\n".join(f"not recorded: {line}" for line in lines))
    for line in lines:
        say(f"left alone: {line}")


def commit(repo: Repo, names: Iterable[str]) -> None:
    """`dvc commit --force --no-relink` for several stages at once.

    Not relinking preserves modification times, which Snakemake relies on. Nothing is added to the run cache, because
    DVC would also copy outputs there that must not be cached: 150 GB of licensed data. Without names nothing is
    committed, whereas DVC would commit every stage, even stale ones.
    """
    with lock_repo(repo):
        known = {stage.addressing: stage for stage in repo.index.stages}  # load_one would parse dvc.lock for each stage
        stages = [known[name] for name in names]
        for stage in stages:
            stage.save(run_cache=False)
            stage.commit(relink=False)
        if stages:
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


def find_objections(repo: Repo, names: Iterable[str]) -> dict[str, str]:
    """Stage -> why it cannot be recorded, for those of `names` that cannot."""
    files: dict[str, list[str]] = {}
    for path, name in outputs(repo).items():
        files.setdefault(name, []).append(path)
    objections = {}
    for name in names:
        if reason := "no stage of dvc.yaml and params.yaml as they are now" if name not in files else "":
            objections[name] = reason
        elif found := next((text for path in files[name] if (text := _altered(path))), None):
            objections[name] = found
    objections |= _made_for_something_else(repo, [name for name in names if name not in objections])
    candidates = [name for name in names if name not in objections]
    plan = read_plan(path for name in candidates for path in files[name]) if candidates else Plan.empty()
    for name in candidates:
        if not plan.pending.isdisjoint(files[name]):
            objections[name] = "stale already: params or code changed after its job had started, or an input is stale"
    sound = [name for name in candidates if name not in objections]
    return objections | _provenance_mismatches(repo, {name: files[name] for name in sound})


def _made_for_something_else(repo: Repo, names: list[str]) -> dict[str, str]:
    """Objections to stages whose artefacts name other params, data or models, and to all stages downstream of them.

    The stages at fault need not be among `names`: one that was run by hand was not run by Snakemake.
    """
    if not names:
        return {}
    faults = mismatched_stages(repo, read_params(artefacts.PARAMS))
    why = f"comes after {', '.join(sorted(faults))}, which is outdated"
    reasons = dict.fromkeys(downstream(repo, faults), why) | {name: str(fault) for name, fault in faults.items()}
    return {name: reason for name, reason in reasons.items() if name in names}


def mismatched_stages(repo: Repo, params: Params) -> dict[str, Mismatch]:
    """Stage -> how what its artefact was made for differs from what is here now."""
    stage_of, stages = outputs(repo), dict[str, Mismatch]()
    for each in find_mismatches(params):
        if name := stage_of.get(str(each.path)):
            stages.setdefault(name, each)
    return stages


def _altered(path: str) -> str | None:
    """Why this output or an input is no longer as its job left or saw it; times show this, hashes cannot."""
    made = job_metadata(path)
    if not os.path.lexists(path):
        return f"{path} is missing"
    if made is None:
        return f"Snakemake has no record of having made {path}"
    is_folder = Path(path).is_dir()  # which Snakemake dates by a timestamp file in it
    changed, ended = _last_change(path), made["endtime"]
    if changed > ended + 1e-6 or (changed < ended - 1 and not is_folder):  # archives keep whole seconds
        return f"{path} was altered after its job had ended"
    for source in made["input"]:
        if not os.path.lexists(source):
            return f"{source} is gone"
        if _last_change(source) > made["starttime"] or not _has_checksum(source, made):
            return f"{source} was altered after the job had started that made {path}"
    return None


def _has_checksum(source: str, made: dict[str, Any]) -> bool:
    """Whether an input has the checksum that Snakemake noted: a file that replaced it may have an older time."""
    noted = (made.get("input_checksums") or {}).get(source)  # for small files only
    return noted is None or noted == f"sha256:{sha256(Path(source))}"


def _provenance_mismatches(repo: Repo, files: dict[str, list[str]]) -> dict[str, str]:
    """Objections to trainings whose own records name other params, data, teacher or code, and to all stages downstream.

    Snakemake does not notice this if `--touch` has updated the times of files that it did not make.
    """
    if not files:
        return {}
    params = read_params(artefacts.PARAMS)
    trained = [(row, seed) for row in params.seeded_rows for seed in params.seeds]
    records = {str(artefacts.record(params.experiment, row, seed)): (row, seed) for row, seed in trained}
    objections = {}
    for name, paths in files.items():
        for path in records.keys() & set(paths):
            made, now = _identity(path), run_identity(params, *records[path])
            parts = {*now, "init"} - {*ENVIRONMENT}
            if changed := differences(
                {part: made.get(part) for part in parts}, {part: now.get(part) for part in parts}
            ):
                objections[name] = f"{path} says that it was made otherwise ({'; '.join(changed)}); run it"
    after = downstream(repo, objections) & files.keys()
    return dict.fromkeys(after, "comes after a stage whose record says that it was made otherwise") | objections


def _identity(record: str) -> dict[str, Any]:
    try:
        return json.loads(Path(record).read_text())["identity"]
    except (OSError, ValueError, LookupError, TypeError):
        raise DataError(f"{record}: damaged; run its stage or `dvc checkout`") from None


def _last_change(path: str) -> float:
    """Modification time of a file, or of the newest file in a folder."""
    folder = Path(path)
    files = [*folder.rglob("*")] if folder.is_dir() and not folder.is_symlink() else [folder]
    return max((file.lstat().st_mtime for file in files), default=0.0)
