"""A line of ``cases.jsonl``: what was measured of one case."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from profiler.results.fields import Count, Details, Finite, Identifier, Name, Utc
from profiler.results.record_base import (
    SCHEMA_VERSION,
    CaseSpec,
    Failure,
    Flag,
    Measurement,
    Prediction,
    Record,
)


class Work(Record):
    """What one trial of a case has to compute and to move at least, for the whole batch.

    Attributes:
        prefill_flops: floating-point operations of the prefill.
        prefill_bytes: weights read once, cache written.
        decode_flops: floating-point operations of all decode steps; 0 without any.
        decode_bytes: weights and cache read, cache written, in all decode steps; 0 without any.
        expected: whether bytes rest on an expected number of distinct experts.
    """

    prefill_flops: Finite
    prefill_bytes: Finite
    decode_flops: Finite
    decode_bytes: Finite
    expected: bool


class TrialRecord(Record):
    """One complete prefill and decode.

    Attributes:
        start: index of the start it belongs to.
        index: index within the start, warm-up included.
        warm_up: True when it only served to reach the steady state.
        prefill_s: submit to first token on the host.
        decode_s: first to last token, or None for a single output token.
        e2e_s: submit to last token.
    """

    start: Count
    index: Count
    warm_up: bool
    prefill_s: Finite
    decode_s: Finite | None
    e2e_s: Finite


class StartRecord(Record):
    """One fresh worker process.

    Attributes:
        index: 0 for the first; a repeat after interference has its own index.
        used: False when it was replaced by a repeat.
        load_s: weights in place and cache allocated, without importing the engine.
        compile_s: time spent compiling, or None when nothing was compiled.
        steady: whether warm-up reached a steady state.
        stopped_by: why trials ended: ``target_reached``, ``last_look``, ``out_of_time``.
        probe_before_bytes_per_s: bandwidth probe before the trials.
        probe_after_bytes_per_s: bandwidth probe after the trials.
        energy_j: energy over the measured trials from a plain counter, or None.
        measured_s: wall time of the measured trials including the pauses between them.
        details: what the engine says about how it runs.
    """

    index: Count
    used: bool
    load_s: Finite
    compile_s: Finite | None
    steady: bool
    stopped_by: Name
    probe_before_bytes_per_s: Finite | None
    probe_after_bytes_per_s: Finite | None
    energy_j: Finite | None
    measured_s: Finite
    details: Details


class SamplesRef(Record):
    """Where the raw stamps of a case are."""

    file: Annotated[str, Field(pattern=r"^samples/[0-9a-f]{64}\.parquet$")]
    sha256: Identifier
    rows: Count


class CaseRecord(Record):
    """A line of ``cases.jsonl``: one finished or failed case.

    Attributes:
        prev_sha256: SHA-256 of the line before (of ``run.json`` for the first line).
        status: ``ok`` or ``failed``.
        elapsed_s: wall time of the case, loading included.
        simulated: True when any part did not come from hardware.
        work: what a trial has to compute and move, or None where it was not counted.
        binding_ceilings: by phase (``prefill``, ``decode``), the name of the ceiling that the roofline
            says it meets first; only where both were measured.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    prev_sha256: Identifier
    spec: CaseSpec
    predicted: Prediction
    status: Literal["ok", "failed"]
    started_utc: Utc
    elapsed_s: Finite
    simulated: bool
    work: Work | None = None
    starts: tuple[StartRecord, ...] = ()
    trials: tuple[TrialRecord, ...] = ()
    measurements: dict[Name, Measurement] = Field(default_factory=dict)
    binding_ceilings: dict[Name, Name] = Field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    failure: Failure | None = None
    samples: SamplesRef | None = None

    @model_validator(mode="after")
    def _failed_says_why(self) -> Self:
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError("a failed case, and only a failed case, carries a failure")
        return self
