"""`moonshine sync`: make Snakemake's view of what is up to date that of dvc.lock."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dvc.repo import Repo, lock_repo

from moonshine import artefacts
from moonshine.engines.dvc_project import Staleness, open_project, outputs, staleness
from moonshine.engines.hashed import hash_what_is_new, is_large, remember_large
from moonshine.engines.live import require_no_snakemake
from moonshine.engines.snakemake_plan import Plan, forget, read_plan, snakemake
from moonshine.errors import DataError
from moonshine.leftovers import set_aside_leftovers
from moonshine.params import read_params
from moonshine.progress import say

LONG_AGO = 1
"""Modification time of what is stale, in seconds since 1970. Snakemake takes 0 for no time at all."""


def sync() -> None:
    """Where Snakemake plans other jobs than DVC's stale stages, bring it round.

    Modification times and Snakemake's records of jobs change, contents never. DataError (exit code 3) if the two
    plans differ afterwards, LockedError (6) while Snakemake is at work: it would find its files older than they are.
    """
    require_no_snakemake()
    set_aside_leftovers(read_params(artefacts.PARAMS))
    with (
        ThreadPoolExecutor() as beside,
        open_project() as repo,
        lock_repo(repo),  # throughout, or DVC reads its files anew at each step
    ):
        planning = beside.submit(read_plan)  # a process of its own, which works while DVC does
        hash_what_is_new(repo)
        stage_of = outputs(repo)
        _require_no_dangling_links(stage_of)
        state = staleness(repo)
        plan = planning.result()
        if _differences(state, plan, stage_of):
            _bring_round(repo, state, stage_of)
            if differences := _differences(state, read_plan(), stage_of):
                raise DataError("\n".join(f"the engines still disagree: {line}" for line in differences))
            say("Snakemake now goes by dvc.lock")
        else:
            say("Snakemake and dvc.lock agree")
    if state.stale:
        say(f"to be run by either engine, {len(state.stale)} stages: {', '.join(sorted(state.stale))}")
    else:
        say("nothing to be run by either engine")


def _require_no_dangling_links(paths: Iterable[str]) -> None:
    """DVC and Snakemake both stop at one, without a word of what it is."""
    dangling = [path for path in map(Path, paths) if path.is_symlink() and not path.exists()]
    if dangling:
        cure = "`rm` the link, then `dvc pull` fetches the file or its stage makes it"
        raise DataError("\n".join(f"{path}: a link to {path.readlink()}, which is gone; {cure}" for path in dangling))


def _differences(state: Staleness, plan: Plan, stage_of: dict[str, str]) -> list[str]:
    """What the plans disagree on, and valid files of which Snakemake has no record and so would miss later changes."""
    pending = {stage_of[path] for path in plan.pending if path in stage_of}
    unknown = {stage_of[path] for path in stage_of.keys() - plan.remembered if stage_of[path] not in state.stale}
    lines = [f"{name}: only Snakemake would run it" for name in sorted(pending - state.stale)]
    lines += [f"{name}: only DVC would run it" for name in sorted(state.stale - pending)]
    return lines + [f"{name}: Snakemake has no record of it" for name in sorted(unknown - pending)]


def _bring_round(repo: Repo, state: Staleness, stage_of: dict[str, str]) -> None:
    changed = [path for path, name in stage_of.items() if name in state.changed]
    valid = [path for path, name in stage_of.items() if name not in state.stale]
    _make_stale(changed)
    hashes = _hashes_of_large(repo, valid)
    omitted = ["--omit-from", *changed] if changed else []
    snakemake("--touch", "--forceall", "--cores", "1", "--quiet", "all", *omitted, "--")
    repo.state.save_many([(path, hash_info, None) for path, hash_info in hashes], repo.fs)
    remember_large(repo)


def _make_stale(paths: Iterable[str]) -> None:
    """Make Snakemake run the jobs of these files: older than any input, and without the record that says otherwise.

    (An input that is newer but has the recorded checksum would not be a reason to run.)
    """
    for name in paths:
        forget(name)
        path = Path(name)
        dated = path / artefacts.SNAKEMAKE_TIMESTAMP  # not made here: a folder in a file's place has none
        if dated.is_file() and not path.is_symlink():
            path = dated
        if os.path.lexists(path):
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def _hashes_of_large(repo: Repo, paths: Iterable[str]) -> list[tuple[str, object]]:
    """DVC's memory of large files' hashes, which a new modification time would make it forget: 150 GB to hash again.

    What is smaller it hashes again, and so sees what somebody edited while the times were changed.
    """
    large = [path for path in paths if is_large(Path(path))]
    absolute = [str(Path(repo.root_dir, path)) for path in large]  # unresolved: links are known by their own names
    return [(path, known[1]) for path in absolute if (known := repo.state.get(path, repo.fs))[1]]
