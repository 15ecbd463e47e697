"""What loads were judged by: the answer of a search in words, and each limit with its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler.analysis.slo_search import limit_of, search_answer, why
from profiler.load.search import MARGIN
from profiler.render.report_numbers import Unit, figure, plottable, unit_for
from profiler.render.report_subjects import Entry, Subject
from profiler.render.report_view import DASH, Cell, Column, Row, Table, shorten
from profiler.results.schema import SloJudgement

MAX_JUDGED: Final = 200
_LOOKED_FOR: Final = {
    "concurrency": "The search for the most users that keep the limits",
    "rate": "The search for the highest rate that keeps the limits",
}


def search_sentences(subjects: Sequence[Subject], entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return a sentence with the answer of each run that was a search; none for other runs."""
    sentences: list[str] = []
    for subject in subjects:
        answer = search_answer(subject.run)
        if answer is None or not any(entry.subject.index == subject.index for entry in entries):
            continue
        where = f" on {subject.label}" if len(subjects) > 1 else ""
        sentences.append(f"{_LOOKED_FOR[answer.over]}{where}: {shorten(answer.words(), 600)}.")
    return tuple(sentences)


def judged_table(entries: Sequence[Entry]) -> Table:
    """Return every limit of a percentile that a load was judged by; loads that failed stand among them."""
    loads = [entry for entry in entries if entry.spec.load is not None]
    searched = {
        entry.subject.index for entry in loads if entry.subject.run.record.settings.search is not None
    }
    several = len({entry.subject.index for entry in loads}) > 1
    rows: list[Row] = []
    known = [
        (entry, one)
        for entry in sorted(loads, key=lambda entry: (entry.subject.index, entry.level))
        for one in _judged(entry, searched)
    ]
    shown = known[:MAX_JUDGED]
    unit = unit_for("s", [value for _, one in shown if one is not None for value in _times(one)])
    for entry, one in shown:
        identity = (
            *((Cell(entry.subject.label),) if several else ()),
            Cell(entry.level_text, link=entry.anchor),
        )
        if one is None:
            failure = entry.case.failure
            reason = "" if failure is None else f" ({failure.kind}): {shorten(failure.message, 200)}"
            rows.append(Row((*identity, Cell("fails")), remark=f"the load failed{reason}"))
        else:
            rows.append(Row((*identity, Cell(one.verdict), *_bounds(one, unit), Cell(why(one)))))
    columns = (
        *((Column("box"),) if several else ()),
        Column("load"),
        Column("verdict"),
        Column("limit"),
        Column("requests", "", True),
        *(Column(name, unit.text, True) for name in ("at least", "these requests", "at most")),
        Column("why"),
    )
    note = (
        "“These requests” is the percentile of the requests of this load; the true one lies between "
        "“at least” and “at most” with 99% confidence on either side. A limit holds when “at most” is "
        f"{MARGIN:.0%} or more below it, and fails when “at least” is more than {MARGIN:.0%} over it; a load "
        "holds when all its limits do."
    )
    if len(known) > len(shown):
        note += f" The first {len(shown):,} of {len(known):,} verdicts."
    return Table("judged", "Limits that loads were judged by", columns, tuple(rows), note)


def _judged(entry: Entry, searched: set[int]) -> Sequence[SloJudgement | None]:
    """Return the verdicts on a load; None for one of a search that failed, which counts as failing."""
    if entry.case.served is not None and entry.case.served.judgements:
        return entry.case.served.judgements
    return (None,) if entry.case.status == "failed" and entry.subject.index in searched else ()


def _times(judged: SloJudgement) -> list[float]:
    slo = limit_of(judged)
    found = (judged.low_s, judged.value_s, judged.high_s, None if slo is None else slo.limit_s)
    return [value for value in found if value is not None and plottable(value)]


def _bounds(judged: SloJudgement, unit: Unit) -> tuple[Cell, ...]:
    times = (judged.low_s, judged.value_s, judged.high_s)
    cells = (Cell(DASH) if value is None else Cell(figure(value / unit.size)) for value in times)
    return Cell(shorten(judged.slo, 40)), Cell(f"{judged.n:,}"), *cells
