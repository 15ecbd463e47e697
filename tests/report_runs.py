"""Runs for the tests of the report: boxes that differ by a known factor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders import (
    digest,
    make_case_fields,
    make_failed_fields,
    make_prediction,
    make_run_record,
    make_spec,
    make_work,
)

from profiler.results.read import Run, read_run
from profiler.results.schema import (
    CaseSpec,
    Ceiling,
    DeviceRecord,
    Fidelity,
    Flag,
    Measurement,
    SkippedCase,
    TrialRecord,
)
from profiler.results.store import RunWriter

ATTACK = "</title></script><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'`{{7*7}}"


def measurement(value: float, unit: str, half: float = 0.01, scope: str = "across_starts") -> Measurement:
    """Return a figure with an interval of relative half-width ``half``."""
    return Measurement(
        value=value,
        unit=unit,
        ci95=(value * (1 - half), value * (1 + half)),
        n=3,
        method="mean of start means",
        scope=scope,
    )


def speeds(spec: CaseSpec, speed: float, *, energy: bool = True, **looks: Any) -> dict[str, Measurement]:
    """Return the measurements of a case on a box that is ``speed`` times as fast as a slow one."""
    batch, output = spec.batch, spec.output_tokens
    prefill_s = 0.001 * batch * spec.prompt_tokens / speed
    tpot_s = 0.02 * (1 + batch / 64) / speed
    e2e_s = prefill_s + tpot_s * (output - 1)
    found = {
        "prefill_s": measurement(prefill_s, "s", **looks),
        "ttft_s": measurement(prefill_s, "s", **looks),
        "prefill_tokens_per_s": measurement(batch * spec.prompt_tokens / prefill_s, "tokens/s", **looks),
        "output_tokens_per_s": measurement(batch * output / e2e_s, "tokens/s", **looks),
        "weights_bytes": Measurement(value=2.7e8, unit="bytes", method="allocated", scope="engine"),
        "kv_cache_bytes": Measurement(value=6e6 * batch, unit="bytes", method="allocated", scope="engine"),
        "peak_engine_bytes": Measurement(value=3.2e8, unit="bytes", method="peak", scope="engine"),
    }
    if output > 1:
        found["tpot_s"] = measurement(tpot_s, "s", **looks)
        found["decode_tokens_per_s"] = measurement(batch / tpot_s, "tokens/s", **looks)
    name = "energy_per_output_token_j"
    found[name] = (
        Measurement(value=3.0 / speed, unit="J/token", method="counter", scope="board")
        if energy
        else Measurement.missing("J/token", "no energy counter")
    )
    return found


def trials(spec: CaseSpec, count: int = 6) -> tuple[TrialRecord, ...]:
    """Return trials that scatter by a percent, the first one warm-up."""
    return tuple(
        TrialRecord(
            start=0,
            index=index,
            warm_up=index == 0,
            prefill_s=0.1 * (1 + 0.01 * (index % 3)),
            decode_s=None if spec.output_tokens == 1 else 2.0 * (1 + 0.005 * (index % 4)),
            e2e_s=2.1,
        )
        for index in range(count)
    )


def _device(key: str, name: str, speed: float, *, simulated: bool) -> tuple[DeviceRecord, Ceiling]:
    device = DeviceRecord(
        key=key,
        backend="cuda",
        name=name,
        memory_total_bytes=2**30,
        simulated=simulated,
        verified="never run on real hardware",
        details={},
        facts={},
    )
    ceiling = Ceiling(
        device_key=key,
        name="read_bandwidth",
        ceiling_method="read",
        measurement=measurement(20e9 * speed, "bytes/s"),
    )
    return device, ceiling


def write_box(
    path: Path,
    name: str,
    speed: float,
    *,
    batches: tuple[int, ...] = (1, 8, 32),
    simulated: bool = False,
    failing: bool = False,
    energy: bool = True,
    fidelity: Fidelity | None = None,
    flags: tuple[Flag, ...] = (),
    **looks: Any,
) -> Run:
    """Write and read a run of one device with a decode and a prefill workload."""
    key = f"gpu-{digest(name)[:12]}"
    specs = [
        make_spec(device_key=key, batch=batch, scenario=scenario, output_tokens=output)
        for scenario, output in (("decode-128", 128), ("prefill-512", 1))
        for batch in batches
    ]
    device, ceiling = _device(key, name, speed, simulated=simulated)
    broken = make_spec(device_key=key, batch=512)
    skipped = SkippedCase(spec=make_spec(device_key=key, batch=1024), reason="needs 3.0 GiB more memory")
    record = make_run_record(
        (*specs, *((broken,) if failing else ())),
        (skipped,) if failing else (),
        run_id=digest("run", name)[:32],
        devices=(device,),
        ceilings=(ceiling,),
        simulated=simulated,
    )
    with RunWriter.create(path, record) as writer:
        for spec in specs:
            writer.append(
                make_case_fields(
                    spec,
                    measurements=speeds(spec, speed, energy=energy, **looks),
                    trials=trials(spec),
                    predicted=make_prediction(
                        kv_cache_bytes=int(6e6 * spec.batch), needed_bytes=int(4e8 + 6e6 * spec.batch)
                    ),
                    work=make_work() if spec.output_tokens > 1 else None,
                    simulated=simulated,
                    flags=flags,
                    fidelity=fidelity,
                )
            )
        if failing:
            writer.append(make_failed_fields(broken))
        writer.close()
    return read_run(path)
