"""Backends and engines by name: a built-in table first, entry points of other packages after it.

Names are known without importing anything; a class is imported when it is first asked for.
Other packages add theirs through the entry points ``aiprof.backends`` and ``aiprof.engines``.
On the same name ours wins: an installed package must not be able to replace what measures.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from profiler.errors import UsageError, unknown

BUILT_IN: dict[str, dict[str, str]] = {
    "backends": {
        "cuda": "profiler.backends.cuda:CudaBackend",
        "rocm": "profiler.backends.rocm:RocmBackend",
        "cpu": "profiler.backends.cpu:CpuBackend",
        "fake": "profiler.backends.fake:FakeBackend",
    },
    "engines": {
        "torch": "profiler.engines.torch:TorchEngine",
        "fake": "profiler.engines.fake:FakeEngine",
    },
}


def _foreign(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"aiprof.{group}")}


def names(group: str) -> list[str]:
    """Names in ``group`` (``"backends"`` or ``"engines"``): ours in table order, then foreign ones sorted."""
    ours = list(BUILT_IN[group])
    return ours + sorted(set(_foreign(group)) - set(ours))


def load(group: str, name: str) -> Any:
    """Return an instance of the class registered as ``name``.

    Raises:
        UsageError: the name is not known, or a foreign package fails to import.
    """
    target = BUILT_IN[group].get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)()
    foreign = _foreign(group)
    if name not in foreign:
        raise UsageError(unknown(group.removesuffix("s"), name, names(group)))
    try:
        return foreign[name].load()()
    except Exception as error:  # a foreign package may fail in any way; ours must go on
        raise UsageError(f"{group.removesuffix('s')} '{name}' from {foreign[name].value} cannot be loaded: {error}") from error
