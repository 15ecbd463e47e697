"""A verdict in the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from profiler.analysis.verdict import CandidateVerdict, Judged, JudgedNode, Line, Verdict
from profiler.render.figures import figure, interval, limit
from profiler.results.read import printable

WIDTH = 100
MEMBERS_SHOWN = 12
COMMANDS_SHOWN = 12
STYLES = {"pass": "green", "fail": "red", "undecided": "yellow", "nothing": "yellow"}
_VERDICT_WIDTH = len("UNDECIDED") + 1
HEADLINES = {
    "pass": "PASS",
    "fail": "FAIL",
    "undecided": "UNDECIDED",
    "nothing": "NOTHING TO JUDGE: no case of these runs is what the policy is about",
}


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """Return everything as JSON values, with the exit code and the lines also in one flat list."""
    document = dataclasses.asdict(verdict)
    document["exit_code"] = verdict.exit_code
    document["basis"] = verdict.basis
    for shown, candidate in zip(document["candidates"], verdict.candidates, strict=True):
        shown["lines"] = [dataclasses.asdict(line) for line in candidate.root.lines()]
    return document


def requirement_text(line: Line) -> str:
    """Return id, metric, detail and limit: ``first-token: ttft_s p99 at 32 users ≤ 500 ms``."""
    name = "" if line.requirement == line.metric else f"{line.requirement}: "
    detail = f" {line.detail}" if line.detail else ""
    return f"{name}{line.metric}{detail} {limit(line.limit, line.unit, line.better)}"


def measured_text(line: Line) -> str:
    """Return value, interval and what it is: ``123 tokens/s (118 to 127 tokens/s), 5 starts``."""
    if line.value is None:
        return "no figure"
    ends = interval(line.low, line.high, line.unit)
    labels = "".join(f", {label}" for label in line.labels)
    return f"{figure(line.value, line.unit)}{f' ({ends})' if ends else ''}{labels}"


def confidence_text(verdict: Verdict) -> str:
    """Return what the intervals and the verdict mean."""
    return (
        f"a requirement that is not met passes at most {1 - verdict.confidence:.2%} of the time; "
        "each end of an interval holds at that confidence"
    )


def gist(node: Judged) -> tuple[list[JudgedNode], str]:
    """Return the members that a person wants to see, and a line about the rest.

    A requirement that many cases must meet would fill pages; what did not pass goes first. JSON and
    JUnit have all of them.
    """
    if len(node.members) <= MEMBERS_SHOWN or not all(isinstance(member, Line) for member in node.members):
        return list(node.members), ""
    order = {"fail": 0, "undecided": 1, "pass": 2}
    ranked = sorted(node.members, key=lambda member: order[member.outcome])
    rest = [member.outcome for member in ranked[MEMBERS_SHOWN:]]
    counts = ", ".join(f"{rest.count(kind)} {kind}" for kind in order if kind in rest)
    return ranked[:MEMBERS_SHOWN], f"and {len(rest)} more cases ({counts}); --json has them all"


def ranking_lines(verdict: Verdict) -> list[str]:
    """Return the order of the candidates, one line each."""
    by_name = {candidate.name: candidate for candidate in verdict.candidates}
    lines = []
    for rank in verdict.ranking:
        candidate = by_name[rank.candidate]
        if candidate.score is None:
            points = f"no score ({candidate.unscored})"
        else:
            ends = interval(candidate.score_low, candidate.score_high, "ratio")
            points = f"score {figure(candidate.score, 'ratio')}{f' ({ends})' if ends else ''}"
        tied = ", not distinguishable from its equals" if rank.tied else ""
        lines.append(f"{rank.place}. {rank.candidate}: {candidate.outcome}, {points}{tied}")
    return lines


def commands_of(candidate: CandidateVerdict) -> list[str]:
    """Return the commands that would decide something, each once, as many as a person may run."""
    commands = list(dict.fromkeys(line.command for line in candidate.root.lines() if line.command))
    more = len(commands) - COMMANDS_SHOWN
    return commands if more <= 0 else [*commands[:COMMANDS_SHOWN], f"# and {more} more; --json has them all"]


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print a verdict; lines are wrapped to the terminal, commands stay whole so that they can be copied."""
    width = min(console.width, WIDTH) if console.is_terminal else 80
    for text in _verdict_lines(verdict, width):
        console.print(text, soft_wrap=True)


def _verdict_lines(verdict: Verdict, width: int) -> Iterator[Text]:
    yield Text(printable(f"Policy: {verdict.policy}"), style="bold")
    if any(candidate.simulated for candidate in verdict.candidates):
        yield Text("SIMULATED: no hardware stands behind some of these figures", style="bold yellow")
    for candidate in verdict.candidates:
        yield Text()
        yield from _candidate_lines(candidate, width)
    if verdict.ranking:
        yield Text()
        title = "Ranking (score: how far the limits are exceeded, weighted; 1 is just met)"
        yield Text(title, style="bold")
        for line in ranking_lines(verdict):
            yield from _wrapped(line, "  ", width)
    for note in verdict.notes:
        yield from _wrapped(f"note: {note}", "", width, "dim")
    yield Text()
    yield from _wrapped(f"{confidence_text(verdict)}.", "", width, "dim")
    basis = "" if verdict.outcome == "nothing" or len(verdict.candidates) < 2 else f" ({verdict.basis})"
    yield Text(f"{HEADLINES[verdict.outcome]}{basis}", style=f"bold {STYLES[verdict.outcome]}")


def _candidate_lines(candidate: CandidateVerdict, width: int) -> Iterator[Text]:
    runs = ", ".join(candidate.runs)
    head = printable(f"{candidate.name} (runs: {runs})")
    yield Text.assemble((f"{candidate.outcome.upper()}  ", STYLES[candidate.outcome]), (head, "bold"))
    for member in candidate.root.members:
        yield from _node_lines(member, width, "  ")
    commands = commands_of(candidate)
    if commands:
        yield Text("  To decide:")
    for command in commands:
        yield Text(f"    {command}")


def _node_lines(node: JudgedNode, width: int, indent: str) -> Iterator[Text]:
    if isinstance(node, Judged):
        head = f"{node.id}: {node.combine} of {len(node.members)}"
        yield _head(node.outcome, head, indent)
        members, rest = gist(node)
        for member in members:
            yield from _node_lines(member, width, indent + "  ")
        if rest:
            yield Text(f"{indent}  {rest}", style="dim")
        return
    yield _head(node.outcome, requirement_text(node), indent)
    inner = indent + " " * _VERDICT_WIDTH
    yield from _wrapped(f"on {printable(node.subject)}", inner, width)
    yield from _wrapped(measured_text(node), inner, width)
    yield from _wrapped(node.why, inner, width, "dim")
    if node.remedy:
        yield from _wrapped(f"to decide: {node.remedy}", inner, width, "dim")


def _head(outcome: str, text: str, indent: str) -> Text:
    word = f"{outcome.upper():<{_VERDICT_WIDTH}}"
    return Text.assemble(indent, (word, STYLES[outcome]), printable(text))


def _wrapped(text: str, indent: str, width: int, style: str = "") -> Iterator[Text]:
    for line in textwrap.wrap(printable(text), width, initial_indent=indent, subsequent_indent=indent + "  "):
        yield Text(line, style=style)
