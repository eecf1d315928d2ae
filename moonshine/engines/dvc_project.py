"""DVC's view of the project in the working directory: its stages, their outputs, and which of them are stale."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import networkx
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import LocalFileSystem
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.utils.serialize import ParseError
from dvc_data.hashfile.cache import DiskError, Timeout  # type: ignore[attr-defined]
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from moonshine.errors import DataError, LockedError, MachineError, MoonshineError
from moonshine.params.checked import mark_checked
from moonshine.project.graph import CHECK
from moonshine.project.lock_file import CURE, DVC_LOCK, has_conflict, require_whole_record


@contextmanager
def open_project() -> Iterator[Repo]:
    """The DVC project, with its errors turned into ours and no chatter; for callers that have read params.yaml."""
    logging.getLogger("dvc").setLevel(logging.WARNING)
    require_whole_record()
    try:
        with Repo() as repo:
            mark_checked()  # Snakemake does not, and without the file DVC considers every stage changed
            yield repo
    except NotDvcRepoError:
        raise MachineError("no DVC project here; run this from the root of a clone of the project") from None
    except LockError:
        raise LockedError("another DVC command is running in this project; wait for it and try again") from None
    except (DvcException, ParseError) as error:
        raise DataError(_explain(error)) from None
    except (sqlite3.Error, Timeout, DiskError) as error:
        raise _explain_database(error) from None


def _explain_database(error: Exception) -> MoonshineError:
    """For the databases in which DVC caches file hashes; everything in them can be computed again."""
    reason = " ".join(str(error).split())
    if isinstance(error, Timeout) or "locked" in reason:
        return LockedError(f"DVC's database: {reason}; wait for the process that holds it, or stop it")
    return MachineError(
        f"DVC's database: {reason}; if it is damaged, delete its folder, which only remembers hashes of files: "
        f"`rm -r {_databases()}`"
    )


def _databases() -> str:
    """The folder of this project's databases, found without opening them."""
    unopened = Repo.__new__(Repo)
    unopened._fs, unopened._scm, unopened._config = LocalFileSystem(), None, None
    unopened._remote, unopened._remote_config = None, None
    unopened.root_dir, unopened.dvc_dir = unopened._get_repo_dirs(None, unopened._fs)
    return str(unopened.site_cache_dir)


def _explain(error: Exception) -> str:
    """One line, with the cure for conflict markers, which git leaves in dvc.lock when two branches ran stages."""
    for name in ("dvc.lock", "dvc.yaml", "params.yaml"):
        if has_conflict(Path(name)):
            return conflict_in(name)
    cure = f"; {CURE}" if str(DVC_LOCK) in str(error) else ""
    return f"DVC: {' '.join(str(error).split())}{cure}"


def conflict_in(name: str) -> str:
    return (
        f"{name}: has git's conflict markers; take one side (`git checkout --ours {name}`, or --theirs), "
        "then `dvc checkout` and `moonshine sync`, which plans what the other side had run"
    )


@dataclass(frozen=True)
class Staleness:
    """`changed` is what `dvc status` lists, `stale` also all stages downstream; neither includes the stage `check`."""

    changed: frozenset[str]
    stale: frozenset[str]


def staleness(repo: Repo) -> Staleness:
    names = (name for name in repo.status() if not is_check(name))
    return with_changed(repo, Staleness(frozenset(), frozenset()), names)


def with_changed(repo: Repo, state: Staleness, names: Iterable[str]) -> Staleness:
    """The state with these stages marked as changed, too."""
    changed = state.changed | frozenset(names)
    return Staleness(changed, changed | downstream(repo, changed))


def downstream(repo: Repo, names: Iterable[str]) -> frozenset[str]:
    graph = repo.index.graph  # its edges go from a stage to the stages that it depends on
    names = frozenset(names)
    stages = [stage for stage in graph if stage.addressing in names]
    return frozenset(other.addressing for stage in stages for other in networkx.ancestors(graph, stage))


def outputs(repo: Repo) -> dict[str, str]:
    """Output path, relative to the working directory -> name of the stage that makes it, if both engines have it."""
    stages = [stage for stage in repo.index.stages if not is_check(stage.addressing)]
    return {os.path.relpath(out.fs_path): stage.addressing for stage in stages for out in stage.outs}


def hash_of_list(files: dict[tuple[str, ...], str]) -> str:
    """What dvc.lock has for a folder: the hash of the list of its files, given as path parts -> md5."""
    tree = Tree()
    for parts, md5 in files.items():
        tree.add(parts, None, HashInfo("md5", md5))
    tree.digest()
    return str(tree.hash_info.value)


def check_stages(repo: Repo) -> list[str]:
    """Names of the `check` stages; just one, because params.yaml has one experiment."""
    return [stage.addressing for stage in repo.index.stages if is_check(stage.addressing)]


def is_check(name: str) -> bool:
    """Whether this is the stage that Snakemake does not have."""
    return name.split("@")[0] == CHECK
