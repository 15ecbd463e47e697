"""What the record of a case says about one side of a comparison: a time per start, and plain figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from profiler.results.schema import CaseRecord, CaseSpec, Measurement, TrialRecord

PhaseName = Literal["prefill", "decode", "whole"]

# A foreign record may hold any number. Outside of a nanosecond to thirty years a time is not one.
TIME_RANGE_S: Final = (1e-9, 1e9)
VALUE_RANGE: Final = (1e-30, 1e30)

TIMES: Final[Mapping[PhaseName, Callable[[TrialRecord], float | None]]] = {
    "prefill": lambda trial: trial.prefill_s,
    "decode": lambda trial: trial.decode_s,
    "whole": lambda trial: trial.e2e_s,
}


@dataclass(frozen=True)
class SpeedMetric:
    """A metric that follows from the time of one phase.

    Attributes:
        phase: whose time it is.
        unit: of the metric.
        amount: for a rate, the tokens the batch gets done in the phase; for a time, what it is divided by.
    """

    phase: PhaseName
    unit: Literal["tokens/s", "s"]
    amount: Callable[[CaseSpec], int]

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit == "tokens/s"

    def value(self, spec: CaseSpec, seconds: float) -> float:
        """Return the metric for a mean time of the phase."""
        return self.amount(spec) / seconds if self.is_rate else seconds / self.amount(spec)


SPEED_METRICS: Final[Mapping[str, SpeedMetric]] = {
    "prefill_tokens_per_s": SpeedMetric("prefill", "tokens/s", lambda spec: spec.batch * spec.prompt_tokens),
    "decode_tokens_per_s": SpeedMetric(
        "decode", "tokens/s", lambda spec: spec.batch * (spec.output_tokens - 1)
    ),
    "output_tokens_per_s": SpeedMetric("whole", "tokens/s", lambda spec: spec.batch * spec.output_tokens),
    "ttft_s": SpeedMetric("prefill", "s", lambda spec: 1),
    "tpot_s": SpeedMetric("decode", "s", lambda spec: spec.output_tokens - 1),
    "e2e_s": SpeedMetric("whole", "s", lambda spec: 1),
}
"""Compared with an interval over starts."""

LOAD_METRICS: Final = (
    "output_tokens_per_s",
    "output_tokens_per_s_steady",
    "requests_per_s",
    "ttft_s",
    "ttft_p50_s",
    "ttft_p99_observed_s",
    "tpot_s",
    "tpot_p50_s",
    "tpot_p99_observed_s",
    "e2e_s",
    "e2e_p50_s",
    "e2e_p99_observed_s",
    "goodput_requests_per_s",
    "slo_attainment",
)
"""Of loads on a server, compared with an interval over loads; none follows from another."""

PLAIN_METRICS: Final = (
    "power_mean_w",
    "power_max_1s_w",
    "energy_per_output_token_j",
    "prefill_energy_per_token_j",
    "decode_energy_per_token_j",
    "idle_power_w",
    "peak_engine_bytes",
    "max_sampled_device_bytes",
    "peak_process_bytes",
    "weights_bytes",
    "kv_cache_bytes",
    "load_s",
)
"""Compared as a plain ratio: there is no figure per start, or none whose spread would mean something."""


@dataclass(frozen=True)
class Evidence:
    """What one side knows about a case.

    Attributes:
        spec: the case.
        cases: its records; several only where runs are pooled.
        device: name of the device.
        engine_version: version of the engine, empty when the run does not say.
        simulated: whether any part did not come from hardware.
    """

    spec: CaseSpec
    cases: tuple[CaseRecord, ...]
    device: str
    engine_version: str
    simulated: bool

    @property
    def starts(self) -> int:
        """Number of starts that count and have measured trials; of a load, how often it was made."""
        return len(self.cases) if self.is_load else len(self._trials)

    @property
    def is_load(self) -> bool:
        """Whether it is a load on a server: its replicates are whole loads."""
        return self.spec.load is not None

    @property
    def flags(self) -> tuple[str, ...]:
        """Codes of all flags, each once."""
        return tuple(dict.fromkeys(flag.code for case in self.cases for flag in case.flags))

    @property
    def limits(self) -> tuple[str, ...]:
        """What goodput and attainment of each load go by, as one text per load."""
        return tuple(", ".join(case.served.slos) for case in self.cases if case.served is not None)

    def start_means(self, phase: PhaseName) -> list[float] | str:
        """Return the mean time of the phase in each start, or why there is none.

        Only starts that were not replaced count, and only trials after warm-up.
        """
        return self._start_means[phase]

    def load_values(self, metric: str) -> list[float] | str:
        """Return a metric of each load, or why it is missing in one of them."""
        values: list[float] = []
        low, high = VALUE_RANGE
        for case in self.cases:
            found = case.measurements.get(metric)
            if found is None or found.value is None:
                return (found and found.reason) or "not measured in this case"
            if not low <= found.value <= high:
                return f"the record says {found.value:.3g} {found.unit}, which has no ratio"
            values.append(found.value)
        return values

    @cached_property
    def _trials(self) -> list[list[TrialRecord]]:
        """The measured trials of every start that counts."""
        found: list[list[TrialRecord]] = []
        for case in self.cases:
            by_start: dict[int, list[TrialRecord]] = {start.index: [] for start in case.starts if start.used}
            for trial in case.trials:
                if not trial.warm_up and trial.start in by_start:
                    by_start[trial.start].append(trial)
            found += [trials for trials in by_start.values() if trials]
        return found

    @cached_property
    def _start_means(self) -> dict[PhaseName, list[float] | str]:
        return {phase: self._means(phase) for phase in TIMES}

    def _means(self, phase: PhaseName) -> list[float] | str:
        if phase == "decode" and self.spec.output_tokens == 1:
            return "the scenario generates one token: there is no decode phase"
        if not self._trials:
            return "the record holds no measured trial of a start that counts"
        low, high = TIME_RANGE_S
        means = []
        for trials in self._trials:
            times = list(map(TIMES[phase], trials))
            known = [time for time in times if time is not None and low <= time <= high]
            if len(known) < len(times):
                odd = next(time for time in times if time is None or not low <= time <= high)
                shown = "missing" if odd is None else f"{odd:.3g} s"
                return f"a {phase} time in the record is {shown}, which cannot be true"
            means.append(mean(known))
        return means

    def measurement(self, metric: str) -> Measurement | str:
        """Return the recorded figure, the largest where runs are pooled, or why there is none."""
        found = [case.measurements[metric] for case in self.cases if metric in case.measurements]
        known = [(item.value, item) for item in found if item.value is not None]
        if not known:
            return next((item.reason for item in found if item.reason), "not measured in this case")
        if len({item.scope for _, item in known}) > 1:
            return "the pooled runs measured it over different scopes"
        value, largest = max(known, key=lambda entry: entry[0])
        low, high = VALUE_RANGE
        if not low <= value <= high:
            return f"the record says {value:.3g} {largest.unit}, which has no ratio"
        return largest


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)
