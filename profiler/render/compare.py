"""A comparison as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.text import Text

from profiler.analysis.compare import Comparison, PairComparison
from profiler.analysis.compare_threshold import ThresholdReport
from profiler.render.compare_words import (
    CASES_PER_REASON,
    DEFAULT_METRICS,
    LABELS,
    MAX_REASONS,
    by_reason,
    case_label,
    case_notes,
    footnotes,
    judgement_lines,
    ratio_text,
    sentence,
    short_words,
    shown_metrics,
    side_text,
    summary,
    threshold_headline,
    value_text,
)

_COLORS: Final = {"different": "green", "undecided": "yellow", "not_distinguishable": "dim"}
_STATUS_COLORS: Final = {"regression": "bold red", "undecided": "yellow"}
_COLUMNS: Final = (14, 9, 9, 21)


def comparison_text(
    comparison: Comparison,
    names: Sequence[str] = DEFAULT_METRICS,
    threshold: ThresholdReport | None = None,
    width: int = 80,
) -> Text:
    """Return a comparison for a terminal.

    Args:
        comparison: what to show.
        names: metrics to show, in order.
        threshold: what a threshold made of it.
        width: columns; lines of text are folded to it, and the table needs 80.
    """
    text = Text()
    for line, style in _lines(comparison, names, threshold, max(width, 40)):
        text.append(f"{line}\n", style=style)
    text.rstrip()
    return text


Line = tuple[str, str]


def _lines(
    comparison: Comparison, names: Sequence[str], threshold: ThresholdReport | None, width: int
) -> Iterator[Line]:
    for side in comparison.sides:
        yield from _folded(f"{side.letter}  {side_text(side)}", "", width, "   ")
    for note in comparison.notes:
        yield from _folded(sentence(note), "bold yellow", width)
    for pair in comparison.pairs:
        yield "", ""
        yield from _pair_lines(pair, names, width)
    for note in footnotes(comparison, names):
        yield from _folded(note, "dim", width, "    ")
    if threshold is not None:
        yield from _threshold_lines(threshold, width)


def _pair_lines(pair: PairComparison, names: Sequence[str], width: int) -> Iterator[Line]:
    left = f", {len(pair.unmatched)} not comparable" if pair.unmatched else ""
    yield f"{pair.candidate} against {pair.baseline}: {len(pair.cases)} cases in common{left}", "bold"
    for label, parts in summary(pair, names):
        yield from _folded(f"  {label:{_COLUMNS[0]}}{'; '.join(parts)}", "", width, " " * 16)
    if pair.cases:
        yield "", ""
        head = ("", pair.baseline, pair.candidate, f"{pair.candidate}/{pair.baseline}", "")
        yield _row(*head), "dim"
    for position, case in enumerate(pair.cases):
        if position:
            yield "", ""
        yield from _folded(case_label(case), "bold", width, "  ")
        for metric in shown_metrics(case, names):
            cells = (
                LABELS[metric.metric],
                value_text(metric.baseline, metric.unit),
                value_text(metric.candidate, metric.unit),
                ratio_text(metric),
            )
            yield _row(*cells, short_words(metric)), _COLORS.get(metric.verdict, "")
        for note in case_notes(case, pair):
            yield from _folded(f"  {note}", "dim", width, "    ")
    yield from _unmatched_lines(pair, width)
    yield "", ""


def _row(label: str, baseline: str, candidate: str, ratio: str, words: str) -> str:
    first, second, third, fourth = _COLUMNS
    return f"  {label:{first}}{baseline:>{second}}{candidate:>{third}}  {ratio:{fourth}}  {words}".rstrip()


def _unmatched_lines(pair: PairComparison, width: int) -> Iterator[Line]:
    if not pair.unmatched:
        return
    yield "", ""
    yield f"Not comparable, {pair.candidate} against {pair.baseline}", "bold"
    groups = by_reason(pair)
    for reason, cases in groups[:MAX_REASONS]:
        yield from _folded(f"  {sentence(reason)}", "", width, "  ")
        for case in cases[:CASES_PER_REASON]:
            yield from _folded(f"    {case_label(case)}", "dim", width, "      ")
        if len(cases) > CASES_PER_REASON:
            yield f"    and {len(cases) - CASES_PER_REASON} more; --json lists all", "dim"
    if len(groups) > MAX_REASONS:
        yield f"  and {len(groups) - MAX_REASONS} more reasons; --json lists all", "dim"


def _threshold_lines(report: ThresholdReport, width: int) -> Iterator[Line]:
    yield "", ""
    beyond = report.with_status("regression")
    yield from _folded(threshold_headline(report), "bold red" if beyond else "bold", width)
    for status in ("regression", "undecided"):
        lines = judgement_lines(report, status)
        for line in lines[:CASES_PER_REASON]:
            yield from _folded(f"  {status}: {line}", _STATUS_COLORS[status], width, "    ")
        if len(lines) > CASES_PER_REASON:
            yield f"  and {len(lines) - CASES_PER_REASON} more; --json lists all", "dim"


def _folded(line: str, style: str, width: int, indent: str = "") -> Iterable[Line]:
    if len(line) <= width:
        return [(line, style)]
    return [(part, style) for part in textwrap.wrap(line, width, subsequent_indent=indent)]
