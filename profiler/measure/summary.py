"""From the trials of a case's starts to its measurements and flags. Definitions: ``docs/metrics.md``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from profiler.measure.context import MeasuredStart
from profiler.measure.energy_summary import NO_DECODE, energy_flags, energy_measurements
from profiler.measure.memory import memory_flags, memory_measurements
from profiler.measure.speculation import speculation_figures, speculation_flags
from profiler.measure.stats import Estimate, interval_from_starts, mean_interval, rate_interval
from profiler.measure.steady import drift
from profiler.results.schema import CaseSpec, Flag, Measurement, TrialRecord

ONE_START_HINT = "make at least three starts before buying: --preset standard, or --starts 3"
DUMMY = "the engine made up its weights, and energy depends on their values"
MORE_TIME = "give more time: a larger --budget"


@dataclass(frozen=True)
class _Phase:
    """A time of a trial and what follows from it.

    Attributes:
        time_name: metric of the time itself.
        value: the time in a trial, or None where the phase does not exist.
        rate_name: metric of the throughput in the phase, or None.
        work: tokens that the whole batch gets done in the phase.
    """

    time_name: str
    value: Callable[[TrialRecord], float | None]
    rate_name: str
    work: int


def measurements(spec: CaseSpec, outcomes: Sequence[MeasuredStart]) -> dict[str, Measurement]:
    """Return every measurement of a case but those of its roofline.

    Args:
        spec: the case.
        outcomes: the starts that count, at least one.
    """
    batch, prompt, outputs = spec.batch, spec.prompt_tokens, spec.output_tokens
    found: dict[str, Measurement] = {}
    for phase in (
        _Phase("prefill_s", lambda trial: trial.prefill_s, "prefill_tokens_per_s", batch * prompt),
        _Phase("decode_s", lambda trial: trial.decode_s, "decode_tokens_per_s", batch * (outputs - 1)),
        _Phase("e2e_s", lambda trial: trial.e2e_s, "output_tokens_per_s", batch * outputs),
    ):
        time = phase_time(outcomes, phase.value)
        if time is None:
            reason = why_no_phase(outcomes)
            name = "tpot_s" if phase.time_name == "decode_s" else phase.time_name
            found[phase.rate_name] = Measurement.missing("tokens/s", reason)
            found[name] = Measurement.missing("s", reason)
            continue
        found[phase.rate_name] = as_measurement(rate_interval(time, phase.work), "tokens/s", outcomes)
        if phase.time_name == "decode_s":
            found["tpot_s"] = as_measurement(_divided(time, outputs - 1), "s", outcomes)
        else:
            found[phase.time_name] = as_measurement(time, "s", outcomes)
    # Offline, all requests are submitted together and get their first token together.
    found["ttft_s"] = found["prefill_s"]
    found |= memory_measurements(spec, outcomes)
    found |= _loading(outcomes)
    found |= speculation_figures(spec, [outcome.record.speculation for outcome in outcomes])
    energy = energy_measurements([outcome.energies for outcome in outcomes])
    if any(outcome.record.dummy_weights for outcome in outcomes):
        energy = {name: Measurement.missing(entry.unit, DUMMY) for name, entry in energy.items()}
    found |= energy
    return found


def phase_time(
    outcomes: Sequence[MeasuredStart], value: Callable[[TrialRecord], float | None]
) -> Estimate | None:
    """Mean over trials (one start) or start means (several); None where a trial has no such phase."""
    series = [outcome.measured(value) for outcome in outcomes]
    counts = [len(outcome.measured(lambda trial: trial.e2e_s)) for outcome in outcomes]
    if not all(series) or [len(times) for times in series] != counts:
        return None
    if len(series) == 1:
        return mean_interval(series[0])
    return interval_from_starts([fmean(times) for times in series])


def why_no_phase(outcomes: Sequence[MeasuredStart]) -> str:
    """Return why prefill or decode has no time of its own."""
    mixed = (trial.mixed for outcome in outcomes for trial in outcome.trials if not trial.warm_up)
    return next((reason for reason in mixed if reason is not None), NO_DECODE)


def _divided(time: Estimate, by: int) -> Estimate:
    low, high = time.low, time.high
    return Estimate(
        time.mean / by,
        None if low is None else low / by,
        None if high is None else high / by,
        time.n,
        time.n_effective,
        time.rho,
        time.method,
        time.reason,
    )


def as_measurement(estimate: Estimate, unit: str, outcomes: Sequence[MeasuredStart]) -> Measurement:
    """Return an estimate over trials or starts as a measurement; nothing measured here is below 0."""
    interval = estimate.interval
    return Measurement(
        value=estimate.mean,
        unit=unit,
        ci95=None if interval is None else (max(interval.low, 0.0), interval.high),
        n=estimate.n,
        method=f"mean of {'trials' if len(outcomes) == 1 else 'start means'}, {estimate.method}",
        scope="within_process" if len(outcomes) == 1 else "across_starts",
    )


def _loading(outcomes: Sequence[MeasuredStart]) -> dict[str, Measurement]:
    load = fmean(outcome.record.load_s for outcome in outcomes)
    compiled = [outcome.record.compile_s for outcome in outcomes if outcome.record.compile_s is not None]
    scope = "within_process" if len(outcomes) == 1 else "across_starts"
    found = {
        "load_s": Measurement(value=load, unit="s", n=len(outcomes), method="mean of starts", scope=scope)
    }
    if compiled:
        found["compile_s"] = Measurement(
            value=fmean(compiled), unit="s", n=len(compiled), method="mean of starts", scope=scope
        )
    else:
        found["compile_s"] = Measurement.missing("s", "nothing was compiled")
    return found


SIMULATED = Flag(
    code="simulated", text="no hardware stands behind these numbers", hint="never use them to judge a box"
)


def flags(spec: CaseSpec, outcomes: Sequence[MeasuredStart], target: float, *, simulated: bool) -> list[Flag]:
    """Return the flags that follow from the trials; interference is judged elsewhere.

    Args:
        spec: the case.
        outcomes: the starts that count.
        target: relative CI half-width that was aimed at.
        simulated: whether any part did not come from hardware.
    """
    found: list[Flag] = []
    if simulated:
        found.append(SIMULATED)
    if spec.slice is not None:
        text = f"{spec.slice} were run: not the model, and its output is nonsense"
        hint = "take none of its figures for the whole model's; extrapolated ones are named so"
        found.append(Flag(code="slice", text=text, hint=hint))
    if len(outcomes) == 1:
        text = "one start: the interval speaks for this process only and is too narrow for comparing boxes"
        found.append(Flag(code="one_start", text=text, hint=ONE_START_HINT))
    found += [*_engine_flags(outcomes), *speculation_flags(spec)]
    for outcome in outcomes:
        found += _start_flags(outcome, target)
    return found + memory_flags(outcomes) + energy_flags([outcome.energies for outcome in outcomes])


def _engine_flags(outcomes: Sequence[MeasuredStart]) -> list[Flag]:
    """Return what the engine did that limits what the figures are good for."""
    found: list[Flag] = []
    if any(outcome.record.dummy_weights for outcome in outcomes):
        text = "the engine made up weights of its own (load_format=dummy)"
        hint = "good for throughput only: leave the option out for the weights of every engine"
        found.append(Flag(code="dummy_weights", text=text, hint=hint))
    trials = [trial for outcome in outcomes for trial in outcome.trials if not trial.warm_up]
    thrown_out = sum(trial.preemptions or 0 for trial in trials)
    if thrown_out:
        text = f"{thrown_out} times a request was thrown out of the cache and computed again"
        hint = "more memory for the cache (gpu_memory_utilization), or fewer requests at once"
        found.append(Flag(code="preempted", text=text, hint=hint))
    return found


def _start_flags(outcome: MeasuredStart, target: float) -> list[Flag]:
    """Return the flags of one start, with what was seen in it."""
    start = f"start {outcome.record.index + 1}"
    found: list[Flag] = []
    if "not_steady" in outcome.flags:
        text = f"{start}: a rest of the warm-up may be in the result ({outcome.warm_up})"
        found.append(Flag(code="not_steady", text=text, hint=MORE_TIME))
    trend = drift(outcome.measured(lambda trial: trial.e2e_s))
    if trend is not None:
        text = f"{start}: trial times changed by {trend.change:+.1%} from the first to the last"
        hint = "a box that heats up or is used by others: measure for longer, or find the cause"
        found.append(Flag(code="drift", text=text, hint=hint))
    width = outcome.decision.estimate.relative_half_width
    if "few_trials" in outcome.flags:
        text = f"{start}: fewer than five trials fitted into the time"
        found.append(Flag(code="few_trials", text=text, hint=MORE_TIME))
    elif not outcome.decision.target_met and width is not None:
        text = f"{start}: the 95% interval is ±{width:.1%} wide, ±{target:.0%} was aimed at"
        hint = "quieten the box, or give a larger --budget"
        found.append(Flag(code="not_precise", text=text, hint=hint))
    return found
