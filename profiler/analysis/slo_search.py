"""What a search for the highest load found, read from the record of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.results.read import Run
from profiler.results.schema import CaseRecord

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
            text = f"{self.holds:g} {unit} keep {limits}{most}"
        if self.fails is not None:
            text += f"; {self.fails:g} fail"
        if self.undecided:
            text += f"; undecided: {_levels(self.undecided)}"
        if self.too_few:
            text += (
                f" (too few requests at {_levels(self.too_few)}: a larger --budget, or a lower percentile)"
            )
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
        too_few=tuple(
            sorted(level for case in run.cases if _too_few(case) and (level := _level(case)) is not None)
        ),
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


def _too_few(case: CaseRecord) -> bool:
    """Whether a load is undecided because its requests were too few for an upper bound."""
    if verdict_of(case) != "undecided" or case.served is None:
        return False
    return any(one.verdict == "undecided" and one.high_s is None for one in case.served.judgements)


def _levels(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)


def _level(case: CaseRecord) -> float | None:
    load = case.spec.load
    if load is None:
        return None
    return float(load.concurrency) if load.concurrency is not None else load.rate_per_s
