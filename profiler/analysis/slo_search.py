"""What a search for the highest load found, read from the record of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiler.errors import UsageError
from profiler.load.search import MARGIN
from profiler.load.slo import Slo, parse_slo
from profiler.measure.percentiles import required_requests
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, SloJudgement

WORDS = {"concurrency": "users", "rate": "requests/s"}


@dataclass(frozen=True)
class SearchAnswer:
    """The end of a search.

    Attributes:
        over: ``concurrency`` or ``rate``.
        slos: the limits.
        holds: highest level below which, itself included, everything that was measured holds; None when not
            even the lowest does.
        fails: lowest level that fails, or None.
        undecided: levels that could be said neither of, rising.
        too_few: those of them with too few requests for a bound, rising.
        border: those of them whose bounds all lie within 5% of the limits, rising.
        not_monotone: levels that hold above one that fails, rising.
        complete: whether the search came to its end.
        at_end: whether even the highest level allowed holds.
    """

    over: str
    slos: tuple[str, ...]
    holds: float | None
    fails: float | None
    undecided: tuple[float, ...]
    too_few: tuple[float, ...]
    border: tuple[float, ...]
    not_monotone: tuple[float, ...]
    complete: bool
    at_end: bool

    def words(self) -> str:
        """Return the answer for people."""
        unit, limits = WORDS[self.over], ", ".join(self.slos)
        if self.holds is None:
            text = f"no load that was measured keeps {limits}"
        else:
            most = ", the highest allowed" if self.at_end else ""
            load = "1 user keeps" if unit == "users" and self.holds == 1 else f"{self.holds:g} {unit} keep"
            text = f"{load} {limits}{most}"
        if self.fails is not None:
            text += f"; {self.fails:g} fail"
        if self.undecided:
            text += f"; undecided: {_levels(self.undecided)}"
        if self.too_few:
            text += (
                f" (too few requests at {_levels(self.too_few)}: a larger --budget, or a lower percentile)"
            )
        if self.border:
            text += f" (within {MARGIN:.0%} of a limit at {_levels(self.border)})"
        if self.not_monotone:
            text += (
                f"; {_levels(self.not_monotone)} hold again above one that fails: the server is not steady"
            )
        return text if self.complete else f"{text} (the search was not finished)"


def search_answer(run: Run) -> SearchAnswer | None:
    """Return what the search of a run found, or None for a run without one."""
    search = run.record.settings.search
    if search is None:
        return None
    found = {level: verdict_of(case) for case in run.cases if (level := _level(case)) is not None}
    fails = min((level for level, verdict in found.items() if verdict == "fails"), default=None)
    border = min((level for level, verdict in found.items() if verdict != "holds"), default=None)
    below = [
        level for level, verdict in found.items() if verdict == "holds" and (border is None or level < border)
    ]
    again = [level for level, verdict in found.items() if verdict == "holds" and level > (fails or level)]
    holds = max(below, default=None)
    return SearchAnswer(
        over=search.over,
        slos=search.slos,
        holds=holds,
        fails=fails,
        undecided=tuple(sorted(level for level, verdict in found.items() if verdict == "undecided")),
        too_few=_levels_of(run, lambda found: any(map(_too_few, found))),
        border=_levels_of(run, lambda found: all(map(_on_border, found))),
        not_monotone=tuple(sorted(again)),
        complete=run.complete,
        at_end=holds is not None and holds >= search.high,
    )


def verdict_of(case: CaseRecord) -> str:
    """Return ``holds``, ``fails`` or ``undecided`` for a served case; a failed one fails."""
    if case.status == "failed":
        return "fails"
    verdicts: Sequence[str] = [] if case.served is None else [one.verdict for one in case.served.judgements]
    if "fails" in verdicts:
        return "fails"
    return "holds" if verdicts and set(verdicts) == {"holds"} else "undecided"


def why(judged: SloJudgement) -> str:
    """Return what the verdict on a load by one limit rests on, for people."""
    if judged.n == 0:
        return "no request has this time"
    if judged.verdict == "holds":
        return f"the upper bound is {MARGIN:.0%} or more below the limit"
    if judged.verdict == "fails":
        over = f"the lower bound is more than {MARGIN:.0%} over the limit"
        return over if judged.low_s is not None else "so many requests failed"
    if _too_few(judged):
        return "too few requests for an upper bound"
    if judged.high_s is None:
        return "the upper bound falls on failed requests"
    if _on_border(judged):
        return f"within {MARGIN:.0%} of the limit"
    return "the limit lies between the bounds: more requests would narrow them"


def limit_of(judged: SloJudgement) -> Slo | None:
    """Return the limit that was judged, or None where a record names none that is known."""
    try:
        return parse_slo(judged.slo)
    except UsageError:
        return None


def _too_few(judged: SloJudgement) -> bool:
    """Whether requests were too few for an upper bound of the percentile, however fast they were."""
    slo = limit_of(judged)
    if judged.high_s is not None or slo is None or slo.percentile is None:
        return False
    return judged.n < required_requests(slo.percentile, 1)


def _on_border(judged: SloJudgement) -> bool:
    """Whether both bounds lie so near the limit that no number of requests would decide."""
    slo = limit_of(judged)
    if slo is None or judged.low_s is None or judged.high_s is None:
        return False
    return slo.limit_s * (1 - MARGIN) <= judged.low_s and judged.high_s <= slo.limit_s * (1 + MARGIN)


def _levels_of(run: Run, says: Callable[[Sequence[SloJudgement]], bool]) -> tuple[float, ...]:
    """Return the undecided levels about whose undecided limits something can be said, rising."""
    levels: list[float] = []
    for case in run.cases:
        level, served = _level(case), case.served
        if level is None or served is None or verdict_of(case) != "undecided":
            continue
        undecided = [one for one in served.judgements if one.verdict == "undecided"]
        if undecided and says(undecided):
            levels.append(level)
    return tuple(sorted(levels))


def _levels(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)


def _level(case: CaseRecord) -> float | None:
    load = case.spec.load
    if load is None:
        return None
    return float(load.concurrency) if load.concurrency is not None else load.rate_per_s
