"""Speculative decoding of a case in words."""

from __future__ import annotations

from profiler.results.schema import CaseRecord


def speculation_line(case: CaseRecord) -> str:
    """Return what was guessed and accepted, empty for a case without speculative decoding."""
    accepted = case.measurements.get("speculative_acceptance")
    each = case.measurements.get("speculative_tokens_per_step")
    if accepted is None or each is None:
        return ""
    method = f"speculative decoding ({case.spec.speculative})"
    if accepted.value is None or each.value is None:
        return f"{method}: acceptance unknown ({accepted.reason})"
    share = f"{accepted.value:.0%} of guessed tokens accepted"
    return f"{method}: {share}, {each.value:.2f} tokens a step with guesses"
