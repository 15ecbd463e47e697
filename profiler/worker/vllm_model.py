"""What vLLM is told when it loads a model."""

from __future__ import annotations

import math
import os
from typing import Any, Dict, Tuple

from . import hf_checkpoint, vllm_speculation
from .checkpoint_layout import tensors
from .protocol import EngineError
from .vllm_devices import Parallel
from .vllm_support import DTYPES, OPTIONS, PLAIN, QUANTISED

_CPU_BLOCK = 128  # tokens; vLLM's own on CPUs
_SPARE_BLOCKS = 2  # one is never given out
_WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4}


class Plan:
    """How a ``load`` request becomes arguments of vLLM's ``LLM``.

    Attributes:
        dummy: whether vLLM makes up the weights.
        kv_token_bytes: bytes of keys and values of one token.
        fills_memory: whether vLLM takes a share of the device's memory for its cache, whatever
            the case needs.
        speculates: whether tokens are guessed ahead.
    """

    def __init__(self, request: Dict[str, Any]) -> None:
        self.options = _options(request.get("options") or {})
        self.formats = request["formats"]
        self.batch, self.tokens = _positive(request, "max_batch"), _positive(request, "max_tokens")
        self._architecture = request["architecture"]
        self.vocabulary = self._architecture["vocab_size"]
        self.dummy = self.options.get("load_format") == "dummy"
        self.kv_token_bytes = kv_token_bytes(request["architecture"], self.formats["kv_dtype"])
        # On a CPU, whose memory others need too, the cache has room for the case unless a share is asked for.
        self.fills_memory = request["device"] != "cpu" or "gpu_memory_utilization" in self.options
        self._real = request["weights"].get("kind") == "folder"
        self.parallel = Parallel(request.get("parallel"))
        self.speculates = "speculative" in self.options
        if self.speculates and not self._real:
            raise EngineError(
                "unsupported",
                "speculative decoding with random weights accepts nothing that means anything: give --model "
                "a folder of real weights",
            )
        if self.dummy and request["weights"].get("kind") != "random":
            raise EngineError("unsupported", "load_format=dummy takes the place of random weights only")
        weight_format = self.formats["weight_format"]
        if weight_format not in PLAIN and not (weight_format in QUANTISED and self._real):
            raise EngineError(
                "unsupported",
                "the vllm engine has random weights in %s; %s comes with real weights only (--model FOLDER)"
                % (", ".join(PLAIN), weight_format),
            )

    def checkpoint(self, request: Dict[str, Any]) -> Tuple[str, str]:
        """Return (folder, words for the record)."""
        return hf_checkpoint.find(request, without_weights=self.dummy)

    def stored_bytes(self, folder: str) -> int:
        """Return the bytes of the checkpoint: of its files, or of the tensors that written ones have."""
        if self._real:
            files = (entry for entry in os.scandir(folder) if entry.name.endswith(".safetensors"))
            return sum(entry.stat().st_size for entry in files)
        width = _WIDTHS[self.formats["weight_format"]]
        return sum(width * math.prod(shape) for _, shape in tensors(self._architecture))

    def arguments(self, device_type: str) -> Dict[str, Any]:
        """Return the keyword arguments of ``LLM`` but the model."""
        own = ("threads", *vllm_speculation.OPTIONS)  # not passed on under their own names
        given = {key: value for key, value in self.options.items() if key not in own}
        arguments: Dict[str, Any] = {
            "dtype": DTYPES[self.formats["kv_dtype"]],
            "skip_tokenizer_init": True,
            "max_model_len": self.tokens,
            "max_num_seqs": self.batch,
            "enable_prefix_caching": False,
            "disable_log_stats": False,
            "seed": 0,
        }
        if device_type == "cpu":
            # Compiling takes a minute at every start there, for a gain of about a seventh. Pipelines want it:
            # the tensors that stages hand on are made by a warm-up which vLLM 0.32 leaves out without it.
            arguments["enforce_eager"] = self.parallel.pp == 1
        arguments.update(given)
        arguments.update(self.parallel.arguments())
        if self.speculates:
            arguments["speculative_config"] = vllm_speculation.config(self.options)
        if not self.fills_memory:
            longest, layers = arguments["max_model_len"], self._architecture["layers"]
            extra = 0
            if self.speculates:
                longest += vllm_speculation.tokens(self.options)
                extra = vllm_speculation.cache_layers(self.options, layers)
            blocks = self.batch * -(-longest // _CPU_BLOCK) + _SPARE_BLOCKS
            token_bytes = self.kv_token_bytes * (layers + extra) // layers
            arguments["kv_cache_memory_bytes"] = blocks * _CPU_BLOCK * token_bytes
        return arguments

    def check(self, prompts: Any, wanted: Any) -> None:
        """Refuse what does not fit what was loaded.

        Raises:
            EngineError: ``bad_request``.
        """
        if type(wanted) is not int or wanted < 1:
            raise EngineError(
                "bad_request", "output_tokens must be a whole number above 0, not %r" % (wanted,)
            )
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) != 1 or 0 in lengths:
            raise EngineError("bad_request", "prompt_ids must be equally long lists with at least one id")
        if len(prompts) > self.batch or len(prompts[0]) + wanted > self.tokens:
            raise EngineError(
                "bad_request",
                "%d x (%d + %d) tokens do not fit what was loaded: max_batch %d, max_tokens %d"
                % (len(prompts), len(prompts[0]), wanted, self.batch, self.tokens),
            )
        if not all(type(token) is int and 0 <= token < self.vocabulary for p in prompts for token in p):
            raise EngineError("bad_request", "a token id is outside the vocabulary of %d" % self.vocabulary)


def plan(request: Dict[str, Any]) -> Plan:
    """Return what a ``load`` request asks for.

    Raises:
        EngineError: ``bad_request``, ``unsupported``.
    """
    return Plan(request)


def sampling(vllm: Any, tokens: int) -> Any:
    """Return greedy ``SamplingParams`` for exactly so many tokens, without text, given out as they come."""
    from vllm.sampling_params import RequestOutputKind

    return vllm.SamplingParams(
        temperature=0.0,
        ignore_eos=True,
        min_tokens=tokens,
        max_tokens=tokens,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def kv_token_bytes(architecture: Dict[str, Any], kv_dtype: str) -> int:
    """Return the bytes of what the cache holds of one token."""
    width, latent = _WIDTHS[kv_dtype], architecture["latent_attention"]
    if latent is not None:
        values = latent["kv_rank"] + latent["rope_head_dim"]
    else:
        values = 2 * architecture["kv_heads"] * architecture["head_dim"]
    return int(architecture["layers"] * values * width)


def _options(given: Dict[str, Any]) -> Dict[str, Any]:
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise EngineError("bad_request", "the vllm engine has no option %s" % ", ".join(unknown))
    return dict(given)


def _positive(request: Dict[str, Any], field: str) -> int:
    value = request.get(field)
    if type(value) is not int or value < 1:
        raise EngineError("bad_request", "%s must be a whole number above 0, not %r" % (field, value))
    return value
