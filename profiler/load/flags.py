"""What limits a load's results: the client, the server's answers, or too few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from profiler.load.outcome import LENGTH_DIFFERS
from profiler.load.table import Requests
from profiler.results.schema import CaseSpec, Flag, Measurement, ServedRecord

NEAR_CEILING = 0.8
"""Within 20% of what the client can drive."""
LAG_SHARE = 0.05
"""An event loop that is later than this share of the median TTFT may show in it."""
PROMPT_TOLERANCE = 0.02
LOAD_KEPT = 0.99

Found = Sequence[Flag]


def flags(
    requests: Requests, spec: CaseSpec, served: ServedRecord, found: Mapping[str, Measurement], cores: int
) -> list[Flag]:
    """Return the flags of a load.

    Args:
        requests: its columns.
        spec: the case.
        served: its summary.
        found: its measurements.
        cores: processor cores that this machine lets the client use.
    """
    made = [*_client(served, found), *_load(spec, served), *_failures(served), *_lengths(requests, served)]
    missing = found.get("ttft_p99_s")
    if served.ok and missing is not None and missing.value is None:
        hint = "more requests: --requests 662 for p99, 64 for p90"
        made.append(Flag(code="few_requests", text=missing.reason or "no p99", hint=hint))
    if served.endpoint.get("reach") == "loopback":
        text = f"server and client share this machine's {cores} cores"
        made.append(
            Flag(
                code="shared_box", text=text, hint="drive it from another machine, or know the client's share"
            )
        )
    return made


def _client(served: ServedRecord, found: Mapping[str, Measurement]) -> Found:
    made: list[Flag] = []
    hint = "more load processes (--processes), or a machine with more free cores"
    busiest = max((one.cpu_s / one.wall_s for one in served.processes if one.wall_s > 0), default=0.0)
    share = served.ceiling.share if served.ceiling is not None and served.ceiling.share is not None else 0.0
    if max(busiest, share) > NEAR_CEILING:
        text = f"the client was at {max(busiest, share):.0%} of what one core per process can drive"
        made.append(Flag(code="client_limited", text=text, hint=hint))
    lag = max((one.loop_lag_p99_s or 0.0 for one in served.processes), default=0.0)
    ttft = found["ttft_p50_s"].value if "ttft_p50_s" in found else None
    if ttft is not None and lag > LAG_SHARE * ttft:
        text = f"the client's event loop was up to {lag * 1e3:.1f} ms late (p99), TTFT is {ttft * 1e3:.0f} ms"
        made.append(Flag(code="client_lag", text=text, hint=hint))
    return made


def _load(spec: CaseSpec, served: ServedRecord) -> Found:
    made: list[Flag] = []
    intended, sent = served.intended_rate_per_s, served.sent_rate_per_s
    if intended is not None and sent is not None and sent < LOAD_KEPT * intended:
        text = f"{intended:.4g} requests/s were intended, {sent:.4g} were sent"
        hint = "the client or its connections did not keep up: more load processes, or a lower rate"
        made.append(Flag(code="load_not_kept", text=text, hint=hint))
    if served.gave_up:
        made.append(
            Flag(code="gave_up", text=served.gave_up, hint="see that the server runs, then measure again")
        )
    return made


def _failures(served: ServedRecord) -> Found:
    if not served.failures:
        return []
    listed = ", ".join(f"{count} {name}" for name, count in served.failures.items())
    name = next(iter(served.failures))
    message = f" ({served.messages[name]})" if served.messages.get(name) else ""
    text = f"{sum(served.failures.values())} of {served.requests} requests failed: {listed}{message}"
    hint = "failures count as bad in goodput, attainment and percentiles; see the server's log"
    return [Flag(code="failed_requests", text=text, hint=hint)]


def _lengths(requests: Requests, served: ServedRecord) -> Found:
    made: list[Flag] = []
    ok = requests.ok
    differing = int((ok & (requests["notes"] & LENGTH_DIFFERS > 0)).sum())
    if differing:
        asked = requests["output_tokens_asked"][ok].mean()
        got = requests["output_tokens"][ok].mean()
        text = (
            f"{differing} of {int(ok.sum())} answers have another length than asked: "
            f"{got:.1f} tokens, not {asked:.1f}"
        )
        hint = "the server does not honour ignore_eos or the limit; compare only with equal lengths"
        made.append(Flag(code="output_length", text=text, hint=hint))
    received, asked_for = served.prompt_tokens_received, served.prompt_tokens_asked
    if received is None and served.ok:
        text = "the server does not say how long prompts are"
        made.append(Flag(code="prompt_length_unknown", text=text, hint="a server that returns usage"))
    elif received is not None and asked_for and abs(received / asked_for - 1) > PROMPT_TOLERANCE:
        text = f"prompts are {received:.1f} tokens for the server, {asked_for:.1f} were asked for"
        hint = "token ids (--api completions) give exact lengths; chat templates add tokens"
        made.append(Flag(code="prompt_length", text=text, hint=hint))
    if served.cached_tokens:
        share = served.cached_tokens / max(
            1, int(requests["prompt_tokens"][requests["prompt_tokens"] >= 0].sum())
        )
        text = f"the server took {share:.1%} of all prompt tokens from a cache"
        made.append(
            Flag(code="prefix_cache", text=text, hint="turn prefix caching off, or know that it helped")
        )
    if served.token_sources.get("chunks"):
        text = "tokens are not reported, chunks were counted instead"
        made.append(Flag(code="tokens_from_chunks", text=text, hint="give --tokenizer FOLDER"))
    if served.first_chunk_sources.get("share_of_text"):
        text = "chunks bring several tokens; those of the first are estimated from its share of the text"
        hint = (
            "TPOT is off by up to one token's time over the length; give --tokenizer FOLDER for exact counts"
        )
        made.append(Flag(code="first_chunk_estimated", text=text, hint=hint))
    return made
