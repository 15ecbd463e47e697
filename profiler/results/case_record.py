"""A line of ``cases.jsonl``: what was measured of one case."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from profiler.results.fidelity_record import Fidelity
from profiler.results.fields import Count, Details, Finite, Identifier, Name, Text, Utc, Version
from profiler.results.record_base import (
    SCHEMA_VERSION,
    CaseSpec,
    Failure,
    Flag,
    Measurement,
    Prediction,
    Record,
)
from profiler.results.sensor_record import EnergyRecord, EnergySpans, PhaseRecord


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


class MemoryReadings(Record):
    """What one start said about memory; the case's figures are the largest of its starts.

    Attributes:
        weights_bytes: what the loaded weights take.
        weight_copies_bytes: what repacked copies of them take beside them, or None.
        kv_cache_bytes: what was allocated for the cache.
        kv_cache_tokens: tokens that this cache holds, or None where it is exactly those of the case.
        peak_engine_bytes: high-water mark of the engine's allocator, or None with ``no_peak_reason``.
        no_peak_reason: why the engine has no peak.
        peak_process_bytes: peak of the worker, or None.
        peak_process_source: where that was read: of its own control group, else ``VmHWM``.
        peak_rss_bytes: peak resident set of the worker, or None.
        process_rss_bytes: resident set of the worker after the trials, or None.
        device_free_bytes: memory of the device that was free after the trials, as the engine says, or None.
        device_free_source: what the engine asked for that, or None.
        counted_free_bytes: the same by the device's own counters, or None.
        device_source: those counters, or None where there are none.
        kv_capacity_tokens: tokens that fit into a cache which the engine sets aside beforehand, or None.
        device_used_bytes: samples of the memory in use on the device, total minus free.
        polled_device_bytes: most memory in use on the device (total minus free) in any read by the sampler
            from loading to the end of the trials, or None where nothing was read.
        polled_device_reads: how many such reads there were.
        polled_device_sensor: key of the sensor that was read, or None.
        host_used_bytes: samples of the memory in use on the host, within the control group's limit.
    """

    weights_bytes: Count
    kv_cache_bytes: Count
    kv_cache_tokens: Count | None = None
    peak_engine_bytes: Count | None
    no_peak_reason: Text | None = None
    peak_process_bytes: Count | None
    peak_process_source: Text | None = None
    peak_rss_bytes: Count | None = None
    weight_copies_bytes: Count | None = None
    process_rss_bytes: Count | None = None
    device_free_bytes: Count | None = None
    device_free_source: Text | None = None
    counted_free_bytes: Count | None = None
    device_source: Text | None = None
    kv_capacity_tokens: Count | None = None
    device_used_bytes: tuple[Count, ...] = ()
    polled_device_bytes: Count | None = None
    polled_device_reads: Count = 0
    polled_device_sensor: Name | None = None
    host_used_bytes: tuple[Count, ...] = ()


class BoxReadings(Record):
    """What was seen of the box while the measured trials of a start ran; None: not judged.

    Attributes:
        seconds: time between the two looks that the shares refer to.
        steal_share: processor time that the hypervisor took, of all that was wanted.
        foreign_cpu_share: processor time of other processes, of all that the worker's CPUs have.
        busy_cpu_share: processor time of everybody, of the same.
        throttled_share: time that a CPU quota held the processes back, of the same.
        swapped_bytes: moved to or from swap on the whole machine.
        major_faults: times that the worker waited for a page from disk.
        numa_remote_share: memory of the worker on other nodes than its threads call for.
        worker_stops: trials in which the worker was stopped by a signal.
        longest_pause_s: longest time between two trials in which the worker had nothing to do.
        repeated_prompt_ratio: time of a repeated prompt over that of fresh ones.
        not_judged: codes of the flags for which something could not be read.
    """

    seconds: Finite = 0.0
    steal_share: Finite | None = None
    foreign_cpu_share: Finite | None = None
    busy_cpu_share: Finite | None = None
    throttled_share: Finite | None = None
    swapped_bytes: Finite | None = None
    major_faults: Finite | None = None
    numa_remote_share: Finite | None = None
    worker_stops: Count | None = None
    longest_pause_s: Finite | None = None
    repeated_prompt_ratio: Finite | None = None
    not_judged: tuple[Name, ...] = ()


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


class SamplesRef(Record):
    """Where the raw stamps or the sensor reads of a case are."""

    file: Annotated[str, Field(pattern=r"^samples/[0-9a-f]{64}(\.sensors)?\.parquet$")]
    sha256: Identifier
    rows: Count


class LoadProcess(Record):
    """One process of the load client.

    Attributes:
        requests: requests that ended in it.
        wall_s: from the go to the end of its last request.
        cpu_s: processor time in that span.
        loop: its event loop.
        loop_lag_p50_s: median of how late its event loop was (the kernel's timer adds up to 1 ms).
        loop_lag_p99_s: 99th percentile of that.
        loop_lag_max_s: the longest.
    """

    requests: Count
    wall_s: Finite
    cpu_s: Finite
    loop: Name
    loop_lag_p50_s: Finite | None
    loop_lag_p99_s: Finite | None
    loop_lag_max_s: Finite | None


class ClientCeiling(Record):
    """What the load client can drive on this machine, measured against a server that only sends.

    Attributes:
        cpu_per_request_s: processor time of a request without its chunks.
        cpu_per_chunk_s: processor time per chunk of an answer.
        requests_per_s: rate of this case's requests at which all load processes would be busy all the time.
        share: rate of this case over that.
        method: how it came about.
    """

    cpu_per_request_s: Finite
    cpu_per_chunk_s: Finite
    requests_per_s: Finite
    share: Finite | None
    method: Name


class SloJudgement(Record):
    """Whether a load keeps a limit of a percentile.

    Attributes:
        slo: the limit, e.g. ``ttft_p99=0.5s``.
        verdict: ``holds``: the upper bound is at least 5% below the limit; ``fails``: the lower bound is more
            than 5% above it, or on failed requests; ``undecided``: anything else.
        n: requests that entered, failed ones included.
        value_s: the percentile of these requests, None where it falls on a failed one or there is none.
        low_s: lower bound of the percentile at 99% confidence, or None.
        high_s: upper bound at 99% confidence (MLPerf's early stopping), or None.
    """

    slo: Name
    verdict: Literal["holds", "fails", "undecided"]
    n: Count
    value_s: Finite | None = None
    low_s: Finite | None = None
    high_s: Finite | None = None


class ServedRecord(Record):
    """What was sent to a server and what became of it.

    Attributes:
        requests: requests that were sent or failed to be.
        ok: those that succeeded.
        failures: failed requests by the name of the failure.
        messages: for each failure one message, without keys, URLs and names.
        asked_requests: requests that were asked for, or None where a time was.
        asked_seconds: time that was asked for, or None.
        warm_up_requests: requests sent before the measurement.
        duration_s: from the first request sent to the last end.
        began_realtime_s: the go on the client's wall clock, by which recordings are joined, or None.
        ended_realtime_s: the end of the last answer, on the same clock read once more then, or None.
        steady_s: length of the steady window, or None.
        token_sources: requests by where their token count comes from.
        first_chunk_sources: requests by where the number of tokens of their first chunk comes from.
        prompt_tokens_asked: mean prompt length asked for.
        prompt_tokens_received: mean prompt length that the server reports, or None.
        cached_tokens: prompt tokens that the server took from a cache, or None when it does not say.
        intended_rate_per_s: arrivals per second of the schedule (open loop), else None.
        sent_rate_per_s: requests that were really sent per second (open loop), else None.
        send_delay_p50_s: how long after its scheduled moment a request was sent: median.
        send_delay_max_s: the longest.
        slos: the limits that goodput and attainment go by.
        judgements: those of them that are limits of a percentile, judged.
        processes: the load client's processes.
        ceiling: what the client can drive here, or None when it was not measured.
        gave_up: why it stopped sending before the end, or None.
        endpoint: what is known of the server: reach, API, what it accepts; never its name.
    """

    requests: Count
    ok: Count
    failures: dict[Name, Count]
    messages: dict[Name, Text]
    asked_requests: Count | None
    asked_seconds: Finite | None
    warm_up_requests: Count
    duration_s: Finite | None
    began_realtime_s: Finite | None = None
    ended_realtime_s: Finite | None = None
    steady_s: Finite | None
    token_sources: dict[Name, Count]
    first_chunk_sources: dict[Name, Count]
    prompt_tokens_asked: Finite | None
    prompt_tokens_received: Finite | None
    cached_tokens: Count | None
    intended_rate_per_s: Finite | None
    sent_rate_per_s: Finite | None
    send_delay_p50_s: Finite | None
    send_delay_max_s: Finite | None
    slos: tuple[Name, ...]
    judgements: tuple[SloJudgement, ...] = ()
    processes: tuple[LoadProcess, ...]
    ceiling: ClientCeiling | None = None
    gave_up: Text | None = None
    endpoint: Details = Field(default_factory=dict)


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
