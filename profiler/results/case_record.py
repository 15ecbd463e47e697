"""A line of ``cases.jsonl``: what was measured of one case."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from profiler.results.case_spec import CaseSpec
from profiler.results.fidelity_record import Fidelity
from profiler.results.fields import Count, Details, Finite, Identifier, Name, Text, Utc, Version
from profiler.results.readings import BoxReadings, MemoryReadings
from profiler.results.record_base import (
    SCHEMA_VERSION,
    Failure,
    Flag,
    Measurement,
    Prediction,
    Record,
)
from profiler.results.sensor_record import EnergyRecord, EnergySpans, PhaseRecord
from profiler.results.served_record import ServedRecord, Speculation


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


# Of hundreds in a case a model of pydantic would take four times the memory.
@dataclass(
    frozen=True,
    slots=True,
    config=ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_serialization_defaults_required=True),
)
class TrialRecord:
    """One complete prefill and decode.

    Attributes:
        start: index of the start it belongs to.
        index: index within the start, warm-up included.
        warm_up: True when it only served to reach the steady state.
        prefill_s: submit to first token on the host, or None where the engine mixed the phases.
        decode_s: first to last token, or None for a single output token and where phases were mixed.
        e2e_s: submit to last token.
        mixed: why prefill and decode cannot be told apart, or None where they can.
        preemptions: how often a request was thrown out of the cache and computed again, or None where the
            engine does not say.
        prompts_sha256: digest of the token ids of all its prompts (``workload.token_ids.prompts_digest``);
            None in records of older versions.
        output_sha256: digest of the token ids that came out, as the engine computed it; None where
            it gives none.
    """

    start: Count
    index: Count
    warm_up: bool
    prefill_s: Finite | None
    decode_s: Finite | None
    e2e_s: Finite
    mixed: Text | None = None
    preemptions: Count | None = None
    prompts_sha256: Identifier | None = None
    output_sha256: Identifier | None = None

    @model_validator(mode="after")
    def _mixed_or_apart(self) -> Self:
        if (self.prefill_s is None) != (self.mixed is not None) or (
            self.mixed is not None and self.decode_s is not None
        ):
            raise ValueError(
                "a trial with mixed phases, and only such a one, has no prefill and no decode time"
            )
        return self


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
        energy_j: energy that the device used for the measured trials, or None; see ``energies``.
        measured_s: time in which measured trials ran, without the pauses between them.
        details: what the engine says about how it runs.
        dummy_weights: whether the engine made up weights of its own, which are not those of other engines.
        memory: what was read of the memory, or None where nothing was.
        box: what was seen of the box during the measured trials, or None where nothing was looked at.
        speculation: what speculative decoding did in the measured trials, or None without any, or where the
            engine does not count it.
        replaced_for: codes of what disturbed it, where a repeat counts in its place.
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
    replaced_for: tuple[Name, ...] = ()
    dummy_weights: bool = False
    memory: MemoryReadings | None = None
    box: BoxReadings | None = None
    speculation: Speculation | None = None


class SamplesRef(Record):
    """Where the raw stamps or the sensor reads of a case are."""

    file: Annotated[str, Field(pattern=r"^samples/[0-9a-f]{64}(\.sensors)?\.parquet$")]
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
        predicted: what the accounting expects, or None for a server whose model is not known.
        served: what was sent to a server and what became of it, or None for offline work.
        phases: when the starts did what, on the time axis of ``sensor_samples``.
        energies: energy of each phase of each start, by every meter.
        energy_spans: when the work of each start was done whose energy that is; with ``sensor_samples`` the
            energies can be made again.
        samples: stamps of every token.
        sensor_samples: reads of every sensor.
        fidelity: whether the engine computed the model, checked before the first case of its kind, or None
            in records of versions that did not check.
    """

    schema_version: Version = SCHEMA_VERSION
    prev_sha256: Identifier
    spec: CaseSpec
    predicted: Prediction | None
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
    phases: tuple[PhaseRecord, ...] = ()
    energies: tuple[EnergyRecord, ...] = ()
    energy_spans: tuple[EnergySpans, ...] = ()
    samples: SamplesRef | None = None
    served: ServedRecord | None = None
    sensor_samples: SamplesRef | None = None
    fidelity: Fidelity | None = None

    @model_validator(mode="after")
    def _failed_says_why(self) -> Self:
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError("a failed case, and only a failed case, carries a failure")
        return self
