"""How many tokens and users a device's memory holds: shown by a case that ran, or by the accounting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from profiler.analysis.evidence import CaseEvidence
from profiler.analysis.figures import Figure, figure_of
from profiler.measure.predicted import capacity_tokens

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

    In this order: what the record carries, as the engine reported it or as free memory gave it (the least of
    all cases, with the method as its note); a case that ran with at least ``limit`` (its tokens are a
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
    recorded = [(figure, case) for case in measured if (figure := _recorded(case)).value is not None]
    if recorded:
        # Larger batches need more for their activations: the least holds for all of them.
        figure, case = min(recorded, key=lambda pair: pair[0].value or 0.0)
        value = _users(name, figure.value or 0.0, context_tokens)
        return Figure("exact", value, starts=figure.starts, note=figure.note), case
    shown, witness = max(
        ((_shown(name, case, context_tokens), case) for case in measured), key=lambda pair: pair[0]
    )
    if shown >= limit:
        note = f"that much ran: {witness.label}, {_length(witness)} tokens each"
        return Figure("exact", shown, starts=_count_starts(witness), note=note), witness
    return _reckoned(name, witness, context_tokens), witness


def _recorded(case: CaseEvidence) -> Figure:
    """Return the capacity that the records carry, with its method as the note."""
    figure = figure_of("kv_capacity_tokens", case)
    known = [found for one in case.records if (found := one.measurements.get("kv_capacity_tokens"))]
    methods = dict.fromkeys(found.method for found in known if found.value is not None)
    return replace(figure, note="; ".join(methods)) if figure.value is not None else figure


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
    tokens = capacity_tokens(total, weights, per_token)
    if tokens is None:
        return Figure.missing("the record predicts no KV cache")
    note = "from device memory, weights, reserve and cache bytes per token; the engine did not report it"
    return Figure("exact", _users(name, float(tokens), context_tokens), predicted=True, note=note)


def _users(name: str, tokens: float, context_tokens: int | None) -> float:
    return tokens if name == "kv_capacity_tokens" or not context_tokens else tokens // context_tokens


def _length(case: CaseEvidence) -> int:
    return case.spec.prompt_tokens + case.spec.output_tokens


def _count_starts(case: CaseEvidence) -> int:
    try:
        return len(case.starts)
    except ValueError:
        return 0
