"""How many tokens and users a device's memory holds: shown by a case that ran, or by the accounting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figures import Figure, figure_of
from profiler.measure.plan import RESERVE_BYTES, RESERVE_FRACTION

GroupKey = tuple[str, str, str, str, str, str]


def capacity_groups(cases: Sequence[CaseEvidence]) -> list[list[CaseEvidence]]:
    """Group cases of one candidate by what decides how much memory is left: engine, model and formats."""
    groups: dict[GroupKey, list[CaseEvidence]] = {}
    for case in cases:
        spec = case.spec
        key = (spec.engine, case.engine_version, spec.model, *spec.formats.model_dump().values())
        groups.setdefault(key, []).append(case)
    return list(groups.values())


def capacity(
    name: str, cases: Sequence[CaseEvidence], limit: float, context_tokens: int | None
) -> tuple[Figure, CaseEvidence]:
    """Return ``kv_capacity_tokens`` or ``max_users_at_context`` of cases that share model and formats.

    In this order: what the engine itself reported; a case that ran with at least ``limit`` (its tokens are a
    lower bound of the capacity); and the accounting
    ``(memory / (1 + 5%) - 512 MiB / (1 + 5%) - weights) / bytes per token``, the plan's rule turned round.

    Args:
        name: the metric.
        cases: from :func:`capacity_groups`, at least one.
        limit: what is required, to know whether a case that ran is enough.
        context_tokens: context per user, for ``max_users_at_context``.

    Returns:
        The figure, and the case that it rests on.
    """
    measured = [case for case in cases if case.status == "ok"]
    if not measured:
        return Figure.missing(cases[0].reason or "no case with this model and these formats ran"), cases[0]
    for case in measured:
        reported = figure_of("kv_capacity_tokens", case)
        if reported.value is not None:
            # What the engine set aside is a count, not a sample.
            return Figure("exact", _users(name, reported.value, context_tokens), starts=reported.starts), case
    shown, witness = max(
        ((_shown(name, case, context_tokens), case) for case in measured), key=lambda pair: pair[0]
    )
    if shown >= limit:
        note = f"that much ran: {witness.label}, {_length(witness)} tokens each"
        return Figure("exact", shown, starts=_count_starts(witness), note=note), witness
    return _reckoned(name, witness, context_tokens), witness


def _shown(name: str, case: CaseEvidence, context_tokens: int | None) -> float:
    """What a case proves by having run."""
    if name == "kv_capacity_tokens":
        return float(case.spec.batch * _length(case))
    return float(case.spec.batch) if _length(case) >= (context_tokens or 0) else 0.0


def _reckoned(name: str, case: CaseEvidence, context_tokens: int | None) -> Figure:
    total, predicted = case.device.memory_total_bytes, case.predicted
    if total is None or predicted is None:
        return Figure.missing("the device does not say how much memory it has")
    per_token = predicted.kv_cache_bytes / (case.spec.batch * _length(case))
    weights = figure_of("weights_bytes", case).value or float(predicted.weights_bytes)
    if per_token <= 0:
        return Figure.missing("the record predicts no KV cache")
    free = (total - RESERVE_BYTES) / (1 + RESERVE_FRACTION) - weights
    tokens = max(0.0, math.floor(free / per_token))
    note = "from device memory, weights, reserve and cache bytes per token; the engine did not report it"
    return Figure("exact", _users(name, tokens, context_tokens), predicted=True, note=note)


def _users(name: str, tokens: float, context_tokens: int | None) -> float:
    return tokens if name == "kv_capacity_tokens" or not context_tokens else tokens // context_tokens


def _length(case: CaseEvidence) -> int:
    return case.spec.prompt_tokens + case.spec.output_tokens


def _count_starts(case: CaseEvidence) -> int:
    try:
        return len(case.starts)
    except ValueError:
        return 0
