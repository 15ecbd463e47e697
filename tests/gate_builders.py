"""Runs in memory for tests of gate and cost: any number of starts, measurements that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from builders import CREATED_UTC, digest, make_prediction, make_run_record, make_spec

from profiler.analysis.gate import judge
from profiler.analysis.policy_file import load_policy
from profiler.analysis.verdict import Line, Verdict
from profiler.measure.stats import interval_from_starts, mean_interval, rate_interval
from profiler.results.read import Run
from profiler.results.schema import (
    CaseRecord,
    CaseSpec,
    DeviceRecord,
    Failure,
    Flag,
    Measurement,
    SkippedCase,
    StartRecord,
    TrialRecord,
)

GIB = 2**30
STEADY = (2.0, 2.02, 1.98)
"""Seconds per trial of three starts; 128 tokens in 2 s are 64 tokens/s."""
SPEED = "{id: speed, metric: output_tokens_per_s, at_least: %s}"


def make_device(**changes: Any) -> DeviceRecord:
    """Return a device of 16 GiB."""
    fields: dict[str, Any] = {
        "key": "GPU-1",
        "backend": "cuda",
        "name": "A GPU",
        "memory_total_bytes": 16 * GIB,
        "simulated": False,
        "verified": "never run on real hardware",
        "details": {},
        "facts": {},
    }
    return DeviceRecord(**fields | changes)


def make_case(
    spec: CaseSpec,
    e2e_s: Sequence[float] = (2.0, 2.0, 2.0),
    *,
    watts: Sequence[float] | None = None,
    trials: int = 5,
    extra: dict[str, Measurement] | None = None,
    flags: Sequence[str] = (),
    **changes: Any,
) -> CaseRecord:
    """Return a finished case with one start per entry of ``e2e_s``, all trials of a start alike.

    A quarter of each time is prefill. ``watts`` gives each start a power.
    """
    rows, starts = [], []
    for index, seconds in enumerate(e2e_s):
        times: dict[str, Any] = {"prefill_s": seconds / 4, "decode_s": seconds * 3 / 4, "e2e_s": seconds}
        rows.append(TrialRecord(start=index, index=0, warm_up=True, **{k: 2 * v for k, v in times.items()}))
        rows += [TrialRecord(start=index, index=1 + i, warm_up=False, **times) for i in range(trials)]
        joules = None if watts is None else watts[index] * seconds * trials
        starts.append(make_start(index, energy_j=joules, measured_s=seconds * trials))
    fields: dict[str, Any] = {
        "prev_sha256": digest("line"),
        "spec": spec,
        "predicted": make_prediction(),
        "status": "ok",
        "started_utc": CREATED_UTC,
        "elapsed_s": 20.0,
        "simulated": False,
        "starts": tuple(starts),
        "trials": tuple(rows),
        "measurements": _measurements(spec, e2e_s, watts, trials) | (extra or {}),
        "flags": tuple(Flag(code=code, text="seen", hint="do something") for code in flags),
    }
    return CaseRecord(**fields | changes)


def make_start(index: int, **changes: Any) -> StartRecord:
    """Return a start that counts."""
    fields: dict[str, Any] = {
        "index": index,
        "used": True,
        "load_s": 1.5,
        "compile_s": None,
        "steady": True,
        "stopped_by": "target_reached",
        "probe_before_bytes_per_s": 20e9,
        "probe_after_bytes_per_s": 20e9,
        "energy_j": None,
        "measured_s": 10.0,
        "details": {},
    }
    return StartRecord(**fields | changes)


def measured(value: float, unit: str, **changes: Any) -> Measurement:
    """Return a measurement without an interval."""
    fields: dict[str, Any] = {"value": value, "unit": unit, "n": 1, "method": "test", "scope": "engine"}
    return Measurement(**fields | changes)


def _measurements(
    spec: CaseSpec, e2e_s: Sequence[float], watts: Sequence[float] | None, trials: int
) -> dict[str, Measurement]:
    several = len(e2e_s) > 1
    scope = "across_starts" if several else "within_process"
    time = interval_from_starts(list(e2e_s)) if several else mean_interval([e2e_s[0]] * trials)
    rate = rate_interval(time, spec.batch * spec.output_tokens)

    def as_measured(value: float, ends: Any, unit: str) -> Measurement:
        pair = None if ends is None else (ends.low, ends.high)
        return Measurement(value=value, unit=unit, ci95=pair, n=time.n, method="test", scope=scope)

    found = {
        "e2e_s": as_measured(time.mean, time.interval, "s"),
        "output_tokens_per_s": as_measured(rate.mean, rate.interval, "tokens/s"),
        "peak_engine_bytes": measured(4e9, "bytes"),
        "weights_bytes": measured(269e6, "bytes"),
    }
    if watts is None:
        return found | {
            name: Measurement.missing(unit, "no energy counter")
            for name, unit in (
                ("energy_j", "J"),
                ("power_mean_w", "W"),
                ("energy_per_output_token_j", "J/token"),
            )
        }
    joules = sum(w * s * trials for w, s in zip(watts, e2e_s, strict=True))
    tokens = len(e2e_s) * trials * spec.batch * spec.output_tokens
    return found | {
        "energy_j": measured(joules, "J", scope="board"),
        "power_mean_w": measured(joules / (fmean(e2e_s) * len(e2e_s) * trials), "W", scope="board"),
        "energy_per_output_token_j": measured(joules / tokens, "J/token", scope="board"),
    }


def make_failed(spec: CaseSpec, kind: str = "out_of_memory") -> CaseRecord:
    """Return a case that failed."""
    failure = Failure(kind=kind, stage="load", message="needs 2 GiB more memory")
    nothing: dict[str, Any] = {"starts": (), "trials": (), "measurements": {}}
    finished = make_case(spec).model_dump()
    return CaseRecord(**finished | nothing | {"failure": failure, "status": "failed"})


def make_run(
    *cases: CaseRecord,
    device: DeviceRecord | None = None,
    name: str = "run-a",
    skipped: Sequence[SkippedCase] = (),
    planned: Sequence[CaseSpec] = (),
    complete: bool = True,
    warnings: Sequence[str] = (),
    **changes: Any,
) -> Run:
    """Return a run of one device; the cases must be on its key (see :func:`spec_on`)."""
    device = device or make_device()
    record = make_run_record(
        tuple(case.spec for case in cases) + tuple(planned),
        tuple(skipped),
        run_id=digest("run", name)[:32],
        devices=(device,),
        **changes,
    )
    return Run(Path(name), record, tuple(cases), complete, tuple(warnings))


def spec_on(device: DeviceRecord | None = None, **changes: Any) -> CaseSpec:
    """Return a case on a device."""
    return make_spec(device_key=(device or make_device()).key, **changes)


def judged(folder: Path, requirements: str, *runs: Run, head: str = "") -> Verdict:
    """Judge runs by a policy that is written into ``folder``."""
    path = folder / "policy.yaml"
    path.write_text(f"policy: 1\nname: test\n{head}requirements:\n{requirements}\n")
    return judge(load_policy(path), runs)


def one_line(folder: Path, requirement: str, *runs: Run, head: str = "") -> Line:
    """Judge one candidate by one requirement that means one case."""
    (candidate,) = judged(folder, f"  - {requirement}", *runs, head=head).candidates
    (line,) = candidate.root.lines()
    return line


def run_with(case: CaseRecord | None = None, **changes: Any) -> Run:
    """Return a run of one case, by default three starts round 64 tokens/s."""
    return make_run(case or make_case(spec_on(), STEADY), **changes)
