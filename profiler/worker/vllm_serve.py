"""Runs ``vllm serve`` in the environment that offline cases get: ``python vllm_serve.py serve MODEL …``.

Started by path under the engine's interpreter, by the guard of ``engines/server_guard.py``. What has to be
put in order (``vllm_environment``) is put in order whenever this file is run, because processes that vLLM
spawns run it once more as ``__mp_main__`` and do not inherit modules that were hidden here.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def _become_package() -> None:
    """Make this folder importable as ``aiprof_worker``, as the worker's entry point does it."""
    folder = os.path.dirname(os.path.realpath(__file__))
    spec = importlib.util.spec_from_file_location("aiprof_entry", os.path.join(folder, "main.py"))
    assert spec is not None
    assert spec.loader is not None
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    entry.become_package(folder)


def _prepare() -> None:
    if "aiprof_worker" not in sys.modules:
        _become_package()
    from aiprof_worker import vllm_environment

    vllm_environment.prepare(int(os.environ["AIPROF_THREADS"]), in_process=False)


def main() -> None:
    """Hand over to vLLM's own command line."""
    from vllm.entrypoints.cli.main import main as command_line

    sys.argv[0] = "vllm"
    command_line()


_prepare()
if __name__ == "__main__":
    main()
