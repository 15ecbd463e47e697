"""The sections of the report in their order; each says deliberately why it is empty when it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from altair.utils.schemapi import debug_mode

from profiler.render.charts_latency import latency_figure
from profiler.render.charts_memory import memory_figure, memory_table
from profiler.render.charts_power import power_figure
from profiler.render.charts_requests import requests_figure
from profiler.render.charts_roofline import roofline_figure
from profiler.render.charts_series import concurrency_figure, energy_figure
from profiler.render.charts_trade import trade_figure
from profiler.render.report_answer import Judge, answer_section
from profiler.render.report_cases import box_section, cases_section, limits_section
from profiler.render.report_energy import box_table, devices_table, energy_table
from profiler.render.report_judge import StartsJudge
from profiler.render.report_loads import loads_table
from profiler.render.report_searches import judged_table, search_sentences
from profiler.render.report_subjects import Entry, Family, Subject, collect, families
from profiler.render.report_view import Facts, Figure, Report, Section, listed, plural, shorten
from profiler.results.read import Run

_ONE_BATCH: Final = (
    "No workload was measured at two or more batches. `aiprof sweep --concurrency 1 --concurrency 8 "
    "--concurrency 32` measures several, `aiprof load URL --concurrency 1,8,32` does on a server."
)
_NO_LATENCIES: Final = (
    "No case has two trials or more, so there is no distribution to show. A larger `--budget` gives more "
    "trials."
)
_WORDS: Final = (
    ("prefill", "Prompt tokens of the whole batch per second, from submitting to the first output token."),
    ("decode", "Output tokens of the whole batch per second, from the first token to the last."),
    ("output", "Output tokens of the whole batch per second, from submitting to the last; prefill included."),
    ("TTFT", "Time to first token: from submitting to the first output token, readable on the host."),
    ("TPOT", "Time per output token: from the first output token to the last, per token after the first."),
    (
        "MBU",
        "Model bandwidth utilisation: bytes per second that decoding needs at least, divided by the read "
        "bandwidth measured round the same trials.",
    ),
    (
        "energy",
        "Energy per output token: all energy that the sensor covers during the measured trials, idle power "
        "and prefill included, divided by the tokens generated.",
    ),
    ("batch", "Requests that run together in step, all of the same lengths."),
    (
        "load, users",
        "A server that is driven by URL. So many users each send their next request when the last is "
        "answered. TTFT and TPOT are then those of single requests. One load is like one start.",
    ),
    (
        "trial, start",
        "A trial is one complete prefill and decode. A start is a fresh process; the trials of one start "
        "share its luck, so an interval from one start says little about the next.",
    ),
    (
        "±",
        "Half of the 95% confidence interval, relative to the figure. With one start the interval holds "
        "within that process only. ±? says that there were too few trials for an interval.",
    ),
    ("a dash", "Not measured, never 0. The reason stands under “What limits these results”."),
    ("simulated", "No hardware stands behind the figure; it shows what a report looks like, nothing else."),
)


def build_report(
    runs: Sequence[Run],
    title: str,
    *,
    judge: Judge | None = None,
    cost: Section | None = None,
    gate: Section | None = None,
    predicted: Section | None = None,
    interactive: bool = False,
) -> Report:
    """Return everything that the page shows.

    Args:
        runs: at least one, complete or not.
        title: heading of the page.
        judge: decides who is ahead; by default :class:`StartsJudge`.
        cost: what a token costs, or None to leave it out.
        gate: verdicts on a buyer's requirements, or None to leave them out.
        predicted: the same cases on hardware that is not here, or None to leave them out.
        interactive: keep the specifications of the charts for the page's script.
    """
    # Specifications are fixed and tested; checking each part of each would take longer than drawing it.
    with debug_mode(False):
        return _report(runs, title, judge, (cost, gate, predicted), interactive=interactive)


def _report(
    runs: Sequence[Run],
    title: str,
    judge: Judge | None,
    asked: tuple[Section | None, Section | None, Section | None],
    *,
    interactive: bool,
) -> Report:
    cost, gate, predicted = asked
    subjects, entries = collect(runs)
    grouped = families(entries)
    searched = search_sentences(subjects, entries)
    answer = answer_section(grouped, subjects, judge or StartsJudge())
    sections: list[Section | None] = [
        replace(answer, lead=(*searched, *answer.lead)),
        gate,
        *_speed_sections(grouped, entries, searched, interactive=interactive),
        *_resource_sections(grouped, entries, interactive=interactive),
        cost,
        predicted,
        limits_section(entries, runs),
        cases_section(entries, runs),
        box_section(runs),
        Section("words", "How to read this page", "Words", facts=(Facts("", _WORDS),)),
    ]
    return Report(
        title=title,
        summary=_summary(runs, subjects, entries),
        subjects=tuple(subject.legend for subject in subjects),
        simulated=_simulated(subjects),
        warnings=tuple(
            # A page is passed on; where the run lay is nobody's business.
            warning.replace(str(run.path), run.path.resolve().name)
            for run in runs
            for warning in run.warnings
        ),
        sections=tuple(section for section in sections if section is not None),
    )


def _speed_sections(
    grouped: Sequence[Family], entries: Sequence[Entry], searched: tuple[str, ...], *, interactive: bool
) -> tuple[Section, ...]:
    return (
        _figure_section(
            "roofline",
            "What each device could do, and did",
            "Roofline",
            roofline_figure(entries, interactive=interactive),
            "No finished case has both its work counted and a ceiling of its device measured.",
        ),
        _figure_section(
            "concurrency",
            "Throughput against concurrency",
            "Throughput",
            concurrency_figure(grouped, interactive=interactive),
            _ONE_BATCH,
        ),
        _figure_section(
            "trade",
            "What a user gets against what the box gives",
            "User and box",
            trade_figure(grouped, interactive=interactive),
            _ONE_BATCH,
        ),
        _latency_section(grouped, entries, searched, interactive=interactive),
    )


def _latency_section(
    grouped: Sequence[Family], entries: Sequence[Entry], lead: tuple[str, ...], *, interactive: bool
) -> Section:
    """Requests of loads with what they were judged by, and trials of cases that run in step."""
    offline = [family for family in grouped if family.over == "batch"]
    found = (
        requests_figure(grouped, interactive=interactive),
        latency_figure(offline, interactive=interactive),
    )
    figures = tuple(figure for figure in found if figure is not None)
    tables = tuple(table for table in (loads_table(grouped), judged_table(entries)) if table.rows)
    empty = "" if figures or tables else _NO_LATENCIES
    return Section(
        "latency",
        "How latencies scatter",
        "Latency",
        lead=lead,
        empty=empty,
        figures=figures,
        tables=tables,
    )


def _resource_sections(
    grouped: Sequence[Family], entries: Sequence[Entry], *, interactive: bool
) -> tuple[Section, ...]:
    return (
        _power_section(entries, interactive=interactive),
        _energy_section(grouped, entries, interactive=interactive),
        _memory_section(entries, interactive=interactive),
    )


def _figure_section(name: str, title: str, menu: str, figure: Figure | None, empty: str) -> Section:
    if figure is None:
        return Section(name, title, menu, empty=empty)
    return Section(name, title, menu, figures=(figure,))


def _memory_section(entries: Sequence[Entry], *, interactive: bool) -> Section:
    section = _figure_section(
        "memory",
        "Memory: predicted, measured, and what there is",
        "Memory",
        memory_figure(entries, interactive=interactive),
        "A server by URL does not say how much memory it uses."
        if any(entry.case.served is not None for entry in entries)
        else "No case was finished, so no memory was measured.",
    )
    table = memory_table(entries)
    return section if table is None else replace(section, tables=(*section.tables, table))


def _power_section(entries: Sequence[Entry], *, interactive: bool) -> Section:
    """Power over time, where sensors were sampled."""
    return _figure_section(
        "power",
        "Power over time",
        "Power",
        power_figure(entries, interactive=interactive),
        "No case holds reads of an energy or power sensor of its device. `aiprof devices` shows what would "
        "be read on this box, and what is missing for it.",
    )


def _energy_section(grouped: Sequence[Family], entries: Sequence[Entry], *, interactive: bool) -> Section:
    figure = energy_figure(grouped, interactive=interactive)
    tables = tuple(
        table for table in (energy_table(entries), devices_table(entries), box_table(entries)) if table.rows
    )
    return Section(
        "energy",
        "Energy per token",
        "Energy",
        empty="" if figure is not None or tables else _no_energy(entries),
        figures=() if figure is None else (figure,),
        tables=tables,
    )


def _no_energy(entries: Sequence[Entry]) -> str:
    """Say why there is no energy, in the words of the record."""
    reasons: dict[str, None] = {}
    for entry in entries:
        found = entry.case.measurements.get("energy_per_output_token_j")
        found = found or entry.case.measurements.get("energy_j")
        if found is not None and found.reason:
            reasons[found.reason] = None
    if not reasons:
        return "No case has a figure for energy."
    return f"Energy was measured nowhere: {listed(list(reasons))}. `aiprof devices` shows what would read it."


def _summary(runs: Sequence[Run], subjects: Sequence[Subject], entries: Sequence[Entry]) -> str:
    # The points of a search follow from what it finds: its plan holds the first only.
    planned = sum(len(run.record.cases if run.record.settings.search is None else run.cases) for run in runs)
    done = sum(entry.case.status == "ok" for entry in entries)
    failed = len(entries) - done
    skipped = sum(len(run.record.skipped) for run in runs)
    parts = [f"{done:,} of {plural(planned, 'case')} measured"]
    parts += [f"{failed:,} failed"] if failed else []
    parts += [f"{planned - len(entries):,} not measured yet"] if planned > len(entries) else []
    parts += [f"{skipped:,} skipped"] if skipped else []
    boxes = f"{len(subjects)} boxes: " if len(subjects) > 1 else ""
    return f"{boxes}{', '.join(parts)}.{_of_what(runs, entries)}"


def _of_what(runs: Sequence[Run], entries: Sequence[Entry]) -> str:
    """Say which models were measured with what and when; the names of folders rarely do."""
    if not entries:
        return ""
    models = listed([shorten(name, 60) for name in dict.fromkeys(one.spec.model_label for one in entries)])
    engines = listed(list(dict.fromkeys(entry.spec.engine for entry in entries)))
    days = sorted({run.record.created_utc[:10] for run in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f" {models} with {engines}, {when}."


def _simulated(subjects: Sequence[Subject]) -> str:
    """Say which figures no hardware stands behind; empty when there are none."""
    names = [subject.label for subject in subjects if subject.simulated]
    if not names:
        return ""
    which = "any figure here" if len(names) == len(subjects) else f"the figures of {listed(names, 8)}"
    return f"Simulated: no hardware stands behind {which}."
