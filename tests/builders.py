"""Records for tests: complete and valid, with everything that a test does not care about filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiler.models.architecture import Architecture
from profiler.results.schema import (
    Box,
    CaseSpec,
    Ceiling,
    DeviceRecord,
    EngineRecord,
    Failure,
    Fidelity,
    FidelityArtefact,
    FidelityFigures,
    FidelityLimits,
    Flag,
    FormatsRecord,
    Measurement,
    ModelRecord,
    NoiseFloor,
    PlannedCase,
    PlanSettings,
    Prediction,
    RunRecord,
    SkippedCase,
    StartRecord,
    TrialRecord,
    Work,
)
from profiler.results.store import RunWriter

DEVICE_KEY = "cpu-0123456789ab"
CREATED_UTC = "2026-01-31T12:00:00+00:00"


def digest(*parts: object) -> str:
    """A SHA-256 that depends on ``parts`` only."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def make_spec(**changes: Any) -> CaseSpec:
    """Return a case; ``case_id`` and ``workload_id`` follow from the other fields."""
    fields: dict[str, Any] = {
        "device_key": DEVICE_KEY,
        "engine": "torch",
        "model": "smollm2-135m",
        "weights": "random",
        "formats": FormatsRecord(weight_format="bf16", compute_dtype="bf16", kv_dtype="bf16"),
        "scenario": "decode-128",
        "variant": "full",
        "prompt_tokens": 128,
        "output_tokens": 128,
        "batch": 1,
        "seed": 0,
    } | changes
    work = [fields[name] for name in ("model", "prompt_tokens", "output_tokens", "batch")]
    ids = {"case_id": digest("case", sorted(fields.items())), "workload_id": digest("work", work)}
    return CaseSpec(**ids | fields)


def make_prediction(**changes: Any) -> Prediction:
    """Return what the accounting expects of a case."""
    fields: dict[str, Any] = {
        "weights_bytes": 269_030_016,
        "kv_cache_bytes": 5_898_240,
        "needed_bytes": 400_000_000,
        "trial_s": 4.0,
        "basis": "bytes per step at the measured bandwidth",
    }
    return Prediction(**fields | changes)


def make_ceilings() -> tuple[Ceiling, ...]:
    """Return the read bandwidth and the matrix rate of the device that runs are made on."""
    bandwidth = Measurement(
        value=20e9, unit="bytes/s", ci95=(19e9, 21e9), n=10, method="median of probes", scope="within_process"
    )
    return (
        Ceiling(device_key=DEVICE_KEY, name="read_bandwidth", ceiling_method="read", measurement=bandwidth),
        Ceiling(
            device_key=DEVICE_KEY,
            name="matrix_flops:bf16",
            ceiling_method="multiply",
            measurement=Measurement(value=8e11, unit="FLOP/s", n=5, method="best reading", scope="device"),
            engine="torch",
        ),
    )


def make_run_record(
    specs: tuple[CaseSpec, ...] | None = None, skipped: tuple[SkippedCase, ...] = (), **changes: Any
) -> RunRecord:
    """Return ``run.json`` of a one-device run that plans ``specs`` (by default one case)."""
    specs = (make_spec(),) if specs is None else specs
    fields: dict[str, Any] = {
        "run_id": digest("run")[:32],
        "created_utc": CREATED_UTC,
        "aiprof_version": "0.1.0",
        "command": ("--preset", "quick"),
        "seed": 0,
        "box": Box(system="Linux", kernel="6.1.0", architecture="x86_64", python="3.11.7"),
        "devices": (
            DeviceRecord(
                key=DEVICE_KEY,
                backend="cpu",
                name="A CPU",
                memory_total_bytes=16 * 2**30,
                simulated=False,
                verified="never run on real hardware",
                details={"cores": 2},
                facts={},
            ),
        ),
        "engines": (
            EngineRecord(name="torch", version="2.13.0", python="3.11.7", simulated=False, details={}),
        ),
        "models": (make_model(),),
        "noise_floors": (
            NoiseFloor(
                device_key=DEVICE_KEY,
                engine="torch",
                method="read",
                bytes_per_s=(20e9, 20.1e9),
                tolerance=0.05,
            ),
        ),
        "ceilings": make_ceilings(),
        "settings": PlanSettings(
            preset="quick",
            budget_s=300.0,
            starts=1,
            target_relative_half_width=0.02,
            repeat_on_interference=False,
        ),
        "cases": tuple(PlannedCase(spec=spec, predicted=make_prediction(), seconds=30.0) for spec in specs),
        "skipped": skipped,
        "simulated": False,
    }
    return RunRecord(**fields | changes)


def make_model(**changes: Any) -> ModelRecord:
    """Return the model that :func:`make_spec` names; the architecture is that of SmolLM2-135M."""
    architecture = Architecture(
        family="llama",
        vocab_size=49_152,
        hidden_size=576,
        layers=30,
        heads=9,
        kv_heads=3,
        head_dim=64,
        intermediate_size=1536,
        tied_embeddings=True,
        attention_bias=False,
        qk_norm=False,
        norm_eps=1e-5,
        rope_theta=100_000.0,
        rope_scaling=None,
        max_positions=8192,
    )
    fields: dict[str, Any] = {
        "name": "smollm2-135m",
        "weights": "random",
        "source": "test",
        "architecture": asdict(architecture),
    }
    return ModelRecord(**fields | changes)


def make_work(**changes: Any) -> Work:
    """Return the work of :func:`make_spec`, about right for SmolLM2-135M in bf16."""
    fields: dict[str, Any] = {
        "prefill_flops": 3.5e10,
        "prefill_bytes": 2.72e8,
        "decode_flops": 3.5e10,
        "decode_bytes": 3.46e10,
        "expected": False,
    }
    return Work(**fields | changes)


def make_case_fields(spec: CaseSpec | None = None, **changes: Any) -> dict[str, Any]:
    """Return the fields of a finished case as :meth:`RunWriter.append` takes them."""
    spec = spec or make_spec()
    trials = tuple(
        TrialRecord(start=0, index=index, warm_up=index < 2, prefill_s=0.5, decode_s=2.54, e2e_s=3.04)
        for index in range(5)
    )
    start = StartRecord(
        index=0,
        used=True,
        load_s=1.5,
        compile_s=None,
        steady=True,
        stopped_by="target_reached",
        probe_before_bytes_per_s=20e9,
        probe_after_bytes_per_s=20e9,
        energy_j=None,
        measured_s=9.5,
        details={"threads": 2},
    )
    fields: dict[str, Any] = {
        "spec": spec,
        "predicted": make_prediction(),
        "status": "ok",
        "started_utc": CREATED_UTC,
        "elapsed_s": 20.0,
        "simulated": False,
        "work": make_work(),
        "starts": (start,),
        "trials": trials,
        "measurements": make_measurements(),
        "flags": (
            Flag(code="one_start", text="1 start", hint="use --preset standard"),
            Flag(code="few_trials", text="3 trials", hint="give it more time with --budget"),
        ),
    }
    return fields | changes


def make_fidelity(verdict: Any = "faithful", **changes: Any) -> Fidelity:
    """Return a check with the verdict and figures that go with it."""
    kl = {"faithful": 0.002, "degraded": 0.9, "wrong": 6.0}.get(verdict)
    figures = FidelityFigures(
        prompts=4,
        positions=64,
        mean_kl=kl,
        max_kl=kl,
        top1_agreement=0.95,
        max_logit_error=0.2,
        greedy_tokens=64,
        greedy_agreed=64,
    )
    fields: dict[str, Any] = {
        "verdict": verdict,
        "reason": None if verdict == "faithful" else f"{verdict} for a test",
        "method": "log-probabilities",
        "reference": "fp32",
        "artefact": FidelityArtefact(
            weights="generated", text="2 of 30 layers", changed={"layers": 2}, seed=0
        ),
        "figures": None if verdict == "not_checked" else figures,
        "limits": FidelityLimits(mean_kl=0.011, greedy_gap=0.84),
        "elapsed_s": 8.0,
    }
    return Fidelity(**fields | changes)


def make_measurements() -> Mapping[str, Measurement]:
    """Return the measurements of a finished case; the energy is missing with a reason."""
    speed = Measurement(
        value=50.0,
        unit="tokens/s",
        ci95=(49.5, 50.5),
        n=3,
        method="mean of trials",
        scope="within_process",
        flags=("one_start",),
    )
    latency = Measurement(value=0.5, unit="s", n=3, method="mean of trials", scope="within_process")
    return {
        "decode_tokens_per_s": speed,
        "prefill_s": latency,
        "energy_j": Measurement.missing("J", "this machine has no energy counter that can be read"),
    }


def make_failed_fields(spec: CaseSpec | None = None, **changes: Any) -> dict[str, Any]:
    """Return the fields of a case that failed."""
    failure = Failure(
        kind="out_of_memory",
        stage="load",
        message="needs 2 GiB more memory; use a smaller batch",
        log_tail=("Traceback", "MemoryError"),
    )
    nothing: dict[str, Any] = {"starts": (), "trials": (), "measurements": {}, "flags": ()}
    return make_case_fields(spec, status="failed", failure=failure, **nothing) | changes


def write_example_run(path: Path, *, close: bool = True) -> Path:
    """Write a run with one finished, one failed and one skipped case, and one that never ran."""
    finished, failed, never = make_spec(), make_spec(batch=8), make_spec(batch=16)
    skipped = SkippedCase(
        spec=make_spec(batch=512), reason="needs 3.0 GiB more memory", lacking_bytes=3 * 2**30
    )
    planned = (finished, failed, never) if not close else (finished, failed)
    with RunWriter.create(path, make_run_record(planned, (skipped,))) as writer:
        samples = writer.write_samples(finished.case_id, {"start": [0, 0], "step_ns": [5, 9]})
        writer.append(make_case_fields(finished, samples=samples))
        writer.append(make_failed_fields(failed))
        if close:
            writer.close()
    return path
