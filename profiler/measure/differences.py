"""What verifying finds: a figure in a record that does not follow from the rest of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from profiler.errors import AiprofError
from profiler.results.schema import CaseRecord, Measurement

# Sums may be added up in another order by another build of NumPy.
AGREES: Final = 1e-9


@dataclass(frozen=True)
class Difference:
    """Something in a record that does not follow from the rest of it.

    Attributes:
        figure: name of the figure or field.
        what: what is recorded, and what follows.
    """

    figure: str
    what: str


@dataclass(frozen=True)
class Recomputed:
    """What came of making figures again.

    Attributes:
        figures: names of those that were made again.
        differences: what does not follow.
        left_out: figures that were not made again, with the reason.
    """

    figures: tuple[str, ...]
    differences: tuple[Difference, ...]
    left_out: Mapping[str, str]


def guarded(figure: str, faults: Callable[[], Iterator[Difference]]) -> list[Difference]:
    """Collect differences; values with which nothing can be computed are one, too."""
    found: list[Difference] = []
    try:
        found.extend(faults())
    except (AiprofError, ValueError, ArithmeticError, LookupError, TypeError, AssertionError) as error:
        what = f"cannot be made again from the record: {type(error).__name__}: {str(error)[:200]}"
        found.append(Difference(figure, what))
    return found


def without_flags(case: CaseRecord, codes: set[str]) -> Iterator[Difference]:
    """Yield a difference for every flag that follows and is not in the record."""
    for code in sorted(codes - {flag.code for flag in case.flags}):
        yield Difference("flags", f"flag {code} follows from the samples and is not in the record")


def measurement_faults(name: str, recorded: Measurement, again: Measurement) -> Iterator[Difference]:
    """Yield what differs between a recorded measurement and the one made again."""
    if not close(recorded.value, again.value):
        yield Difference(name, f"is {_shown(recorded)}, the samples give {_shown(again)}")
        return
    if recorded.value is None:
        return  # why something is missing is told, not computed
    for field in ("unit", "n", "method", "scope"):
        if getattr(recorded, field) != getattr(again, field):
            what = f"{field} is {getattr(recorded, field)!r}, the samples give {getattr(again, field)!r}"
            yield Difference(name, what)
    pairs = zip(recorded.ci95 or (None, None), again.ci95 or (None, None), strict=True)
    if not all(close(mine, theirs) for mine, theirs in pairs):
        yield Difference(name, f"ci95 is {recorded.ci95}, the samples give {again.ci95}")


def _shown(measurement: Measurement) -> str:
    return "missing" if measurement.value is None else f"{measurement.value!r} {measurement.unit}"


def close(recorded: float | None, again: float | None) -> bool:
    """Whether two figures are the same but for the rounding of their sums; None equals None only."""
    if recorded is None or again is None:
        return recorded is again
    return math.isclose(recorded, again, rel_tol=AGREES, abs_tol=1e-15)
