"""Parts of a line of ``cases.jsonl`` that are about a load on a server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from profiler.results.fields import Count, Details, Finite, Name, Text
from profiler.results.readings import BoxReadings, MemoryReadings
from profiler.results.record_base import Record


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
        kernel_stamped: share of the receipts over plain connections that the kernel stamped when they came
            in; the others, and all over TLS, are stamped when the process reads them. None: there were none.
    """

    requests: Count
    wall_s: Finite
    cpu_s: Finite
    loop: Name
    loop_lag_p50_s: Finite | None
    loop_lag_p99_s: Finite | None
    loop_lag_max_s: Finite | None
    kernel_stamped: Finite | None = None


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


class Speculation(Record):
    """What speculative decoding guessed and what of it was right, in the load or the trials of one start.

    Attributes:
        method: as vLLM names it (``ngram``, ``mtp``, ``eagle3``).
        drafts: times that tokens were guessed.
        draft_tokens: tokens that were guessed.
        accepted_tokens: tokens of them that the model would have made itself.
    """

    method: Name
    drafts: Count
    draft_tokens: Count
    accepted_tokens: Count


class ServerStart(Record):
    """One start of the server that aiprof started for a case.

    Attributes:
        index: 0 for the first.
        flags: of its command line, without model folder, address and port.
        ready_s: from its start until it answered.
        requests: requests of its load.
        ok: those that succeeded.
        output_tokens: tokens of these.
        duration_s: from the first request sent to the last end, or None.
        probe_before_bytes_per_s: bandwidth probe before it was started.
        probe_after_bytes_per_s: bandwidth probe after it had ended.
        preemptions: requests thrown out of the cache and computed again, warm-up included, or None where it
            does not say.
        cached_tokens: prompt tokens that it says it took from its prefix cache, or None.
        speculation: what speculative decoding did, or None without any.
        processes: processes that it consisted of under load.
        details: where the weights come from, and what it says about its cache.
        dummy_weights: whether it made up weights of its own.
        memory: what was read of the memory.
        box: what was seen of the box during the load.
    """

    index: Count
    flags: tuple[Text, ...]
    ready_s: Finite
    requests: Count
    ok: Count
    output_tokens: Count
    duration_s: Finite | None
    probe_before_bytes_per_s: Finite | None = None
    probe_after_bytes_per_s: Finite | None = None
    preemptions: Count | None = None
    cached_tokens: Count | None = None
    speculation: Speculation | None = None
    processes: Count
    details: Details
    dummy_weights: bool = False
    memory: MemoryReadings
    box: BoxReadings | None = None


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
        prompt_series: number of the series, beside seed and scenario, that the prompts were drawn from; other
            points of a run have other numbers, so that no prompt comes twice. None: a record without it.
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
        servers: the starts of the server, where aiprof started it; empty for one that ran already.
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
    servers: tuple[ServerStart, ...] = ()
    prompt_series: Count | None = None
