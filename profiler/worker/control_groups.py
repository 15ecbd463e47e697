"""The control groups that limit this process (Linux), versions 1 and 2."""

from __future__ import annotations

import os
from typing import Iterator


def with_parents(
    controller: str, proc: str = "/proc", cgroup: str = "/sys/fs/cgroup"
) -> Iterator[tuple[int, str]]:
    """Yield (version, folder) of this process's groups that ``controller`` may limit, innermost first.

    A folder may not exist: inside a container the path can be the host's, whose last parent, the
    root that is mounted, is then the container's own group.
    """
    for line in (read_text(os.path.join(proc, "self", "cgroup")) or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if line.startswith("0::"):
            version, root = 2, cgroup
        elif controller in controllers.split(","):
            version, root = 1, os.path.join(cgroup, controller)
        else:
            continue
        path = path.strip("/")
        while path:
            yield version, os.path.join(root, path)
            path = os.path.dirname(path)
        yield version, root


def read_text(path: str) -> str | None:
    """Return the content of a small file, or None when it cannot be read."""
    try:
        with open(path) as file:
            return file.read()
    except (OSError, ValueError):
        return None


def read_number(path: str) -> int | None:
    """Return the whole number in a file, or None when it holds none (``max`` is no limit)."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None
