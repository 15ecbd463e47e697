"""What the table and the Markdown of a comparison share: labels, numbers and sentences.

Names come from files that another person may have written: whatever is returned here can be printed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from profiler.analysis.compare import (
    CaseComparison,
    Comparison,
    MetricComparison,
    PairComparison,
    Side,
    Unmatched,
)
from profiler.analysis.compare_metric import percent
from profiler.analysis.compare_threshold import Judgement, ThresholdReport
from profiler.render.units import UNKNOWN, format_bytes, format_rate, format_seconds
from profiler.results.read import printable

LABELS: Final = {
    "prefill_tokens_per_s": "prefill tok/s",
    "decode_tokens_per_s": "decode tok/s",
    "output_tokens_per_s": "output tok/s",
    "output_tokens_per_s_steady": "steady tok/s",
    "requests_per_s": "requests/s",
    "ttft_s": "TTFT",
    "ttft_p50_s": "TTFT p50",
    "ttft_p99_observed_s": "TTFT p99",
    "tpot_s": "TPOT",
    "tpot_p50_s": "TPOT p50",
    "tpot_p99_observed_s": "TPOT p99",
    "e2e_s": "end to end",
    "e2e_p50_s": "e2e p50",
    "e2e_p99_observed_s": "e2e p99",
    "goodput_requests_per_s": "goodput req/s",
    "slo_attainment": "kept limits",
    "power_mean_w": "mean W",
    "power_max_1s_w": "max 1 s W",
    "energy_per_output_token_j": "J/token",
    "prefill_energy_per_token_j": "prefill J/token",
    "decode_energy_per_token_j": "decode J/token",
    "idle_power_w": "idle W",
    "peak_engine_bytes": "engine peak",
    "max_sampled_device_bytes": "device memory",
    "peak_process_bytes": "process peak",
    "weights_bytes": "weights",
    "kv_cache_bytes": "KV cache",
    "load_s": "load",
}
DEFAULT_METRICS: Final = (
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "output_tokens_per_s",
    "ttft_p50_s",
    "ttft_p99_observed_s",
    "tpot_p50_s",
    "tpot_p99_observed_s",
    "goodput_requests_per_s",
    "slo_attainment",
    "power_mean_w",
    "energy_per_output_token_j",
    "peak_engine_bytes",
)
NAME_WIDTH: Final = 60
CASES_PER_REASON: Final = 20
MAX_REASONS: Final = 100

JUDGED: Final = ("different", "not_distinguishable", "undecided")

CORRECTED: Final = (
    "* the interval leaves out 1, but among so many comparisons that can be chance (Holm); "
    "more starts would decide"
)
RECORDED: Final = (
    "[ ] follows from the intervals of one process or of a sensor: it leaves out what differs between "
    "starts and is no evidence for a purchase"
)
INTERVALS: Final = (
    "( ) 95% interval over starts, not corrected; the words are corrected for all comparisons of a pair "
    "(Holm, 5% family-wise)"
)


def case_label(case: CaseComparison | Unmatched) -> str:
    """Return what tells a case from the others, escaped."""
    formats = case.formats if isinstance(case, Unmatched) else case.baseline.formats
    shortened = "" if case.variant == "full" else f" ({case.variant})"
    parts = (clipped(case.scenario) + shortened, clipped(case.model), clipped(formats), case.load)
    return " · ".join(parts)


def clipped(text: str) -> str:
    """Return a name from a file without control characters and not too long."""
    shown = printable(text[: 2 * NAME_WIDTH])
    return shown if len(shown) <= NAME_WIDTH else f"{shown[: NAME_WIDTH - 1]}…"


def sentence(text: str) -> str:
    """Return a sentence that may hold names from a file, escaped."""
    return printable(text[:600])


def value_text(value: float | None, unit: str) -> str:
    """Return a value without the unit that stands in its label."""
    if value is None:
        return UNKNOWN
    # A foreign record may hold any number; figures of twenty digits help nobody.
    if abs(value) >= (1e20 if unit == "bytes" else 1e9):
        return f"{value:.3g}"
    match unit:
        case "s":
            return format_seconds(value)
        case "bytes":
            return format_bytes(value)
        case "tokens/s":
            return format_rate(value, "tokens").removesuffix(" tokens/s")
        case _:
            return f"{value:.4g}"


def _factor(ratio: float) -> str:
    return f"{ratio:.3f}" if 0.01 <= ratio < 1000 else f"{ratio:.3g}"


def ratio_text(metric: MetricComparison) -> str:
    """Return the ratio with its interval, in brackets of the kind that the footnotes explain."""
    if metric.ratio is None:
        return UNKNOWN
    ends, brackets = metric.ratio_ci95, "()"
    if ends is None:
        ends, brackets = metric.ratio_ci95_recorded, "[]"
    shown = f" {brackets[0]}{_factor(ends[0])}–{_factor(ends[1])}{brackets[1]}" if ends else ""
    return _factor(metric.ratio) + shown


def short_words(metric: MetricComparison) -> str:
    """Return the verdict without what the ratio's column or a footnote says."""
    if metric.verdict == "different":
        return metric.words.partition(" (")[0]
    if metric.verdict not in JUDGED:
        return ""
    return "undecided *" if not_after_correction(metric) else metric.words


def not_after_correction(metric: MetricComparison) -> bool:
    """Whether only the correction keeps a difference from being asserted."""
    return metric.verdict == "undecided" and metric.p_adjusted is not None


def shown_metrics(case: CaseComparison, names: Sequence[str]) -> list[MetricComparison]:
    """Return those of the named metrics that at least one side has, in the order of the names."""
    found = [metric for name in names if (metric := case.metric(name)) is not None]
    return [metric for metric in found if metric.baseline is not None or metric.candidate is not None]


def side_text(side: Side) -> str:
    """Return what a side is: its runs, devices and engines."""
    runs = " + ".join(clipped(name) for name in side.runs)
    boxes = ", ".join(clipped(name) for name in (*side.devices[:3], *side.engines[:3]))
    state = ("" if side.complete else "; incomplete") + ("; SIMULATED" if side.simulated else "")
    return f"{runs} ({boxes}{state})"


def case_notes(case: CaseComparison, pair: PairComparison) -> list[str]:
    """Return what else should be known about a case: what differs, and the flags of each side."""
    notes = [sentence(note) for note in case.notes]
    for letter, source in ((pair.baseline, case.baseline), (pair.candidate, case.candidate)):
        # What simulated and one_start mean is said by the sides and the verdicts.
        codes = [clipped(code) for code in source.flags if code not in ("simulated", "one_start")]
        if codes:
            notes.append(f"flags on {letter}: {', '.join(codes[:8])}")
    return notes


def summary(pair: PairComparison, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return for every metric with verdicts what was found in how many cases.

    Returns:
        The metric's label, and parts such as ``B faster in 4 (77.9 to 90.7%)``.
    """
    lines = []
    for name in names:
        found = [metric for case in pair.cases if (metric := case.metric(name)) is not None]
        found = [metric for metric in found if metric.verdict in JUDGED]
        if not found:
            continue
        parts = []
        for letter, side in ((pair.candidate, "candidate"), (pair.baseline, "baseline")):
            gains = sorted(abs(metric.log_ratio or 0.0) for metric in found if metric.faster == side)
            if gains:
                least, most = (percent(math.expm1(gain)) for gain in (gains[0], gains[-1]))
                size = f"{least}%" if least == most else f"{least} to {most}%"
                parts.append(f"{letter} faster in {len(gains)} ({size})")
        for verdict in JUDGED[1:]:
            count = sum(metric.verdict == verdict for metric in found)
            if count:
                parts.append(f"{verdict.replace('_', ' ')} in {count}")
        lines.append((LABELS[name], parts))
    return lines


def by_reason(pair: PairComparison) -> list[tuple[str, list[Unmatched]]]:
    """Return the unmatched cases, those with the same reason together."""
    groups: dict[str, list[Unmatched]] = {}
    for case in pair.unmatched:
        groups.setdefault(case.reason, []).append(case)
    return list(groups.items())


def footnotes(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """Return the explanations of the signs that a table with these metrics needs."""
    metrics = [
        metric
        for pair in comparison.pairs
        for case in pair.cases
        for metric in shown_metrics(case, names)
        if metric.ratio is not None
    ]
    notes = [INTERVALS] if any(metric.ratio_ci95 for metric in metrics) else []
    if any(not_after_correction(metric) for metric in metrics):
        notes.append(CORRECTED)
    if any(metric.ratio_ci95_recorded for metric in metrics):
        notes.append(RECORDED)
    once = [metric for metric in metrics if 1 in (metric.baseline_starts, metric.candidate_starts)]
    if any(not metric.is_load for metric in once):
        notes.append("one start on either side decides nothing; make three: --preset standard, or --starts 3")
    if any(metric.is_load for metric in once):
        notes.append("one load on either side decides nothing; make each three times and add --pool")
    return notes


def threshold_headline(report: ThresholdReport) -> str:
    """Return how many figures are within a threshold, beyond it, and undecided."""
    counts = {status: len(report.with_status(status)) for status in ("regression", "ok", "undecided")}
    return (
        f"slower by more than {percent(report.threshold)}%: {counts['regression']} regressions, "
        f"{counts['ok']} surely not, {counts['undecided']} undecided"
    )


def judgement_lines(report: ThresholdReport, status: str) -> list[str]:
    """Return a line for every judgement of a status; those without a figure of their own go by reason."""
    groups: dict[tuple[object, ...], list[Judgement]] = {}
    for judgement in report.with_status(status):
        figure = None if judgement.speed_ratio is None else (judgement.case_id, judgement.metric)
        groups.setdefault((judgement.candidate, judgement.reason, figure), []).append(judgement)
    lines = []
    for judgements in groups.values():
        first = judgements[0]
        what = sentence(first.case) + (f", {LABELS[first.metric]}" if first.metric else "")
        if len(judgements) > 1:
            what += f" and {len(judgements) - 1} more"
        lines.append(f"{first.candidate}: {what}: {sentence(first.reason)}")
    return lines
