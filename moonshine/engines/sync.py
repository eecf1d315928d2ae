"""`moonshine sync`: make Snakemake's view of what is up to date match dvc.lock."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dvc.repo import Repo, lock_repo

from moonshine.checks.made_for import Mismatch
from moonshine.engines.dvc_project import Staleness, open_project, outputs, staleness, with_changed
from moonshine.engines.leftovers import set_aside_leftovers
from moonshine.engines.live import require_no_snakemake
from moonshine.engines.record import mismatched_stages
from moonshine.engines.snakemake_plan import Plan, make_stale, read_plan, snakemake
from moonshine.errors import DataError
from moonshine.params import read_params
from moonshine.project import artefacts
from moonshine.runtime.progress import say

LARGE = 10_000_000
"""Size in bytes of a file that takes long to read again."""


def sync() -> None:
    """If Snakemake plans other jobs than DVC's stale stages, make it plan these.

    Modification times and Snakemake's job records change, contents never. DataError (exit code 3) if the two plans
    still differ afterwards, or if dvc.lock has an artefact as current whose own record says otherwise; LockedError (6)
    while Snakemake is running, because its files would look older to it than they are.
    """
    require_no_snakemake()
    params = read_params(artefacts.PARAMS)
    set_aside_leftovers(params)
    with (
        ThreadPoolExecutor() as pool,
        open_project() as repo,
        lock_repo(repo),  # held throughout, or DVC would read its files again at each step
    ):
        planning = pool.submit(read_plan)  # in a process of its own, in parallel with DVC
        stage_of = outputs(repo)
        _require_no_dangling_links(stage_of)
        by_dvc, mismatched = staleness(repo), mismatched_stages(repo, params)
        state = with_changed(repo, by_dvc, mismatched)
        plan = planning.result()
        if _differences(state, plan, stage_of):
            _align_snakemake(repo, state, stage_of)
            if differences := _differences(state, read_plan(), stage_of):
                raise DataError("\n".join(f"the engines still disagree: {line}" for line in differences))
            say("Snakemake's state is now that of dvc.lock")
        else:
            say("Snakemake and dvc.lock agree")
    if state.stale:
        say(f"to be run by either engine, {len(state.stale)} stages: {', '.join(sorted(state.stale))}")
    else:
        say("nothing to be run by either engine")
    _refuse_false_records({name: each for name, each in mismatched.items() if name not in by_dvc.stale})


def _refuse_false_records(stages: dict[str, Mismatch]) -> None:
    """DataError for stages that dvc.lock has as current although their own artefacts contradict it."""
    lines = [
        f"{name}: {each.path}: {each.problem}, but dvc.lock has it as current, as `dvc commit` by hand may; Snakemake "
        f"makes it again, and so does `dvc repro --force --single-item {name}`"
        for name, each in sorted(stages.items())
    ]
    if lines:
        raise DataError("\n".join(lines))


def _require_no_dangling_links(paths: Iterable[str]) -> None:
    """DVC and Snakemake both stop at a dangling link, without saying what it is."""
    dangling = [path for path in map(Path, paths) if path.is_symlink() and not path.exists()]
    if dangling:
        cure = "`rm` the link, then `dvc pull` fetches the file or its stage makes it"
        raise DataError("\n".join(f"{path}: a link to {path.readlink()}, which is gone; {cure}" for path in dangling))


def _differences(state: Staleness, plan: Plan, stage_of: dict[str, str]) -> list[str]:
    """What the plans disagree on, and valid stages whose later changes Snakemake would miss for lack of a record."""
    pending = {stage_of[path] for path in plan.pending if path in stage_of}
    unknown = {stage_of[path] for path in stage_of.keys() - plan.remembered if stage_of[path] not in state.stale}
    lines = [f"{name}: only Snakemake would run it" for name in sorted(pending - state.stale)]
    lines += [f"{name}: only DVC would run it" for name in sorted(state.stale - pending)]
    return lines + [f"{name}: Snakemake has no record of it" for name in sorted(unknown - pending)]


def _align_snakemake(repo: Repo, state: Staleness, stage_of: dict[str, str]) -> None:
    changed = [path for path, name in stage_of.items() if name in state.changed]
    valid = [path for path, name in stage_of.items() if name not in state.stale]
    make_stale(changed)
    hashes = _hashes_of_large(repo, valid)
    omitted = ["--omit-from", *changed] if changed else []
    snakemake("--touch", "--forceall", "--cores", "1", "--quiet", "all", *omitted, "--")
    repo.state.save_many([(path, hash_info, None) for path, hash_info in hashes], repo.fs)


def _hashes_of_large(repo: Repo, paths: Iterable[str]) -> list[tuple[str, object]]:
    """DVC's cached hashes of large files, which a new modification time would invalidate: 150 GB to hash again.

    DVC hashes smaller files again, and so notices edits made while the times were being changed.
    """
    large = [path for path in paths if Path(path).is_file() and Path(path).stat().st_size > LARGE]
    absolute = [str(Path(repo.root_dir, path)) for path in large]  # unresolved: DVC has links under their own names
    return [(path, known[1]) for path in absolute if (known := repo.state.get(path, repo.fs))[1]]
