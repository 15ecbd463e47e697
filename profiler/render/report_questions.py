"""What the first table of the report asks of each workload, and which case answers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from profiler.render.report_numbers import figure, plottable
from profiler.render.report_subjects import Entry, Family


class Question(NamedTuple):
    """A row of the table: a figure of a family, at the batch or load that answers it.

    Attributes:
        text: what is asked.
        metric: the figure.
        lower_is_better: whether less of it is better.
        names_level: whether the answer says at which batch or load it was found.
        pick: returns the case of a box that answers it, or None.
    """

    text: str
    metric: str
    lower_is_better: bool
    names_level: bool
    pick: Callable[[Sequence[Entry]], Entry | None]


def questions(family: Family) -> list[Question]:
    """Return what is asked of a family: one request, the full box, waits under load, and energy."""
    asked = _of_loads(family) if family.over != "batch" else _of_batches(family)
    energy = "energy_per_output_token_j"
    text = "energy, best batch" if family.over == "batch" else "energy, best load"
    return [*asked, Question(text, energy, True, True, lambda entries: _best(entries, energy, lower=True))]


def _of_batches(family: Family) -> list[Question]:
    smallest = _common_level(family, min)
    generates = family.lengths[1] > 1
    single = "decode_tokens_per_s" if generates else "prefill_tokens_per_s"
    whole = "output_tokens_per_s" if generates else "prefill_tokens_per_s"
    kind = "decode" if generates else "prefill"
    size = "one request" if smallest == 1 else f"batch {smallest:,g}"
    asked = [Question(f"{kind}, {size}", single, False, False, lambda entries: _at(entries, smallest))]
    if len({entry.level for entry in family.entries}) > 1:
        what = "output, best batch" if generates else "prefill, best batch"
        asked.append(Question(what, whole, False, True, lambda entries: _best(entries, whole, lower=False)))
    return asked


def _of_loads(family: Family) -> list[Question]:
    """Ask at the highest load that the most boxes were driven with: that is where users wait."""
    level = _common_level(family, max)
    at = f"{figure(level)} req/s" if family.over == "rate" else f"{level:,g} user{'' if level == 1 else 's'}"

    def here(entries: Sequence[Entry]) -> Entry | None:
        return _at(entries, level)

    steady = all(entry.measured("output_tokens_per_s_steady") for entry in family.entries)
    output = "output_tokens_per_s_steady" if steady else "output_tokens_per_s"
    asked = [
        Question("output, best load", output, False, True, lambda found: _best(found, output, lower=False)),
        Question(f"TTFT median, {at}", "ttft_p50_s", True, False, here),
        Question(f"TTFT p99, {at}", "ttft_p99_observed_s", True, False, here),
        Question(f"TPOT median, {at}", "tpot_p50_s", True, False, here),
    ]
    limits = {entry.case.served.slos for entry in family.entries if entry.case.served is not None}
    if len(limits) == 1 and all(limits):
        good = "goodput_requests_per_s"
        pick = Question(
            "goodput, best load", good, False, True, lambda found: _best(found, good, lower=False)
        )
        asked.append(pick)
    return asked


def _common_level(family: Family, pick: Callable[[Sequence[float]], float]) -> float:
    """Return the smallest or largest level of those that the most subjects have."""
    counts: Counter[float] = Counter()
    for subject in family.subjects:
        counts.update({entry.level for entry in family.of(subject)})
    most = max(counts.values())
    return pick([level for level, count in counts.items() if count == most])


def _at(entries: Sequence[Entry], level: float) -> Entry | None:
    return next((entry for entry in entries if entry.level == level), None)


def _best(entries: Sequence[Entry], metric: str, *, lower: bool) -> Entry | None:
    known = [entry for entry in entries if plottable(entry.value(metric))]
    sign = 1 if lower else -1
    return min(known, key=lambda entry: sign * (entry.value(metric) or 0.0), default=None)
