"""A comparison as Markdown for a pull request.

Names come from files that another person may have written. They stand in ``<code>`` with every sign
spelt as a character reference, so that they can neither break the table nor call a person or an issue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from profiler.analysis.compare import CaseComparison, Comparison, MetricComparison, PairComparison
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
    short_words,
    shown_metrics,
    side_text,
    summary,
    threshold_headline,
    value_text,
)

# A comment on GitHub holds 65,536 characters.
MAX_ROWS: Final = 150
OPEN_ROWS: Final = 30
_PLAIN: Final = set(" .,:;()%+-/–·…")

Row = tuple[PairComparison, CaseComparison, MetricComparison]


def comparison_markdown(
    comparison: Comparison,
    names: Sequence[str] = DEFAULT_METRICS,
    threshold: ThresholdReport | None = None,
) -> str:
    """Return a comparison as Markdown: the answer first, every case below it.

    Args:
        comparison: what to show.
        names: metrics to show, in order.
        threshold: what a threshold made of it.
    """
    lines = [line for part in (*_head(comparison, threshold), *_pairs(comparison, names)) for line in part]
    lines += [""] + [f"- {_escaped(note)}" for note in footnotes(comparison, names)]
    return "\n".join(lines).rstrip() + "\n"


def _head(comparison: Comparison, threshold: ThresholdReport | None) -> Iterator[list[str]]:
    letters = [side.letter for side in comparison.sides]
    yield [f"### {', '.join(letters[1:])} against {letters[0]}", ""]
    if threshold is not None:
        yield [f"**{_escaped(threshold_headline(threshold)).capitalize()}.**", ""]
        found = [
            f"- **{status}** {_code(line)}"
            for status in ("regression", "undecided")
            for line in judgement_lines(threshold, status)
        ]
        more = [f"- and {len(found) - CASES_PER_REASON} more"] if len(found) > CASES_PER_REASON else []
        yield [*found[:CASES_PER_REASON], *more, ""]
    yield [f"- **{side.letter}** {_code(side_text(side))}" for side in comparison.sides]
    yield [f"- **{_escaped(note)}**" for note in comparison.notes] + [""]


def _pairs(comparison: Comparison, names: Sequence[str]) -> Iterator[list[str]]:
    for pair in comparison.pairs:
        left = f", {len(pair.unmatched)} not comparable" if pair.unmatched else ""
        yield [f"**{pair.candidate} against {pair.baseline}:** {len(pair.cases)} cases in common{left}", ""]
        yield [f"- {label}: {_escaped('; '.join(parts))}" for label, parts in summary(pair, names)] + [""]
        rows = [(pair, case, metric) for case in pair.cases for metric in shown_metrics(case, names)]
        if rows:
            yield _table(rows)
        if pair.unmatched:
            yield _unmatched(pair)


def _table(rows: list[Row]) -> list[str]:
    pair = rows[0][0]
    cut = len(rows) - MAX_ROWS
    if cut > 0:
        # What was found comes first when not everything has room.
        rows = sorted(rows, key=lambda row: row[2].verdict != "different")[:MAX_ROWS]
    lines = [
        f"| case | metric | {pair.baseline} | {pair.candidate} | {pair.candidate}/{pair.baseline} | |",
        "|---|---|---:|---:|---|---|",
    ]
    before: CaseComparison | None = None
    for _, case, metric in rows:
        notes = "".join(f"<br>{_code(note)}" for note in case_notes(case, pair))
        name = "" if case is before else _code(case_label(case)) + notes
        before = case
        cells = (
            name,
            LABELS[metric.metric],
            value_text(metric.baseline, metric.unit),
            value_text(metric.candidate, metric.unit),
            _escaped(ratio_text(metric)),
            _escaped(short_words(metric)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if cut > 0:
        lines += ["", f"{cut} more rows: `aiprof compare --json` has all."]
    if len(rows) <= OPEN_ROWS:
        return [*lines, ""]
    return ["<details><summary>All cases</summary>", "", *lines, "", "</details>", ""]


def _unmatched(pair: PairComparison) -> list[str]:
    lines = [f"<details><summary>{len(pair.unmatched)} cases that cannot be compared</summary>", ""]
    groups = by_reason(pair)
    for reason, cases in groups[:MAX_REASONS]:
        lines.append(f"- {_code(reason[:600])}")
        lines += [f"  - {_code(case_label(case))}" for case in cases[:CASES_PER_REASON]]
        if len(cases) > CASES_PER_REASON:
            lines.append(f"  - and {len(cases) - CASES_PER_REASON} more")
    if len(groups) > MAX_REASONS:
        lines.append(f"- and {len(groups) - MAX_REASONS} more reasons")
    return [*lines, "", "</details>", ""]


def _escaped(text: str) -> str:
    """Return own words, which hold no markup, safe inside a table."""
    return "".join(
        character if character.isalnum() or character in _PLAIN else f"&#{ord(character)};"
        for character in " ".join(text.split())
    )


def _code(text: str) -> str:
    """Return text from a file: within <code> nobody is mentioned and no issue is linked."""
    return f"<code>{_escaped(text)}</code>"
