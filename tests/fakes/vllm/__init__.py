"""A stand-in for vLLM at its Python interface: the classes that aiprof uses, with a scheduler and no model.

Deterministic: token ``k`` of a request is ``(sum of its prompt + k) mod vocabulary``. Prompts are prefilled
in pieces of ``max_num_batched_tokens`` per step, running requests first, as vLLM's own scheduler does it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams

__all__ = ["LLM", "RequestOutputKind", "SamplingParams"]
__version__ = "0.32.0+stand.in.cpu"


class LLM:
    """Takes the keyword arguments that aiprof gives; unknown ones are an error, as in vLLM."""

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        skip_tokenizer_init: bool,
        max_model_len: int,
        max_num_seqs: int,
        enable_prefix_caching: bool,
        disable_log_stats: bool,
        seed: int,
        enforce_eager: bool = False,
        max_num_batched_tokens: int | None = None,
        gpu_memory_utilization: float = 0.9,
        kv_cache_memory_bytes: int | None = None,
        load_format: str = "auto",
        speculative_config: dict[str, Any] | None = None,
    ) -> None:
        config = json.loads((Path(model) / "config.json").read_text())
        if load_format != "dummy" and not (Path(model) / "model.safetensors").exists():
            raise RuntimeError(f"Cannot find any model weights with `{model}`")
        width = {"float32": 4, "float16": 2, "bfloat16": 2}[dtype]
        per_token = (
            2 * width * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
        )
        blocks = int((kv_cache_memory_bytes or gpu_memory_utilization * 1e9) // (128 * per_token))
        if blocks * 128 < max_model_len:
            raise ValueError("No available memory for the cache blocks.")
        budget = max_num_batched_tokens or min(4096, max_num_seqs * max_model_len)
        quantised = config.get("quantization_config", {}).get("quant_method")
        guessed = 0 if speculative_config is None else speculative_config["num_speculative_tokens"]
        self.llm_engine = LLMEngine(config["vocab_size"], budget, guessed)
        self.llm_engine.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(
                quantization=quantised, enforce_eager=enforce_eager, max_model_len=max_model_len
            ),
            cache_config=SimpleNamespace(
                num_gpu_blocks=blocks, block_size=128, enable_prefix_caching=enable_prefix_caching
            ),
            scheduler_config=SimpleNamespace(max_num_batched_tokens=budget, max_num_seqs=max_num_seqs),
            parallel_config=SimpleNamespace(distributed_executor_backend="uni"),
            compilation_config=SimpleNamespace(compilation_time=0.0 if enforce_eager else 0.25),
        )


def _logprobs(request: Any) -> dict[int, Any]:
    """Those that were asked for: minus the sum of the prompt and the token, modulo 97."""
    wanted = request.params.logprob_token_ids or ()
    return {token: SimpleNamespace(logprob=-float((sum(request.ids) + token) % 97)) for token in wanted}


class LLMEngine:
    """Steps through requests; ``engine_core.shutdown`` ends it.

    Args:
        guessed: tokens that each decode step of a request guesses; half of them, rounded down, are right.
    """

    def __init__(self, vocabulary: int, budget: int, guessed: int) -> None:
        self.vocabulary, self.budget, self.guessed = vocabulary, budget, guessed
        self.counters = dict.fromkeys(("num_drafts", "num_draft_tokens", "num_accepted_tokens"), 0)
        self.requests: dict[str, Any] = {}
        self.vllm_config: Any = None
        self.model_executor: Any = None
        self.engine_core = SimpleNamespace(shutdown=self.requests.clear)

    def add_request(self, request_id: str, prompt: dict[str, Any], params: Any) -> None:
        metrics = SimpleNamespace(
            scheduled_ts=0.0,
            first_token_ts=0.0,
            last_token_ts=0.0,
            num_preemptions=0,
        )
        self.requests[request_id] = SimpleNamespace(
            ids=list(prompt["prompt_token_ids"]), done=0, given=0, params=params, metrics=metrics
        )

    def get_metrics(self) -> list[Any]:
        names = SimpleNamespace(name="vllm:num_preemptions", value=0)
        return [
            names,
            *(
                SimpleNamespace(name=f"vllm:spec_decode_{name}", value=count)
                for name, count in self.counters.items()
                if self.guessed
            ),
        ]

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def step(self) -> list[Any]:
        left, outputs, now = self.budget, [], time.monotonic()
        running = sorted(self.requests.items(), key=lambda item: item[1].done < len(item[1].ids))
        for name, request in running:
            prompt_left = len(request.ids) - request.done
            taken = min(left, prompt_left) if prompt_left else min(left, 1)
            if not taken:
                continue
            left -= taken
            request.metrics.scheduled_ts = request.metrics.scheduled_ts or now
            request.done += min(taken, prompt_left)
            if request.done < len(request.ids):
                continue
            first = (sum(request.ids) + request.given) % self.vocabulary
            tokens = [first]
            if self.guessed and request.given:
                right = min(self.guessed // 2, request.params.max_tokens - request.given - 1)
                tokens += [(first + further) % self.vocabulary for further in range(1, right + 1)]
                for name_of, count in zip(self.counters, (1, self.guessed, right), strict=True):
                    self.counters[name_of] += count
            request.given += len(tokens)
            request.metrics.first_token_ts = request.metrics.first_token_ts or time.monotonic()
            request.metrics.last_token_ts = time.monotonic()
            finished = request.given == request.params.max_tokens
            outputs.append(
                SimpleNamespace(
                    request_id=name,
                    finished=finished,
                    outputs=[SimpleNamespace(token_ids=tokens, logprobs=[_logprobs(request)])],
                    metrics=request.metrics,
                )
            )
            if finished:
                del self.requests[name]
        return outputs
