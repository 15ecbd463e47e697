"""The worker's entry point: started by path under the engine's interpreter, speaks JSON lines.

Descriptors are taken over before anything else is imported, so that whatever an engine prints
while it is imported cannot end up in the protocol.
"""

from __future__ import annotations

import os
import sys


def take_over_descriptors() -> tuple[int, int]:
    """Return private (request, answer) descriptors; stdin becomes empty and stdout becomes stderr."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def become_package(folder: str) -> None:
    """Make this folder importable as ``aiprof_worker`` and keep its file names off ``sys.path``.

    A file here named like one of the engine's modules must never be imported in its place.
    """
    import importlib.util

    if sys.path and os.path.realpath(sys.path[0] or ".") == folder:
        del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        "aiprof_worker", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["aiprof_worker"] = package
    spec.loader.exec_module(package)


def main() -> None:
    """Serve requests until ``bye`` or the end of the input."""
    requests, answers = take_over_descriptors()
    become_package(os.path.dirname(os.path.realpath(__file__)))
    from aiprof_worker import isolation, protocol

    isolation.die_with_parent(int(sys.argv[1]))
    isolation.volunteer_for_oom_kill()
    protocol.serve(requests, answers)


if __name__ == "__main__":
    main()
