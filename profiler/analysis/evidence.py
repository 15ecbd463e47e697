"""What the runs hold about one case on one device: records, and the means of its starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from profiler.results.schema import CaseRecord, CaseSpec, DeviceRecord, Prediction, StartRecord

if TYPE_CHECKING:  # figures are made from evidence
    from profiler.analysis.figures import Figure

Status = Literal["ok", "failed", "skipped", "not_run"]

SHORTEST_S, LONGEST_S = 1e-9, 1e9
"""No trial takes under a nanosecond or 30 years; what claims to is not a measurement."""


@dataclass(frozen=True)
class Start:
    """Means over the measured trials of one fresh process.

    Attributes:
        prefill_s: mean prefill time, or None where the engine mixed the phases.
        decode_s: mean decode time, or None without a decode phase.
        e2e_s: mean time of a trial.
        trials: measured trials.
        record: what else is recorded of the start.
    """

    prefill_s: float | None
    decode_s: float | None
    e2e_s: float
    trials: int
    record: StartRecord


@dataclass(frozen=True)
class CaseEvidence:
    """Everything that the runs hold about one case on one device.

    Attributes:
        spec: the case.
        device: the device as its run describes it.
        status: ``ok`` when any run measured it, else ``failed``, ``skipped`` or ``not_run``.
        records: lines of ``cases.jsonl``; the finished ones when there is any.
        runs: names of the runs that these come from.
        engine_version: version of the engine.
        simulated: whether any part did not come from hardware.
        reason: why it was skipped or did not run; None otherwise.
        lacking_bytes: memory that a skipped case lacks, or None.
        tampered: what was edited after it was written, or None.
        unverified: where verifying was asked for, why it does not verify, or None.
        extra_flags: flags of the sweep's command line that a repetition needs, e.g. engine options.
        forecast: predicted figures by metric on a device that is not here; None for a measured case.
    """

    spec: CaseSpec
    device: DeviceRecord
    status: Status
    records: tuple[CaseRecord, ...]
    runs: tuple[str, ...]
    engine_version: str
    simulated: bool
    reason: str | None = None
    lacking_bytes: int | None = None
    tampered: str | None = None
    unverified: str | None = None
    extra_flags: tuple[str, ...] = ()
    forecast: Mapping[str, Figure] | None = None

    @property
    def label(self) -> str:
        """What tells the case from others of its candidate."""
        return case_label(self.spec)

    @property
    def flags(self) -> dict[str, str]:
        """Flag codes with the hint of each, over all records."""
        return {flag.code: flag.hint for record in self.records for flag in record.flags}

    @property
    def refuted(self) -> str | None:
        """Why the engine does not compute the model it claims, or None; see ``Fidelity.refuted``."""
        found = (record.fidelity.refuted for record in self.records if record.fidelity is not None)
        return next((why for why in found if why is not None), None)

    @property
    def predicted(self) -> Prediction | None:
        """The accounting of the case, or None when it never ran."""
        return self.records[-1].predicted if self.records else None

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        """Starts that count, of all records, in the order they were made.

        Raises:
            ValueError: the recorded times cannot be true.
        """
        return tuple(start for record in self.records for start in _starts(record))


def case_label(spec: CaseSpec) -> str:
    """Return scenario, model, weight format and load in one line."""
    quick = "" if spec.variant == "full" else f" ({spec.variant})"
    return f"{spec.scenario}{quick} · {spec.model} · {spec.formats.weight_format} · {spec.load_label}"


def _starts(record: CaseRecord) -> list[Start]:
    times: dict[int, list[tuple[float | None, float | None, float]]] = {}
    for trial in record.trials:
        if not trial.warm_up:
            times.setdefault(trial.start, []).append((trial.prefill_s, trial.decode_s, trial.e2e_s))
    if len({start.index for start in record.starts}) < len(record.starts):
        raise ValueError("two starts have the same number")
    used: list[Start] = []
    for start in record.starts:
        measured = times.get(start.index)
        if not start.used or not measured:
            continue
        prefill = [row[0] for row in measured if row[0] is not None]
        decode = [row[1] for row in measured if row[1] is not None]
        if len(prefill) < len(measured):  # a mixed trial among others leaves the start without phases
            prefill = decode = []
        if 0 < len(decode) < len(measured):
            raise ValueError("some of the trials have no decode time")
        used.append(
            Start(
                prefill_s=_mean_time(prefill) if prefill else None,
                decode_s=_mean_time(decode) if decode else None,
                e2e_s=_mean_time([row[2] for row in measured]),
                trials=len(measured),
                record=start,
            )
        )
    return used


def _mean_time(times: Sequence[float]) -> float:
    if not all(SHORTEST_S < seconds < LONGEST_S for seconds in times):
        raise ValueError("the recorded trial times cannot be true")
    return math.fsum(times) / len(times)
