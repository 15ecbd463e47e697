"""Runs for comparisons: boxes whose starts have the times that a test asks for."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builders import DEVICE_KEY, make_case_fields, make_run_record, make_spec

from profiler.results.read import Run
from profiler.results.schema import CaseRecord, CaseSpec, RunRecord, StartRecord, TrialRecord

_NUMBER = itertools.count()


def make_starts(times: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return ``starts`` and ``trials`` of a case: end-to-end seconds of the measured trials of each start.

    A quarter of each is prefill. Every start has a warm-up trial of 1000 s that must never count.
    """
    starts, trials = [], []
    for index, series in enumerate(times):
        starts.append(make_start(index))
        trials.append(TrialRecord(start=index, index=0, warm_up=True, prefill_s=500, decode_s=500, e2e_s=1e3))
        trials += [
            TrialRecord(start=index, index=number, warm_up=False, prefill_s=t / 4, decode_s=0.75 * t, e2e_s=t)
            for number, t in enumerate(series, start=1)
        ]
    return {"starts": tuple(starts), "trials": tuple(trials), "flags": (), "measurements": {}}


def make_start(index: int, *, used: bool = True) -> StartRecord:
    """Return a start."""
    fields = make_case_fields()["starts"][0]
    changed: StartRecord = fields.model_copy(update={"index": index, "used": used})
    return changed


def make_case(
    spec: CaseSpec | None = None, times: Sequence[Sequence[float]] = (), **changes: Any
) -> CaseRecord:
    """Return a finished case whose starts took ``times``."""
    fields = make_case_fields(spec) | make_starts(times) | changes
    return CaseRecord(prev_sha256="0" * 64, **fields)


def make_run(
    cases: Sequence[CaseRecord], name: str = "run", *, never_ran: Sequence[CaseSpec] = (), **changes: Any
) -> Run:
    """Return a run with these cases, as if read from a folder called ``name``; each has its own id."""
    specs = (*{case.spec.case_id: case.spec for case in cases}.values(), *never_ran)
    identity = hashlib.sha256(str(next(_NUMBER)).encode()).hexdigest()[:32]
    record: RunRecord = make_run_record(specs, **{"run_id": identity} | changes)
    return Run(Path("runs") / name, record, tuple(cases), True, ())


def steady(seconds: float, starts: int = 3, spread: float = 0.01, seed: object = 0) -> list[list[float]]:
    """Return times of starts that scatter by ``spread`` round ``seconds``, the same for the same seed."""
    noise = random.Random(repr((seed, starts, spread)))
    return [[seconds * (1 + noise.gauss(0, spread))] * 5 for _ in range(starts)]


def make_box(
    seconds: Mapping[int, float], name: str = "run", *, starts: int = 3, spread: float = 0.01, **changes: Any
) -> Run:
    """Return a run of one case per batch size, each taking the seconds given for it."""
    key = changes.pop("device_key", DEVICE_KEY)
    cases = [
        make_case(make_spec(batch=batch, device_key=key), steady(time, starts, spread, (name, batch)))
        for batch, time in seconds.items()
    ]
    return make_run(cases, name, **changes)
