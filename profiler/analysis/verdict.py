"""What a gate says: plain data for the terminal, JUnit, Markdown, JSON and the HTML report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from profiler.analysis.decision import Better, Outcome
from profiler.analysis.policy import Combine

Overall = Literal["pass", "fail", "undecided", "nothing"]

EXIT_CODES: dict[Overall, int] = {"pass": 0, "fail": 1, "undecided": 3, "nothing": 4}


@dataclass(frozen=True)
class Line:
    """The verdict on one requirement for one case (or for what no case was found for).

    Attributes:
        requirement: id in the policy.
        metric: what is limited.
        unit: of every figure here.
        better: whether at least or at most :attr:`limit` is required.
        limit: the requirement; None for ``fidelity``.
        subject: the case, or what was looked for.
        case_id: of the case, or None when there is none.
        value: what was found, or None.
        low: lower one-sided bound at :attr:`confidence`, or None when there is no such bound.
        high: upper one-sided bound, or None.
        confidence: of each bound; above the policy's where several chances to pass are given.
        outcome: the verdict.
        why: one line.
        remedy: what would decide it; None when it is decided.
        command: the ``aiprof sweep`` that would, or None.
        labels: what the figure is: ``5 starts``, ``simulated``, ``predicted``, ...
        detail: what the requirement says beyond metric and limit, e.g. ``p99 at 32 users``.
        weight: in the ranking.
        note: the buyer's words.
    """

    requirement: str
    metric: str
    unit: str
    better: Better
    limit: float | None
    subject: str
    case_id: str | None
    value: float | None
    low: float | None
    high: float | None
    confidence: float
    outcome: Outcome
    why: str
    remedy: str | None
    command: str | None
    labels: tuple[str, ...]
    detail: str
    weight: float
    note: str


@dataclass(frozen=True)
class Judged:
    """Verdicts of which all or any must be a pass.

    Attributes:
        id: of the requirement or of the list in the policy.
        combine: how the members combine.
        outcome: the verdict.
        members: a requirement with several cases has a line for each.
    """

    id: str
    combine: Combine
    outcome: Outcome
    members: tuple[JudgedNode, ...]

    def lines(self) -> Iterator[Line]:
        """Yield all lines in the order of the policy."""
        for member in self.members:
            if isinstance(member, Line):
                yield member
            else:
                yield from member.lines()


JudgedNode: TypeAlias = Line | Judged


@dataclass(frozen=True)
class CandidateVerdict:
    """What the policy says about one candidate.

    Attributes:
        name: of the candidate.
        device_key: its key.
        backend: its family.
        runs: names of its runs.
        simulated: whether any of it is simulated.
        outcome: the verdict.
        root: verdicts by requirement.
        score: weighted geometric mean of value over limit (limit over value where less is better); above 1
            is better than required; None when a weighted requirement has no figure.
        score_low: the score with every figure at its unfavourable bound, or None.
        score_high: the same at the favourable bound, or None.
        unscored: why there is no score, or None.
    """

    name: str
    device_key: str
    backend: str
    runs: tuple[str, ...]
    simulated: bool
    outcome: Outcome
    root: Judged
    score: float | None
    score_low: float | None
    score_high: float | None
    unscored: str | None


@dataclass(frozen=True)
class Rank:
    """A place in the ranking.

    Attributes:
        place: 1 for the best; equal where candidates share verdict and score cannot tell them apart.
        candidate: its name.
        tied: whether the place is shared because the scores' bounds overlap.
    """

    place: int
    candidate: str
    tied: bool


@dataclass(frozen=True)
class Verdict:
    """What the policy says about all candidates.

    Attributes:
        policy: its name.
        description: the buyer's words.
        confidence: a requirement that is not met passes at most with probability ``1 - confidence``.
        combine: whether all candidates must pass, or any one.
        outcome: the verdict; ``nothing`` when no case of any run is what the policy is about.
        candidates: one verdict each, in the order of the runs.
        ranking: candidates from best to worst; empty for a single one.
        notes: what a reader should know about the runs.
    """

    policy: str
    description: str
    confidence: float
    combine: Combine
    outcome: Overall
    candidates: tuple[CandidateVerdict, ...]
    ranking: tuple[Rank, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 undecided, 4 nothing to judge."""
        return EXIT_CODES[self.outcome]

    @property
    def basis(self) -> str:
        """How the verdicts on the candidates make the verdict of the whole."""
        if len(self.candidates) < 2:
            return "one candidate"
        return "all candidates must pass" if self.combine == "all" else "one candidate that passes is enough"


def combined(combine: Combine, outcomes: Iterable[Outcome]) -> Outcome:
    """Combine verdicts: ``all`` fails with the first fail, ``any`` passes with the first pass."""
    seen = set(outcomes)
    decisive: Outcome = "fail" if combine == "all" else "pass"
    otherwise: Outcome = "pass" if combine == "all" else "fail"
    if decisive in seen:
        return decisive
    return otherwise if seen == {otherwise} else "undecided"
