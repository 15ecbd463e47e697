"""What a token costs and what a policy says, as sections of the page."""

from __future__ import annotations

from collections.abc import Iterator

from profiler.analysis.cost import PricedCase
from profiler.analysis.cost_compare import CostReport, WorkCosts
from profiler.analysis.cost_sensitivity import interval_95
from profiler.analysis.verdict import CandidateVerdict, Verdict
from profiler.render.cost import assumption_lines, split_text, work_lines
from profiler.render.figures import number
from profiler.render.gate import commands_of, confidence_text, measured_text, ranking_lines, requirement_text
from profiler.render.report_view import DASH, Cell, Column, Facts, Row, Section, Table

# How boxes compare takes more room than their prices; the command has it for every workload.
WORKS_SHOWN = 3
_VERDICTS = {
    "pass": "passes",
    "fail": "fails",
    "undecided": "is undecided",
    "nothing": "finds nothing to judge",
}


def gate_section(verdict: Verdict) -> Section:
    """Return what the policy says about each candidate, requirement by requirement."""
    rows = [row for candidate in verdict.candidates for row in _verdict_rows(candidate)]
    columns = (
        Column("box"),
        Column("requirement"),
        Column("case"),
        Column("found"),
        Column("verdict"),
        Column("why"),
    )
    table = Table("verdicts", f"Policy: {verdict.policy}", columns, tuple(rows), cards=True)
    lead = [f"The policy “{verdict.policy}” {_VERDICTS[verdict.outcome]} ({verdict.basis})."]
    lead += [verdict.description] if verdict.description else []
    lead.append(f"{confidence_text(verdict).capitalize()}.")
    facts = []
    if verdict.ranking:
        facts.append(Facts("Ranking", tuple(("", line) for line in ranking_lines(verdict))))
    commands = list(dict.fromkeys(line for one in verdict.candidates for line in commands_of(one)))
    if commands:
        facts.append(Facts("What would decide it", (), "\n".join(commands)))
    if verdict.notes:
        facts.append(Facts("Notes", tuple(("", note) for note in verdict.notes)))
    return Section("verdict", "The verdict", "Verdict", tuple(lead), tables=(table,), facts=tuple(facts))


def _verdict_rows(candidate: CandidateVerdict) -> Iterator[Row]:
    for line in candidate.root.lines():
        yield Row(
            (
                Cell(candidate.name),
                Cell(requirement_text(line), title=line.note),
                Cell(line.subject),
                Cell(measured_text(line)),
                Cell(line.outcome),
                Cell(line.why if line.remedy is None else f"{line.why}; to decide: {line.remedy}"),
            )
        )


def cost_section(report: CostReport) -> Section:
    """Return prices per million tokens, what they rest on and what would change the order."""
    columns = (
        Column("workload"),
        Column("box"),
        Column("output", "USD / M tokens", True),
        Column("input", "USD / M tokens", True),
        Column("output for a dollar", "tokens", True),
        Column("an hour", "USD", True),
    )
    rows = [_price_row(work, case) for work in report.works for case in work.cases]
    table = Table("prices", f"Costs: {report.name}", columns, tuple(rows), cards=True)
    facts = [Facts("What it rests on", tuple(("", line) for line in assumption_lines(report)))]
    for work in report.works[:WORKS_SHOWN]:
        lines = tuple(("", line) for line in work_lines(work))
        facts += [Facts(work.case, lines)] if lines else []
    if len(report.works) > WORKS_SHOWN:
        more = (
            f"and {len(report.works) - WORKS_SHOWN} more workloads; `aiprof cost` compares the boxes on each"
        )
        facts.append(Facts("", (("", more),)))
    lead = (f"{split_text(report).capitalize()}. No figure is made without price, utilisation and tariff.",)
    return Section("cost", "What a token costs", "Cost", lead, tables=(table,), facts=tuple(facts))


def _price_row(work: WorkCosts, case: PricedCase) -> Row:
    def money(value: float | None, reason: str | None) -> Cell:
        return Cell(DASH, title=reason or "") if value is None else Cell(number(value))

    ends = interval_95(case)
    output = money(case.output.value, case.output.reason)
    if ends is not None:
        output = Cell(
            output.text, title=case.output.note or "", detail=f"{number(ends[0])} to {number(ends[1])}"
        )
    hour = None if case.hourly is None else case.hourly.total_usd
    return Row(
        (
            Cell(work.case),
            Cell(case.candidate),
            output,
            money(case.input.value, case.input.reason),
            money(case.output_tokens_per_usd, case.output.reason),
            money(hour, case.output.reason),
        )
    )
