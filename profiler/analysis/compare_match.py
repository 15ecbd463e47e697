"""Which case of one side is which case of the other, and for every case left over, why.

A case is matched by everything in its :class:`~profiler.results.schema.CaseSpec` except what tells
boxes apart (device, engine) and what follows from the rest (ids, the model's name). A field that is
added to the specification therefore keeps cases apart from the day it exists.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from profiler.analysis.compare_evidence import Evidence, mean
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, CaseSpec, FormatsRecord

Match = Literal["same-formats", "same-fidelity"]
Key = tuple[Hashable, ...]
UnmatchedKind = Literal[
    "failed", "skipped", "not_run", "unfaithful", "no_fidelity", "formats", "slice", "batch",
    "lengths", "scenario", "seed", "weights", "architecture", "settings", "several",
    "not_planned", "other_engine", "other_device", "ambiguous",
]  # fmt: skip

FREE_FIELDS: Final = {"case_id", "device_key", "device_keys", "engine", "model"}
KEY_FIELDS: Final = tuple(name for name in CaseSpec.model_fields if name not in FREE_FIELDS)
# More devices and engines than this for one case: say so instead of comparing each with each.
MAX_PAIRS_PER_CASE: Final = 64
MAX_SHOWN: Final = 4


@dataclass(frozen=True)
class Absent:
    """A case that a side knows of and has no usable result for."""

    spec: CaseSpec
    kind: UnmatchedKind
    reason: str


@dataclass
class Inventory:
    """What a side has: results by key, and cases without one.

    Attributes:
        letter: what the side is called in reasons.
        found: results by match key, one per device and engine.
        absent: cases without a result by match key.
        order: one case of every key, in the order of the record.
    """

    letter: str
    found: dict[Key, list[Evidence]] = field(default_factory=lambda: defaultdict(list))
    absent: dict[Key, Absent] = field(default_factory=dict)
    order: dict[Key, CaseSpec] = field(default_factory=dict)


def frozen(value: Any) -> Hashable:
    """Return a value of a record as something that can be a part of a key."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), frozen(inner)) for name, inner in value.items()))
    if isinstance(value, list | tuple):
        return tuple(frozen(inner) for inner in value)
    return value if isinstance(value, Hashable) else repr(value)


def match_key(spec: CaseSpec, match: Match) -> Key:
    """Return what two cases must share to be the same case."""
    return tuple(
        frozen(getattr(spec, name)) for name in KEY_FIELDS if match == "same-formats" or name != "formats"
    )


def fidelity_verdict(case: CaseRecord) -> str | None:
    """Return the verdict on whether the engine computed the right thing; None where the record holds none."""
    return None if case.fidelity is None else case.fidelity.verdict


def inventory(letter: str, runs: Sequence[Run], match: Match) -> Inventory:
    """Return what the runs of a side have measured, and what they have not.

    A case that was measured again counts as it ended.
    """
    found = Inventory(letter)
    groups: dict[tuple[Key, str, str], list[tuple[Run, CaseRecord]]] = defaultdict(list)
    absent: list[Absent] = []
    for run in runs:
        last = {case.spec.case_id: case for case in run.cases}
        for case in last.values():
            refuted = None if case.fidelity is None else case.fidelity.refuted
            if case.failure is None and refuted and match == "same-formats":
                text = f"does not count: on {letter} the engine computes something else ({refuted})"
                absent.append(Absent(case.spec, "unfaithful", text))
            elif case.failure is None:
                key = match_key(case.spec, "same-formats")
                groups[key, case.spec.device_key, case.spec.engine].append((run, case))
            else:
                text = f"{case.failure.kind} in {case.failure.stage}: {case.failure.message}"
                absent.append(Absent(case.spec, "failed", f"failed on {letter} ({text})"))
        absent += [
            Absent(skipped.spec, "skipped", f"skipped on {letter} ({skipped.reason})")
            for skipped in run.record.skipped
        ]
        absent += [
            Absent(planned.spec, "not_run", f"not run on {letter}: its sweep ended before it")
            for planned in run.record.cases
            if planned.spec.case_id not in last
        ]
    evidence = [_evidence(group) for group in groups.values()]
    if match == "same-fidelity":
        evidence, unfaithful = _fastest_faithful(letter, evidence)
        absent = unfaithful + absent
    for item in evidence:
        key = match_key(item.spec, match)
        found.found[key].append(item)
        found.order.setdefault(key, item.spec)
    for missing in absent:
        key = match_key(missing.spec, match)
        found.order.setdefault(key, missing.spec)
        if key not in found.found:
            found.absent.setdefault(key, missing)
    return found


def _evidence(group: Sequence[tuple[Run, CaseRecord]]) -> Evidence:
    run, case = group[0]
    spec = case.spec
    device = next((device for device in run.record.devices if device.key == spec.device_key), None)
    engine = next((engine for engine in run.record.engines if engine.name == spec.engine), None)
    return Evidence(
        spec,
        tuple(case for _, case in group),
        device.name if device else spec.device_key,
        engine.version if engine else "",
        any(case.simulated or run.record.simulated for run, case in group),
    )


def _fastest_faithful(letter: str, evidence: Iterable[Evidence]) -> tuple[list[Evidence], list[Absent]]:
    """Return each case's fastest format that is faithful, and the cases that have none."""
    groups: dict[tuple[Key, str, str], list[Evidence]] = defaultdict(list)
    for item in evidence:
        groups[match_key(item.spec, "same-fidelity"), item.spec.device_key, item.spec.engine].append(item)
    chosen: list[Evidence] = []
    absent: list[Absent] = []
    for formats in groups.values():
        faithful: list[tuple[float, Evidence]] = []
        for item in formats:
            times = item.start_means("whole")
            if _verdicts(item) == {"faithful"} and not isinstance(times, str):
                faithful.append((mean(times), item))
        if faithful:
            chosen.append(min(faithful, key=lambda entry: entry[0])[1])
            continue
        seen = "; ".join(
            f"{formats_text(item.spec.formats)}: {', '.join(sorted(_verdicts(item)))}"
            for item in formats[:MAX_SHOWN]
        )
        reason = (
            f"no faithful format on {letter} ({seen}); sweep again with a fidelity check, or compare with "
            "--match same-formats"
        )
        absent.append(Absent(formats[0].spec, "no_fidelity", reason))
    return chosen, absent


def _verdicts(item: Evidence) -> set[str]:
    found = {fidelity_verdict(case) or "no fidelity verdict in the record" for case in item.cases}
    return {verdict.replace("_", " ") for verdict in found}


def formats_text(formats: FormatsRecord) -> str:
    """Return ``bf16``, or ``fp8-block128 weights, bf16 compute, fp8 cache`` where they differ."""
    names = (formats.weight_format, formats.compute_dtype, formats.kv_dtype)
    if len(set(names)) == 1:
        return names[0]
    return f"{names[0]} weights, {names[1]} compute, {names[2]} cache"


def pairs_of(
    baseline: Sequence[Evidence], candidate: Sequence[Evidence]
) -> tuple[list[tuple[Evidence, Evidence]], list[tuple[Evidence, UnmatchedKind]]]:
    """Return which results of one case are compared, and those without a counterpart.

    The same engine is compared with itself where both sides used it, and a device that both sides
    have with itself; otherwise each with each.

    Args:
        baseline: results of the case, one per device and engine.
        candidate: likewise.
    """
    if len(baseline) * len(candidate) > MAX_PAIRS_PER_CASE:
        return [], [(baseline[0], "ambiguous")]
    return _split(baseline, candidate, _LEVELS)


_Level = tuple[UnmatchedKind, Callable[[Evidence], str]]
_LEVELS: Final[tuple[_Level, ...]] = (
    ("other_engine", lambda item: item.spec.engine),
    ("other_device", lambda item: item.spec.device_key),
)


def _split(
    baseline: Sequence[Evidence], candidate: Sequence[Evidence], levels: Sequence[_Level]
) -> tuple[list[tuple[Evidence, Evidence]], list[tuple[Evidence, UnmatchedKind]]]:
    if not levels:
        return [(left, right) for left in baseline for right in candidate], []
    (kind, name), deeper = levels[0], levels[1:]
    there = {name(item) for item in candidate}
    shared = list(dict.fromkeys(name(item) for item in baseline if name(item) in there))
    if not shared:
        return _split(baseline, candidate, deeper)
    pairs: list[tuple[Evidence, Evidence]] = []
    left_over = [(item, kind) for item in (*baseline, *candidate) if name(item) not in shared]
    for value in shared:
        found, more = _split(
            [item for item in baseline if name(item) == value],
            [item for item in candidate if name(item) == value],
            deeper,
        )
        pairs += found
        left_over += more
    return pairs, left_over
