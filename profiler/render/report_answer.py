"""The answer first: which box does what best, and where the figures do not say.

Who is ahead is decided by a :class:`Judge`. The default looks only at the intervals that the report
shows anyway; a comparison that knows starts and trials can take its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

from profiler.render.report_caveats import caveats
from profiler.render.report_numbers import figure, measured_cell, plottable, unit_for
from profiler.render.report_questions import Question, questions
from profiler.render.report_subjects import Entry, Family, Subject
from profiler.render.report_view import (
    DASH,
    Badge,
    Cell,
    Column,
    Row,
    Section,
    Table,
    condensed,
    listed,
    plural,
    shorten,
)

NOT_DISTINGUISHABLE: Final = "not distinguishable"
# What stands behind each figure is given for so many workloads; it takes more room than the figures.
MAX_TITLED: Final = 20


@dataclass(frozen=True)
class Ratio:
    """How often the first of two cases holds the second, in the metric that was asked for.

    Attributes:
        value: first divided by second.
        low: lower end of its interval.
        high: upper end of its interval.
        undecided: why nothing may be concluded from it however the interval lies; empty when it may.
    """

    value: float
    low: float
    high: float
    undecided: str = ""

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1 <= self.high


class Judge(Protocol):
    """Compares two cases in one metric."""

    @property
    def note(self) -> str:
        """Say in a sentence how it judges."""

    def ratio(self, metric: str, first: Entry, second: Entry) -> Ratio | None:
        """Return the ratio of ``metric``, or None where it cannot be given."""


class OverlapJudge:
    """Calls two figures different when their 95% intervals do not overlap.

    For two independent intervals that is stricter than a 95% test of the ratio, so it calls fewer
    things different than there are.
    """

    note = (
        "Two figures are called different only when their 95% intervals do not overlap, which is stricter "
        "than a 95% test of their ratio; there is no correction for the number of rows. Figures from one "
        "start or load each are undecided, because the interval of one says nothing about the next."
    )

    def ratio(self, metric: str, first: Entry, second: Entry) -> Ratio | None:
        """Return the quotient of the values and of the ends of their intervals that lie furthest apart."""
        one, two = first.measured(metric), second.measured(metric)
        if one is None or two is None or not plottable(one.value, two.value):
            return None
        value = (one.value or 0.0) / (two.value or 1.0)
        if one.ci95 is None or two.ci95 is None or not plottable(*one.ci95, *two.ci95):
            once = "one_load" in (one.scope, two.scope)
            return Ratio(value, 0.0, float("inf"), "one load" if once else "no interval")
        # A figure with the scope of a sensor counts its starts.
        few = [item for item in (one, two) if item.scope != "across_starts" and item.n < 2]
        undecided = "one start" if few or "within_process" in (one.scope, two.scope) else ""
        undecided = "one load" if "one_load" in (one.scope, two.scope) else undecided
        return Ratio(value, one.ci95[0] / two.ci95[1], one.ci95[1] / two.ci95[0], undecided)


class Verdict(NamedTuple):
    """How a row ended: the badge of each subject by index, and in words."""

    badges: dict[int, Badge]
    text: str
    kind: str
    leader: Subject | None


def answer_section(families: Sequence[Family], subjects: Sequence[Subject], judge: Judge) -> Section:
    """Return the table of answers and a sentence that sums it up."""
    rows: list[Row] = []
    verdicts: list[Verdict] = []
    shown: list[Entry] = []
    for family in families:
        for question in questions(family):
            chosen = _chosen(family, question)
            if chosen:
                row, verdict = _answer(
                    family, question, subjects, chosen, judge, titles=len(families) <= MAX_TITLED
                )
                rows.append(row)
                verdicts.append(verdict)
                shown += chosen.values()
    several = len(subjects) > 1
    columns = (
        Column("model"),
        Column("workload"),
        Column("formats"),
        Column("question"),
        Column("unit"),
        *(Column(shorten(subject.label, 32), "", True) for subject in subjects),
        *((Column("verdict"),) if several else ()),
    )
    caption = "Which box does what" if several else "What this box does"
    table = condensed(Table("answers", caption, columns, tuple(rows), cards=True))
    if not rows:
        return Section("answer", "The answer", "Answer", empty="No case has been measured yet.")
    lead = (_summary(verdicts), judge.note) if several else ()
    return Section("answer", "The answer", "Answer", lead=(*lead, *caveats(shown)), tables=(table,))


def _chosen(family: Family, question: Question) -> dict[int, Entry]:
    """Return the case of each subject, by index, that answers the question."""
    chosen: dict[int, Entry] = {}
    for subject in family.subjects:
        entry = question.pick(family.of(subject))
        if entry is not None and entry.measured(question.metric) is not None:
            chosen[subject.index] = entry
    return chosen


def _answer(
    family: Family,
    question: Question,
    subjects: Sequence[Subject],
    chosen: dict[int, Entry],
    judge: Judge,
    *,
    titles: bool,
) -> tuple[Row, Verdict]:
    """Return a row and how it ended."""
    base = next(iter(chosen.values())).measured(question.metric)
    unit = unit_for(base.unit if base else "", [entry.value(question.metric) for entry in chosen.values()])
    verdict = _verdict(list(chosen.values()), question, judge)
    cells = [
        Cell(family.model),
        Cell(family.workload),
        Cell(family.formats),
        Cell(question.text),
        Cell(unit.text),
    ]
    for subject in subjects:
        entry = chosen.get(subject.index)
        if entry is None:
            cells.append(Cell(DASH, title="not measured"))
            continue
        cell = measured_cell(entry.measured(question.metric), unit, titles=titles, link=entry.anchor)
        details = [entry.spec.load_label] if question.names_level else []
        detail = ", ".join([*details, *(["does not count"] if entry.refuted else [])])
        cells.append(replace(cell, badge=verdict.badges.get(subject.index, ""), detail=detail))
    if len(subjects) > 1:
        cells.append(Cell(verdict.text))
    return Row(tuple(cells)), verdict


def _verdict(entries: Sequence[Entry], question: Question, judge: Judge) -> Verdict:
    """Hold the best against all others."""
    known = [entry for entry in entries if plottable(entry.value(question.metric)) and not entry.refuted]
    if len(known) < 2:
        refuted = any(entry.refuted for entry in entries)
        return Verdict({}, "only one box counts" if refuted else "only one box", "single", None)
    sign = 1 if question.lower_is_better else -1
    ordered = sorted(known, key=lambda entry: sign * (entry.value(question.metric) or 0.0))
    leader, others = ordered[0], ordered[1:]
    level: list[Entry] = []
    undecided: list[str] = []
    for other in others:
        if not _same_work(leader, other):
            return Verdict({}, "different work under one name", "different", None)
        ratio = judge.ratio(question.metric, leader, other)
        if ratio is None or ratio.undecided:
            undecided.append(ratio.undecided if ratio else "not comparable")
        elif not ratio.distinguishable:
            level.append(other)
    margin = _margin(question, leader, others[0], judge)
    name = leader.subject.label
    if undecided:
        why = " and ".join(dict.fromkeys(undecided))
        return Verdict(
            {leader.subject.index: "ahead"},
            f"{name}, {margin}; undecided: {why}",
            "undecided",
            leader.subject,
        )
    if level:
        badges: dict[int, Badge] = {entry.subject.index: "level" for entry in (leader, *level)}
        names = listed([entry.subject.label for entry in (leader, *level)])
        return Verdict(badges, f"{NOT_DISTINGUISHABLE}: {names}", "level", None)
    return Verdict({leader.subject.index: "best"}, f"{name}, {margin}", "best", leader.subject)


def _same_work(first: Entry, second: Entry) -> bool:
    """Whether equal batches or loads are equal work; a folder may give another model the same name."""
    return first.level != second.level or first.spec.workload_id == second.spec.workload_id


def _margin(question: Question, leader: Entry, second: Entry, judge: Judge) -> str:
    """Say how far the best is from the next, as a factor above 1."""
    first, other = (second, leader) if question.lower_is_better else (leader, second)
    ratio = judge.ratio(question.metric, first, other)
    if ratio is None:
        return "ratio unknown"
    interval = f" ({figure(ratio.low)} to {figure(ratio.high)})" if ratio.high != float("inf") else ""
    return f"{figure(ratio.value)}×{interval} the next"


def _summary(verdicts: Sequence[Verdict]) -> str:
    """Say in a sentence who wins how often."""
    kinds = Counter(verdict.kind for verdict in verdicts)
    compared = len(verdicts) - kinds["single"]
    if not compared:
        return "No figure that counts was measured on more than one box, so there is nothing to compare."
    parts = [f"{label} is best in {count}" for label, count in _leaders(verdicts, "best")]
    parts += [f"{kinds['level']} cannot be told apart"] if kinds["level"] else []
    if kinds["undecided"]:
        ahead = [f"{label} in {count}" for label, count in _leaders(verdicts, "undecided")]
        parts.append(f"{kinds['undecided']} are undecided (ahead: {listed(ahead, 8)})")
    parts += [f"{kinds['different']} are different work"] if kinds["different"] else []
    return f"Of {plural(compared, 'figure')} that more than one box has: {', '.join(parts)}."


def _leaders(verdicts: Sequence[Verdict], kind: str) -> list[tuple[str, int]]:
    """Return who leads in verdicts of one kind and how often, most often first."""
    found = Counter(
        verdict.leader.label for verdict in verdicts if verdict.kind == kind and verdict.leader is not None
    )
    return found.most_common()
