"""What servers and the environments that they come from say of themselves, under attack."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from types import SimpleNamespace
from typing import Any

from fuzz_mutations import NASTY_NUMBERS, as_json, damaged_bytes, damaged_json
from fuzz_target import Target
from hypothesis import strategies as st


def server_metrics() -> Target:
    """``/metrics`` before and after a load, up to the record of a start."""
    from profiler.engines.server_metrics import parse_metrics, since
    from profiler.measure.speculation import speculation_between
    from profiler.results.schema import MemoryReadings

    lines = [
        "# HELP vllm:num_preemptions_total Cumulative number of preemption from the engine.",
        'vllm:num_preemptions_total{engine="0",model_name="m"} 3.0',
        'vllm:num_preemptions_total{engine="1",model_name="m"} 1e+06',
        'vllm:prefix_cache_hits_total{engine="0",model_name="m"} 0.0',
        'vllm:cache_config_info{block_size="128",engine="0",num_gpu_blocks="2048"} 1.0',
        'vllm:cache_config_info{kv_cache_size_tokens="4096",engine="1"} 1.0',
        'vllm:spec_decode_num_drafts_total{engine="0"} 7.0',
        'vllm:spec_decode_num_draft_tokens_total{engine="0"} 21.0',
        'vllm:spec_decode_num_accepted_tokens_total{engine="0"} 12.0',
    ]
    whole = "\n".join(lines).encode()
    numbers = st.sampled_from((*NASTY_NUMBERS, "1e999", "eeee", "+-", "9" * 5000, "\u00b2", "\u0665", "NaN"))

    def renumbered(line: str) -> st.SearchStrategy[bytes]:
        head, _, _ = line.rpartition(" ")
        block = 'vllm:cache_config_info{block_size="%s",num_gpu_blocks="%s"} %s'
        return numbers.map(lambda number: f"{head} {number}".encode()) | st.tuples(
            numbers, numbers, numbers
        ).map(lambda found: (block % found).encode())

    def read(case: tuple[bytes, bytes]) -> None:
        before, after = (parse_metrics(text.decode("utf-8", "replace")) for text in case)
        for name, value in asdict(before).items():
            since(value, asdict(after)[name])
        speculation_between("ngram", before, after)
        held = after.cache_tokens
        MemoryReadings(
            weights_bytes=1, kv_cache_bytes=(held or 0) * 2**20, kv_cache_tokens=held, peak_engine_bytes=None,
            no_peak_reason="none", peak_process_bytes=1, process_rss_bytes=1, device_free_bytes=1,
            kv_capacity_tokens=held, device_used_bytes=(1, 1), host_used_bytes=(1,),
        )  # fmt: skip

    texts = damaged_bytes([whole]) | st.lists(
        st.sampled_from(lines[1:]).flatmap(renumbered), min_size=1, max_size=5
    ).map(b"\n".join)
    return Target(st.tuples(texts, texts) | st.tuples(st.just(whole), texts), read, ())


def server_checks() -> Target:
    """Answers of a server to the prompts that are asked before a load, up to the record of the check."""
    from profiler.load.asking import said_in
    from profiler.load.exchange import Exchange
    from profiler.load.reading import read_exchange
    from profiler.measure.server_answers import look_at_answers
    from profiler.results.fidelity_record import Fidelity

    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    top = {"token": "token_id:7", "logprob": -0.5, "top_logprobs": [{"token": "token_id:9", "logprob": -2}]}
    completion = {
        "model": "m",
        "choices": [
            {
                "text": "ab",
                "token_ids": [7],
                "logprobs": {
                    "tokens": ["token_id:7"],
                    "token_logprobs": [-0.5],
                    "top_logprobs": [{"token_id:7": -0.5, "token_id:9": -2.0}],
                },
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}},
    }
    chat = {
        "model": "org/m-2024",
        "choices": [
            {
                "delta": {"content": "a", "reasoning": "b"},
                "logprobs": {"content": [top, {**top, "id": 3}]},
                "finish_reason": "stop",
            }
        ],
    }
    usage = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}

    def streamed(found: Any) -> bytes:
        listed = found if isinstance(found, list) else [found]
        body = b"".join(b"data: " + as_json(one) + b"\n\n" for one in listed) + b"data: [DONE]\n\n"
        return head % (b"text/event-stream", len(body)) + body

    def whole(found: Any) -> bytes:
        body = as_json(found)
        return head % (b"application/json", len(body)) + body

    honest = [streamed([completion, usage]), streamed([chat, usage]), whole(completion)]
    job: Any = SimpleNamespace(model="m", features=SimpleNamespace(ignore_eos=True))

    def heard(content: bytes, api: Any) -> Any:
        exchange = Exchange(0, 1, 4, 2)
        exchange.sent_ns, exchange.first_byte_ns, exchange.end_ns = 1, 2, 10**9
        exchange.pieces = [(2 + place, content[place : place + 97]) for place in range(0, len(content), 97)]
        return said_in(exchange, read_exchange(exchange, api))

    def read(case: tuple[list[bytes], str]) -> None:
        contents, api = case
        said = [heard(content, api) for content in contents for _ in range(2)]
        _, checks = look_at_answers(job, said)
        found = Fidelity(
            verdict="not_checked", reason="none", method="none", reference="none", checks=tuple(checks)
        )
        json.dumps(found.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()

    damaged = (
        damaged_json([[completion, usage], [chat, usage]], streamed)
        | damaged_json([completion], whole)
        | st.sampled_from(honest)
    )
    contents = st.lists(damaged, min_size=1, max_size=4)
    return Target(st.tuples(contents, st.sampled_from(("completions", "chat"))), read, ())


def vllm_environments() -> Target:
    """What the look through an environment with vLLM prints, up to what ``aiprof devices`` shows."""
    from profiler.backends.base import Device
    from profiler.cli.devices_view import print_vllm
    from profiler.engines.vllm_traps import environment_in
    from profiler.errors import UsageError

    found = {
        "python": "3.11.2",
        "vllm": "0.32.0+cpu",
        "torch": "2.9.0+cu128",
        "cpu_build": True,
        "traps": [
            {"code": "metadata", "text": "the wheel does not find its own version", "remedy": "nothing"},
            {"code": "preload", "text": "libtcmalloc is not preloaded", "remedy": "apt-get install it"},
        ],
    }
    bare: dict[str, Any] = {"python": "3.9.1", "vllm": None, "torch": None, "traps": []}
    boxes = (
        [Device("cpu-0123456789ab", "cpu", 0, "a CPU", None)],
        [Device("GPU-1", "cuda", 0, "an H100", None)],
    )

    def read(case: tuple[bytes, int]) -> None:
        text, box = case
        seen = environment_in(text.decode("utf-8", "replace"), "Traceback", "python3", boxes[box])
        json.dumps(asdict(seen), allow_nan=False, ensure_ascii=False).encode()
        with redirect_stdout(StringIO()) as shown:
            print_vllm(seen)
        shown.getvalue().encode()

    noise = b"WARNING: something was imported\n"
    texts = damaged_json([found, bare], lambda one: noise + as_json(one) + b"\n")
    return Target(st.tuples(texts, st.sampled_from((0, 1))), read, (UsageError,))
