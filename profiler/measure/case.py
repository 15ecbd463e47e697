"""One case: its starts, one after the other, and what becomes of them in the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import Any, NamedTuple

from profiler.measure.case_watch import CaseWatch, Stretch
from profiler.measure.context import CaseContext, StartFailedError, StartOutcome
from profiler.measure.derive import figures_of
from profiler.measure.interference import interference_flag
from profiler.measure.kept_reads import SensorColumns
from profiler.measure.plan import least_seconds
from profiler.measure.roofline import ceiling_flags
from profiler.measure.start import measure_start
from profiler.measure.start_watch import LASTING
from profiler.measure.summary import flags
from profiler.models.slices import Depth, sliced
from profiler.models.work import trial_work
from profiler.results.schema import Failure, Flag, NoiseFloor, Work

SampleColumns = dict[str, list[Any]]


class Measured(NamedTuple):
    """What there is to write of a case.

    Attributes:
        fields: of its record.
        stamps: of every token, as columns.
        sensors: reads of every sensor, as columns; without rows where nothing was read.
    """

    fields: dict[str, Any]
    stamps: SampleColumns
    sensors: SensorColumns


def measure_case(
    context: CaseContext, seconds: float, noise: NoiseFloor, *, repeat_on_interference: bool
) -> Measured:
    """Measure a case.

    Args:
        context: the case and everything it needs.
        seconds: wall time for all starts.
        noise: the device's idle probes.
        repeat_on_interference: whether a disturbed start is made once more.

    Returns:
        The fields of its record without ``prev_sha256`` and references to samples, and the raw samples.
    """
    started = datetime.now(UTC)
    began = context.clock.now()
    watch = CaseWatch(context.sensing, *context.all_devices)
    fields: dict[str, Any] = {
        "spec": context.spec,
        "predicted": context.predicted,
        "started_utc": started.isoformat(timespec="seconds"),
        "simulated": is_simulated(context),
        "work": _work(context),
    }
    starts = _Starts(context, noise, seconds, repeat_on_interference)
    try:
        for number in range(context.starts):
            starts.measure(remaining=context.starts - number)
        found = flags(
            context.spec, starts.used, context.target_relative_half_width, simulated=fields["simulated"]
        )
        measured, binding = figures_of(
            context.spec, fields["work"], starts.used, context.ceilings, context.soak_s
        )
        fields |= {
            "status": "ok",
            "measurements": measured,
            "binding_ceilings": binding,
            "flags": (
                *found,
                *ceiling_flags(measured),
                *starts.disturbances,
                *watch.flags([Stretch.of(one) for one in starts.used]),
            ),
        }
    except StartFailedError as error:
        failure = Failure(kind=error.kind, stage=error.stage, message=error.message, log_tail=error.log_tail)
        fields |= {"status": "failed", "failure": failure}
    fields |= _left_by(starts.outcomes, watch.origin_ns)
    fields["elapsed_s"] = context.clock.now() - began
    return Measured(fields, _samples(starts.outcomes), watch.columns())


def _left_by(outcomes: Sequence[StartOutcome], origin_ns: int) -> dict[str, Any]:
    """Return the fields that hold what the starts left, also those that do not count."""
    spans = (outcome.power.spans for outcome in outcomes)
    return {
        "starts": tuple(outcome.record for outcome in outcomes),
        "trials": tuple(trial for outcome in outcomes for trial in outcome.trials),
        "phases": tuple(phase for outcome in outcomes for phase in outcome.power.phases(origin_ns)),
        "energies": tuple(energy for outcome in outcomes for energy in outcome.energies),
        "energy_spans": tuple(one for one in spans if one is not None),
    }


def is_simulated(context: CaseContext) -> bool:
    """Whether any part of a case does not come from hardware."""
    return context.engine.simulated or context.device.simulated or context.sensing.simulated


def _work(context: CaseContext) -> Work:
    spec = context.spec
    architecture = context.model.architecture
    if spec.slice is not None:
        architecture = sliced(architecture, Depth(spec.slice.dense, spec.slice.moe))
    counted = trial_work(architecture, context.formats, spec.prompt_tokens, spec.output_tokens, spec.batch)
    return Work(**asdict(counted))


class _Starts:
    """The starts of a case as they are made: repeated once when disturbed, then kept with the flag."""

    def __init__(self, context: CaseContext, noise: NoiseFloor, seconds: float, repeat: bool) -> None:
        self.context = context
        self.deadline = context.clock.now() + seconds
        self.least_s = least_seconds(context.predicted, 1)
        self.idle = median(noise.bytes_per_s)
        self.tolerance = noise.tolerance
        self.repeat = repeat
        self.outcomes: list[StartOutcome] = []
        self.disturbances: list[Flag] = []

    @property
    def used(self) -> list[StartOutcome]:
        return [outcome for outcome in self.outcomes if outcome.record.used]

    def measure(self, remaining: int) -> None:
        """Make one start that counts.

        Args:
            remaining: starts still to be made, this one included.
        """
        seconds = self._share(remaining)
        flags = self._one(seconds)
        if self.repeat and any(flag.code not in LASTING for flag in flags):
            # A repeat may not take the time without which later starts could not be made at all.
            if self._left() >= seconds / 2 + (remaining - 1) * max(self.least_s, seconds / 2):
                first = self.outcomes[-1]
                codes = tuple(dict.fromkeys(flag.code for flag in flags))
                flags = self._one(self._share(remaining))
                first.record = first.record.model_copy(update={"used": False, "replaced_for": codes})
            else:
                late = "; there was no time to repeat it"
                flags = [flag.model_copy(update={"text": flag.text + late}) for flag in flags]
        self.disturbances += flags

    def _left(self) -> float:
        return self.deadline - self.context.clock.now()

    def _share(self, remaining: int) -> float:
        """Time for one of the remaining starts; what is needed at least, even if the case runs over."""
        return max(self._left() / remaining, self.least_s)

    def _one(self, seconds: float) -> list[Flag]:
        """Make a start and return what disturbed it, or shows that its figures flatter."""
        outcome = measure_start(self.context, len(self.outcomes), seconds)
        self.outcomes.append(outcome)
        before, after = outcome.record.probe_before_bytes_per_s, outcome.record.probe_after_bytes_per_s
        flags = list(outcome.watch.flags)
        if before is not None and after is not None:
            found = interference_flag(before, after, self.idle, self.tolerance)
            flags += [] if found is None else [found]
        return flags


def _samples(outcomes: Sequence[StartOutcome]) -> SampleColumns:
    """Return the host stamps of every output token as columns, one row per token of the batch's step."""
    columns: SampleColumns = {"start": [], "trial": [], "warm_up": [], "token": [], "since_submit_ns": []}
    for outcome in outcomes:
        for trial, stamps in zip(outcome.trials, outcome.stamps, strict=True):
            for token, stamp in enumerate(stamps or ()):
                row = (trial.start, trial.index, trial.warm_up, token, stamp)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return columns
