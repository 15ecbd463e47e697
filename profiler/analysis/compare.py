"""Comparing boxes: which cases are the same work, how each metric differs, and whether that is chance.

The unit of replication is the start. Per case and phase the logarithms of the start means of both
sides give Welch's interval; words are given after Holm's correction over all cases and phases of a
pair of boxes, intervals are shown uncorrected. ``docs/method.md`` ("Comparing boxes") has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from profiler.analysis.compare_evidence import Evidence
from profiler.analysis.compare_match import (
    Inventory,
    Key,
    Match,
    UnmatchedKind,
    formats_text,
    inventory,
    pairs_of,
)
from profiler.analysis.compare_metric import MetricComparison
from profiler.analysis.compare_metrics import METRICS, compared_metrics
from profiler.analysis.compare_reasons import Neighbours, why_left_over
from profiler.analysis.compare_types import (
    CaseComparison,
    CaseSource,
    Comparison,
    PairComparison,
    Side,
    Unmatched,
)
from profiler.errors import UsageError, unknown
from profiler.results.read import Run
from profiler.results.schema import CaseSpec

__all__ = [
    "MATCHES",
    "METRICS",
    "CaseComparison",
    "CaseSource",
    "Comparison",
    "Match",
    "MetricComparison",
    "PairComparison",
    "Side",
    "Unmatched",
    "compare_runs",
]

UNKNOWN: Final = "unknown"
MATCHES: Final[tuple[Match, ...]] = ("same-formats", "same-fidelity")


def compare_runs(
    runs: Sequence[Run],
    *,
    baseline: int = 0,
    match: Match = "same-formats",
    pool: bool = False,
    metrics: Sequence[str] = METRICS,
) -> Comparison:
    """Compare runs with one of them.

    Args:
        runs: at least two, as :func:`profiler.results.load.read_runs` returns them.
        baseline: index of the run that the others are compared with.
        match: ``same-formats``, or ``same-fidelity`` to pair each side's fastest faithful format.
        pool: take runs with the same devices, engines and versions together as one box, starts of all
            of them side by side.
        metrics: what to compare. Fewer speeds mean fewer comparisons to correct for; choose them before
            looking at the results.

    Raises:
        UsageError: fewer than two boxes, an unknown ``match`` or metric, or runs that cannot be pooled.
        IndexError: there is no run ``baseline``.
    """
    if match not in MATCHES:
        raise UsageError(unknown("match", match, MATCHES))
    for name in metrics:
        if name not in METRICS:
            raise UsageError(unknown("metric to compare", name, METRICS))
    groups = _pooled(runs) if pool else [[run] for run in runs]
    reference = runs[baseline]
    groups.sort(key=lambda group: not any(run is reference for run in group))
    if len(groups) < 2:
        given = f"{len(runs)} runs of one box, pooled" if len(runs) > 1 else f"{len(runs)} run"
        raise UsageError(f"a comparison needs at least two boxes, not {given}")
    letters = [_letter(index) for index in range(len(groups))]
    stocks = [inventory(letter, group, match) for letter, group in zip(letters, groups, strict=True)]
    pairs = tuple(_pair(stocks[0], stock, match, metrics) for stock in stocks[1:])
    sides = tuple(_side(letter, group) for letter, group in zip(letters, groups, strict=True))
    return Comparison(match, sides, pairs, any(side.simulated for side in sides), _notes(sides, match))


def _pooled(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs of one box, each group and its members in the order given."""
    groups: dict[object, list[Run]] = {}
    for run in runs:
        record = run.record
        box = (
            frozenset(device.key for device in record.devices),
            frozenset((engine.name, engine.version) for engine in record.engines),
            record.aiprof_version,
            record.box.kernel,
        )
        groups.setdefault(box, []).append(run)
    copies = [
        f"{run.path}: is a copy of another of the runs and cannot be pooled with it"
        for group in groups.values()
        for position, run in enumerate(group)
        if run.record.run_id in {other.record.run_id for other in group[:position]}
    ]
    if copies:
        raise UsageError("\n".join(copies))
    return list(groups.values())


def _letter(index: int) -> str:
    """Return A to Z, then AA, AB and so on."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _side(letter: str, runs: Sequence[Run]) -> Side:
    devices = dict.fromkeys(device.name for run in runs for device in run.record.devices)
    engines = dict.fromkeys(
        f"{engine.name} {engine.version}" for run in runs for engine in run.record.engines
    )
    return Side(
        letter,
        tuple(run.path.resolve().name for run in runs),
        tuple(run.record.run_id for run in runs),
        tuple(devices),
        tuple(engines),
        tuple(run.record.created_utc for run in runs),
        all(run.complete for run in runs),
        any(run.record.simulated or any(case.simulated for case in run.cases) for run in runs),
    )


def _notes(sides: Sequence[Side], match: Match) -> tuple[str, ...]:
    notes = []
    simulated = [side.letter for side in sides if side.simulated]
    if simulated:
        notes.append(f"simulated: no hardware stands behind {', '.join(simulated)}")
    if match == "same-fidelity":
        notes.append(
            "each side's fastest faithful format is compared: the number formats of the two sides may differ"
        )
    seen: dict[str, str] = {}
    for side in sides:
        for run_id in side.run_ids:
            first = seen.setdefault(run_id, side.letter)
            if first != side.letter:
                notes.append(f"{side.letter} is a copy of {first}: the same measurements, not a second box")
    return tuple(notes)


def _pair(baseline: Inventory, candidate: Inventory, match: Match, names: Sequence[str]) -> PairComparison:
    both, letters = (baseline, candidate), (baseline.letter, candidate.letter)
    couples: list[tuple[Evidence, Evidence]] = []
    unmatched: list[Unmatched] = []
    neighbours = [Neighbours(side, match) for side in both]
    for key, spec in {**baseline.order, **_without(candidate.order, baseline.order)}.items():
        found = [side.found.get(key, []) for side in both]
        if all(found):
            pairs, left_over = pairs_of(found[0], found[1])
            couples += pairs
            unmatched += [
                _unmatched(item.spec, kind, why_left_over(item, kind, *letters), "both")
                for item, kind in left_over
            ]
            continue
        reasons = [
            (side.absent[key].kind, side.absent[key].reason) if key in side.absent else near.why_missing(spec)
            for side, items, near in zip(both, found, neighbours, strict=True)
            if not items
        ]
        measured_on = [letter for letter, items in zip(letters, found, strict=True) if items]
        text = "; ".join(reason for _, reason in reasons)
        unmatched.append(_unmatched(spec, reasons[0][0], text, measured_on[0] if measured_on else "none"))
    metrics, tests = compared_metrics(couples, letters, names)
    cases = tuple(_case(*couple, of_case) for couple, of_case in zip(couples, metrics, strict=True))
    return PairComparison(*letters, tests, cases, tuple(unmatched))


def _without(specs: Mapping[Key, CaseSpec], others: Mapping[Key, CaseSpec]) -> dict[Key, CaseSpec]:
    return {key: spec for key, spec in specs.items() if key not in others}


def _case(baseline: Evidence, candidate: Evidence, metrics: tuple[MetricComparison, ...]) -> CaseComparison:
    spec = baseline.spec
    left, right = _source(baseline), _source(candidate)
    notes = [
        f"{what}: {one} against {other}"
        for what, one, other in (
            ("engine", _engine(left), _engine(right)),
            ("formats", left.formats, right.formats),
            ("name of the model", left.model, right.model),
        )
        if one != other
    ]
    if baseline.is_load and UNKNOWN in left.formats:
        notes.append("a server by URL does not say its number formats: they may differ")
    return CaseComparison(
        scenario=spec.scenario,
        variant=spec.variant,
        model=spec.model_label,
        weights=spec.weights,
        prompt_tokens=spec.prompt_tokens,
        output_tokens=spec.output_tokens,
        batch=spec.batch,
        seed=spec.seed,
        baseline=left,
        candidate=right,
        metrics=metrics,
        notes=tuple(notes),
        load=spec.load_label,
    )


def _engine(source: CaseSource) -> str:
    return f"{source.engine} {source.engine_version}".rstrip()


def _source(item: Evidence) -> CaseSource:
    spec = item.spec
    return CaseSource(
        case_ids=tuple(case.spec.case_id for case in item.cases),
        model=spec.model_label,
        device_key=spec.device_key,
        device=item.device,
        engine=spec.engine,
        engine_version=item.engine_version,
        weight_format=spec.formats.weight_format,
        compute_dtype=spec.formats.compute_dtype,
        kv_dtype=spec.formats.kv_dtype,
        formats=formats_text(spec.formats),
        starts=item.starts,
        flags=item.flags,
        simulated=item.simulated,
    )


def _unmatched(spec: CaseSpec, kind: UnmatchedKind, reason: str, measured_on: str) -> Unmatched:
    return Unmatched(
        kind=kind,
        reason=reason,
        measured_on=measured_on,
        case_id=spec.case_id,
        scenario=spec.scenario,
        variant=spec.variant,
        model=spec.model_label,
        formats=formats_text(spec.formats),
        prompt_tokens=spec.prompt_tokens,
        output_tokens=spec.output_tokens,
        batch=spec.batch,
        seed=spec.seed,
        load=spec.load_label,
    )
