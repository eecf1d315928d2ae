"""Hash what DVC took on trust.

DVC notes a file that it checks out under the hash that it should have, and never reads it again; a damaged file of its
cache so passes for what dvc.lock says. Here every file that can come from the cache is read once after each change.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc.output import Output
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo

from moonshine.runtime.files import write_json
from moonshine.runtime.progress import say

MEMORY = Path(".dvc", "tmp", "moonshine-hashed.json")
"""Path -> the inode, modification time and size that a file had when it was hashed, and the hash."""


def hash_what_is_new(repo: Repo) -> None:
    """Hash cached outputs that changed since this last did, and tell DVC where they are not what it thinks.

    A damaged file of the cache is removed, so that it is made or fetched again instead of checked out again. What DVC
    thinks may change without the file: it links a file of its cache anew and takes it for what dvc.lock says.
    """
    memory, now, cached = _recall(), {}, _from_cache(repo)
    for out, path in cached:
        if not path.exists():  # a link to what another output's damage has just removed
            continue
        *stamp, digest = memory.get(str(path), [None])
        known = repo.state.get(str(path), repo.fs)[1]
        believed = known.value if known else None
        if new := stamp != _stamp(path):
            digest = _md5(path)
        if new or believed not in (digest, None):
            for name in {believed, out.hash_info.value} - {digest, None}:  # damage to a link is damage to the cache
                _remove_if_damaged(Path(repo.cache.local.oid_to_path(name)), name, path)
            if not path.exists():
                continue
            repo.state.save(str(path), repo.fs, HashInfo("md5", digest))
        now[str(path)] = [*_stamp(path), digest]
    for _, path in cached:
        if not path.exists():
            path.unlink()
    if now != memory:
        write_json(MEMORY, now)


def is_large(path: Path) -> bool:
    """Whether reading the file again takes long."""
    return path.is_file() and path.stat().st_size > 10_000_000


def remember_large(repo: Repo) -> None:
    """Note the modification times that large outputs have now; their contents are what they were when hashed."""
    memory, paths = _recall(), [path for _, path in _from_cache(repo) if is_large(path)]
    write_json(MEMORY, {name: [*_stamp(path), memory[name][-1]] for path in paths if (name := str(path)) in memory})


def _from_cache(repo: Repo) -> Iterable[tuple[Output, Path]]:
    outs = [out for stage in repo.index.stages for out in stage.outs if out.use_cache]
    return [(out, path) for out in outs if (path := Path(out.fs_path)).is_file()]


def _recall() -> dict[str, list[Any]]:
    try:
        memory = json.loads(MEMORY.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    entries = memory.items() if isinstance(memory, dict) else ()
    return {path: stamped for path, stamped in entries if isinstance(stamped, list) and len(stamped) == 4}


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_ino, status.st_mtime_ns, status.st_size]


def _remove_if_damaged(cached: Path, name: str, path: Path) -> None:
    if cached.is_file() and _md5(cached) != name:
        cached.unlink()
        again = f"`dvc pull --force {os.path.relpath(path)}` fetches it again"
        say(f"{os.path.relpath(cached)}: damaged, removed from DVC's cache; {again}")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
