"""Hash what DVC took on trust.

DVC notes a file that it checks out under the hash that it should have, and never reads it again; a damaged file of its
cache so passes for what dvc.lock says. Here every file that can come from the cache is read once after each change.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo

from moonshine.files import write_json
from moonshine.progress import say

MEMORY = Path(".dvc", "tmp", "moonshine-hashed.json")
"""Path -> the inode, modification time and size that a file had when it was hashed."""


def hash_what_is_new(repo: Repo) -> None:
    """Hash cached outputs that changed since this last did, and tell DVC where they are not what it thinks.

    A damaged file of the cache is removed, so that it is made or fetched again instead of checked out again.
    """
    memory = _recall()
    new = [path for path in _from_cache(repo) if memory.get(str(path)) != _stamp(path)]
    for path in new:
        digest = _md5(path)
        known = repo.state.get(str(path), repo.fs)[1]
        if known and known.value != digest:
            _remove_if_damaged(Path(repo.cache.local.oid_to_path(known.value)), known.value)
        repo.state.save(str(path), repo.fs, HashInfo("md5", digest))
    if new:
        remember(repo)


def remember(repo: Repo) -> None:
    """Note that DVC's memory of the hashes of the outputs, as they are now, is true."""
    write_json(MEMORY, {str(path): _stamp(path) for path in _from_cache(repo)})


def _from_cache(repo: Repo) -> Iterable[Path]:
    outs = [out for stage in repo.index.stages for out in stage.outs if out.use_cache]
    return [path for out in outs if (path := Path(out.fs_path)).is_file()]


def _recall() -> dict[str, list[int]]:
    try:
        return json.loads(MEMORY.read_text())
    except (OSError, ValueError):
        return {}


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_ino, status.st_mtime_ns, status.st_size]


def _remove_if_damaged(cached: Path, name: str) -> None:
    if cached.is_file() and _md5(cached) != name:
        cached.unlink()
        say(f"{os.path.relpath(cached)}: damaged, removed from DVC's cache; `dvc pull` fetches it again")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
