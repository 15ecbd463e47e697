"""A file for what workers print, which nothing leaves behind: not even a conductor that is killed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def worker_log() -> Iterator[Path]:
    """Yield the path of an empty log file; only its tail reaches a record, and only of a failed case.

    The file has no name in any folder, so that the kernel takes it away with this process. Where ``/proc``
    does not lead to such a file, it lies in a temporary folder that is deleted on every way out but SIGKILL.
    """
    with tempfile.TemporaryFile(prefix="aiprof-") as file:
        path = Path(f"/proc/self/fd/{file.fileno()}")
        try:
            path.open("ab").close()
        except OSError:
            pass
        else:
            yield path
            return
    with tempfile.TemporaryDirectory(prefix="aiprof-") as folder:
        yield Path(folder) / "worker.log"
