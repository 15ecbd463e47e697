"""A verdict as JUnit XML for a CI job and as Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from profiler.analysis.verdict import CandidateVerdict, Judged, JudgedNode, Line, Verdict
from profiler.render.gate import (
    HEADLINES,
    commands_of,
    confidence_text,
    gist,
    measured_text,
    ranking_lines,
    requirement_text,
)
from profiler.results.read import printable

_SPECIAL = re.compile(r"([\\`*_\[\]#|~@$])")
_WORDS = {"pass": "✅ pass", "fail": "❌ fail", "undecided": "❔ undecided"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def junit_xml(verdict: Verdict) -> str:
    """Return JUnit XML: a suite per candidate, a test case per requirement of the policy's list.

    A fail is a ``failure``. Undecided is an ``error``: it must not look like a pass, and what failed is
    the evidence, not the box. The lines behind a requirement stand in its text.
    """
    root = ElementTree.Element("testsuites", name=printable(verdict.policy))
    totals = [0, 0, 0]
    for candidate in verdict.candidates:
        counts = _suite(root, verdict, candidate)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    if not verdict.candidates:
        suite = ElementTree.SubElement(
            root, "testsuite", name="no candidate", tests="1", failures="0", errors="1", skipped="0"
        )
        case = ElementTree.SubElement(suite, "testcase", classname="policy", name="candidates")
        ElementTree.SubElement(case, "error", message=HEADLINES["nothing"], type="nothing")
        totals = [1, 0, 1]
    for name, total in zip(("tests", "failures", "errors"), totals, strict=True):
        root.set(name, str(total))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _suite(root: ElementTree.Element, verdict: Verdict, candidate: CandidateVerdict) -> list[int]:
    members = candidate.root.members
    outcomes = [member.outcome for member in members]
    counts = [len(members), outcomes.count("fail"), outcomes.count("undecided")]
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=printable(candidate.name),
        tests=str(counts[0]),
        failures=str(counts[1]),
        errors=str(counts[2]),
        skipped="0",
    )
    for member in members:
        name = member.id if isinstance(member, Judged) else member.requirement
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=printable(f"{verdict.policy}.{candidate.name}"),
            name=printable(name),
        )
        text = "\n".join(_plain_lines(member))
        if member.outcome == "pass":
            ElementTree.SubElement(case, "system-out").text = text
        else:
            tag = "failure" if member.outcome == "fail" else "error"
            first = next(line for line in _lines_of(member) if line.outcome == member.outcome)
            message = printable(f"{requirement_text(first)}: {measured_text(first)}; {first.why}")
            ElementTree.SubElement(case, tag, message=message, type=member.outcome).text = text
    return counts


def _lines_of(node: JudgedNode) -> Iterator[Line]:
    return iter((node,)) if isinstance(node, Line) else node.lines()


def _plain_lines(node: JudgedNode) -> Iterator[str]:
    for line in _lines_of(node):
        parts = [
            f"{line.outcome.upper()} {requirement_text(line)}",
            f"on {line.subject}",
            measured_text(line),
            line.why,
        ]
        parts += [f"to decide: {line.remedy}"] if line.remedy else []
        parts += [line.command] if line.command else []
        yield printable(" | ".join(parts))


def markdown(verdict: Verdict) -> str:
    """Return Markdown for a pull request; names from files cannot break out of their cell."""
    basis = f" ({verdict.basis})" if len(verdict.candidates) > 1 else ""
    out = [f"## {escaped(verdict.policy)}: {HEADLINES[verdict.outcome]}{basis}", ""]
    if any(candidate.simulated for candidate in verdict.candidates):
        out += ["**Simulated: no hardware stands behind some of these figures.**", ""]
    for candidate in verdict.candidates:
        runs = ", ".join(candidate.runs)
        out += [f"### {escaped(candidate.name)}: {_WORDS[candidate.outcome]}", ""]
        out += [f"Runs: {escaped(runs)}", ""]
        out += ["| verdict | requirement | case | measured | why |", "|---|---|---|---|---|"]
        out += _rows(candidate.root, ())
        out.append("")
        out += _commands(candidate)
    if verdict.ranking:
        out += ["### Ranking", ""]
        out += [
            f"{line.partition('.')[0]}. {escaped(line.partition('. ')[2])}" for line in ranking_lines(verdict)
        ]
        out.append("")
    out += [f"Note: {escaped(note)}  " for note in verdict.notes]
    out.append(f"{confidence_text(verdict).capitalize()}.")
    return "\n".join(out) + "\n"


def _rows(node: JudgedNode, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, Line):
        yield _row(node, path)
        return
    members, rest = gist(node)
    for member in members:
        step = (f"{member.combine} of {member.id}",) if isinstance(member, Judged) else ()
        yield from _rows(member, path + step)
    if rest:
        yield f"| | {escaped(rest)} | | | |"


def _row(line: Line, path: tuple[str, ...]) -> str:
    where = f"{', '.join(path)}: " if path else ""
    remedy = f" To decide: {line.remedy}." if line.remedy else ""
    cells = (
        _WORDS[line.outcome],
        escaped(f"{where}{requirement_text(line)}"),
        escaped(line.subject),
        escaped(measured_text(line)),
        escaped(f"{line.why}.{remedy}"),
    )
    return f"| {' | '.join(cells)} |"


def _commands(candidate: CandidateVerdict) -> list[str]:
    commands = commands_of(candidate)
    if not commands:
        return []
    # A fence longer than any run of backticks inside cannot be closed from inside.
    longest = max((len(run) for command in commands for run in re.findall(r"`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return ["To decide:", "", f"{fence}sh", *commands, fence, ""]


def escaped(text: str) -> str:
    """Return text that stands for itself in Markdown and in the HTML made of it."""
    plain = "".join(_ENTITIES.get(character, character) for character in printable(text))
    return _SPECIAL.sub(r"\\\1", plain)
