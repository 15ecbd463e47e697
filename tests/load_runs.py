"""Runs of loads on a server, from request columns made by hand, with their raw samples on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from builders import CREATED_UTC, digest, make_run_record, make_spec
from load_tables import table_of

from profiler.load.flags import flags
from profiler.load.slo import parse_slos
from profiler.load.summary import measurements, served_record
from profiler.load.table import Requests
from profiler.results.read import Run, read_run
from profiler.results.schema import CaseSpec, DeviceRecord, FormatsRecord, LoadSpec
from profiler.results.store import RunWriter

UNKNOWN = FormatsRecord(weight_format="unknown", compute_dtype="unknown", kv_dtype="unknown")
NO_SERVER: dict[str, Any] = {
    "asked_requests": None, "asked_seconds": 60.0, "warm_up": 0, "intended_rate_per_s": None,
    "ceiling": None, "endpoint": {"reach": "private"},
}  # fmt: skip


def ttfts(n: int, mean_ms: float, seed: int = 0) -> list[float]:
    """Lognormal times to first token with a spread of a fifth."""
    noise = np.random.default_rng(seed).standard_normal(n)
    return [float(value) for value in mean_ms * np.exp(0.2 * noise)]


def load_spec(users: int, **changes: Any) -> CaseSpec:
    """Return the specification of a closed loop."""
    load = LoadSpec(loop="closed", concurrency=users, api="completions", prompt="token_ids", lengths="fixed")
    fields: dict[str, Any] = {
        "engine": "endpoint", "weights": "server", "model": "served", "formats": UNKNOWN, "batch": users,
        "load": load, "scenario": "fixed", "prompt_tokens": 8, "output_tokens": 11,
    }  # fmt: skip
    return make_spec(**fields | changes)


def load_fields(spec: CaseSpec, requests: Requests, slos: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of a finished load, without its samples."""
    limits = parse_slos(slos)
    users = None if spec.load is None else spec.load.concurrency
    found = measurements(requests, users, limits)
    served = served_record(requests, spec, (), limits, **NO_SERVER)
    return {
        "spec": spec, "predicted": None, "status": "ok", "started_utc": CREATED_UTC, "elapsed_s": 60.0,
        "simulated": False, "measurements": found, "served": served,
        "flags": tuple(flags(requests, spec, served, found, 2)),
    }  # fmt: skip


def write_loads(
    path: Path, loads: Mapping[int, Requests], name: str = "a server", slos: Sequence[str] = (), **spec: Any
) -> Run:
    """Write and read a run of closed loops, one per number of users."""
    key = f"endpoint-{digest(name)[:12]}"
    cases = {users: load_spec(users, device_key=key, **spec) for users in loads}
    device = DeviceRecord(
        key=key, backend="endpoint", name=name, memory_total_bytes=None, simulated=False,
        verified="a server by URL: what stands behind it is not seen", details={}, facts={},
    )  # fmt: skip
    record = make_run_record(
        tuple(cases.values()), run_id=digest("loads", str(path))[:32], devices=(device,), noise_floors=(),
        ceilings=(), models=(), command=("load", "URL", "--concurrency", ",".join(map(str, loads))),
    )  # fmt: skip
    with RunWriter.create(path, record) as writer:
        for users, requests in loads.items():
            spec_ = cases[users]
            samples = writer.write_samples(spec_.case_id, requests.samples())
            writer.append(load_fields(spec_, requests, slos) | {"samples": samples})
        writer.close()
    return read_run(path)


def loads(users: Sequence[int], ttft_ms: float, n: int = 220, seed: int = 0) -> dict[int, Requests]:
    """Return request columns for each number of users; more users wait longer."""
    return {
        count: table_of(ttfts(n, ttft_ms * (1 + count / 16), seed + count), gap_ms=8 + count / 4)
        for count in users
    }
