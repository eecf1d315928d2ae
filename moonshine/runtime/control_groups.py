"""The control groups that limit this process, in cgroup v2 or v1."""

from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS, MEMBERSHIPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def control_groups(controller: str) -> Iterator[tuple[int, Path]]:
    """The cgroup version and the folder of each group with limits of this controller, from this process's own upwards.

    A container sees only some of them, so a folder may be missing.
    """
    for line in MEMBERSHIPS.read_text(errors="surrogateescape").splitlines() if MEMBERSHIPS.exists() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, root = 2, CONTROL_GROUPS
        elif controller in controllers.split(","):
            # usually a link to the folder that is named by all of its controllers
            version, root = 1, CONTROL_GROUPS / controller
            if not root.exists():
                root = CONTROL_GROUPS / controllers
        else:
            continue
        own = Path(path.lstrip("/"))
        for group in (own, *own.parents):
            yield version, root / group
