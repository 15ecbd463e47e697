"""aiprof: what a machine really does with open LLMs.

:func:`load_runs` and :func:`load_trials` turn runs into pandas data frames. pandas is imported when
one of them is first used, not with this package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.results.load import load_runs, load_trials

__version__ = "0.1.0"
__all__ = ["__version__", "load_runs", "load_trials"]


def __getattr__(name: str) -> Any:
    if name in ("load_runs", "load_trials"):
        from profiler.results import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
