"""The llamacpp engine: llama.cpp through the low-level functions of ``llama-cpp-python``.

Requests and results are those of docs/architecture.md. What is timed is what ``llama-bench`` times: calls
of ``llama_decode`` up to the end of ``llama_synchronize``, and by default also choosing the next token,
which a served model has to do and ``llama-bench`` leaves out (option ``sampling=none`` leaves it out, too).
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from typing import Any, Dict, List, Optional

import llama_cpp
import numpy as np

from . import gguf_files, host_memory, llamacpp_log, numpy_bandwidth
from .llamacpp_model import LoadedModel
from .llamacpp_support import CHOICES, COUNTS, FAMILIES, FORMATS, N_UBATCH, OPTIONS
from .protocol import EngineError
from .threads import cpu_quota, default_threads


class LlamaCppEngine:
    """Worker side of the llamacpp engine; holds at most one model."""

    def __init__(self) -> None:
        self._log = llamacpp_log.Log()
        llama_cpp.llama_backend_init()
        self._model: Optional[LoadedModel] = None
        self._sampling = "greedy"

    def hello(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Name the engine; it computes on the CPU, and on accelerators its build was made for."""
        system = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
        details = {
            "build": " ".join(system.split())[:400],
            "families": list(FAMILIES),
            "formats": list(FORMATS),
            "gpu_offload": bool(llama_cpp.llama_supports_gpu_offload()),
        }
        engine = {"name": "llamacpp", "version": llama_cpp.__version__, "details": details}
        devices = [{"device": "cpu", "name": "CPU", "uuid": None, "pci_address": None}]
        return {"engine": engine, "devices": devices, "simulated": False}

    def load(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Write or find the GGUF file, load it and allocate the cache.

        Raises:
            EngineError: any kind; nothing stays loaded.
        """
        self.unload({})
        if request["device"] != "cpu":
            raise EngineError("device", f"the llamacpp engine runs on the CPU, not on {request['device']}")
        options = _options(request.get("options") or {}, request["formats"]["kv_dtype"])
        batch, tokens = _positive(request, "max_batch"), _positive(request, "max_tokens")
        prepared = time.perf_counter()
        path, weights = gguf_files.find(request)
        began = time.perf_counter()
        self._log.clear()
        model = LoadedModel(path, request["formats"]["kv_dtype"], batch, tokens, options, self._log)
        loaded = time.perf_counter()
        self._model, self._sampling = model, options["sampling"]
        return {
            "weights_bytes": model.weights_bytes,
            "kv_cache_bytes": model.cache_tokens * _kv_token_bytes(request),
            # More than the case needs: llama.cpp rounds the context of a sequence up.
            "kv_cache_tokens": model.cache_tokens,
            "load_s": loaded - began,
            "compile_s": None,
            "details": {
                "weights": weights,
                "prepare_checkpoint_s": began - prepared,
                "description": model.description,
                "sampling": _SAMPLING_WORDS[self._sampling],
                "threads": options["threads"],
                "cpu_quota_cpus": cpu_quota(),
                "n_batch": options["n_batch"],
                "n_ubatch": options["n_ubatch"],
                "n_gpu_layers": 0,
                "flash_attention": options["flash_attention"],
                "mmap": options["mmap"],
                "mlock": options["mlock"],
                "kv_type": request["formats"]["kv_dtype"],
                "buffers": self._log.buffers(),
            },
        }

    def run(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Prefill the prompts together and decode exactly ``output_tokens`` each.

        Raises:
            EngineError: ``bad_request``, ``out_of_memory``.
        """
        model = self._loaded("run")
        prompts, wanted = request["prompt_ids"], _positive(request, "output_tokens")
        _check(model, prompts, wanted)
        model.clear()
        length = len(prompts[0])
        model.fill([(token, at, row, at == length - 1)
                    for row, prompt in enumerate(prompts) for at, token in enumerate(prompt)])  # fmt: skip
        submit_ns = time.monotonic_ns()
        tokens = model.decode(self._next)
        stamps, chosen = [time.monotonic_ns()], [tokens]
        for position in range(length, length + wanted - 1):
            model.fill([(token, position, row, True) for row, token in enumerate(tokens)])
            tokens = model.decode(self._next)
            chosen.append(tokens)
            stamps.append(time.monotonic_ns())
        ids = np.array(chosen).T.tolist()
        result = {
            "submit_ns": submit_ns,
            "first_token_ns": stamps[0],
            "last_token_ns": stamps[-1],
            "step_ns": stamps,
            "output_sha256": hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest(),
        }
        if request.get("return_ids"):
            result["output_ids"] = ids
        return result

    def score(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Return logits along given or greedy tokens; see :func:`scoring.score` for request and result."""
        model = self._loaded("score")
        prompts, steps = request["prompt_ids"], request["output_tokens"]
        _check(model, prompts, steps)
        model.clear()
        result: Dict[str, Any] = {name: [[] for _ in prompts] for name in _SCORES}
        ahead = [list(prompt) for prompt in prompts]
        position = 0
        for step in range(steps):
            width = len(ahead[0])
            model.fill([(token, position + at, row, at == width - 1)
                        for row, tokens in enumerate(ahead) for at, token in enumerate(tokens)])  # fmt: skip
            logits = model.decode(lambda place: model.logits(place).copy())
            position += width
            for row, forced in enumerate(request["forced_ids"]):
                found = logits[row]
                wanted = request.get("score_ids")
                picked = _highest(found, request["top"]) if wanted is None else wanted[row][step]
                chosen = int(found.argmax())
                values = (chosen, list(picked), found[picked].tolist(), _log_sum_exp(found))
                for at, name in enumerate(_SCORES):
                    result[name][row].append(values[at])
                if step + 1 < steps:
                    ahead[row] = [chosen if forced is None else forced[step]]
        return result

    def _next(self, place: int) -> int:
        """Return the next token of a sequence, from the logits at this place of the batch."""
        model = self._loaded("run")
        if self._sampling == "none":  # as llama-bench: any token, without a look at the logits
            return random.randrange(model.vocabulary)
        return int(model.logits(place).argmax())

    def probe(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Measure the read bandwidth of the CPU.

        Raises:
            EngineError: ``unsupported`` for another kind of probe.
        """
        if request["kind"] != "read_bandwidth":
            raise EngineError("unsupported", f"the llamacpp engine has no probe {request['kind']}")
        return numpy_bandwidth.read_bandwidth(request["bytes"], request["repeats"], default_threads())

    def memory(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Return what this process holds; llama.cpp keeps no peak of its own."""
        free, source = host_memory.available_bytes()
        return {
            "engine_peak_bytes": None,
            "engine_peak_reason": "llama.cpp does not report its peak",
            **host_memory.of_this_process(),
            "device_total_bytes": host_memory.status_bytes("MemTotal", "/proc/meminfo"),
            "device_free_bytes": free,
            "device_source": source,
        }

    def unload(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Free the model, if there is one."""
        if self._model is not None:
            self._model.close()
        self._model = None
        return {}

    def _loaded(self, op: str) -> LoadedModel:
        if self._model is None:
            raise EngineError("bad_request", f"{op} before load")
        return self._model


_SCORES = ("tokens", "ids", "logits", "log_sum_exp")


def _check(model: LoadedModel, prompts: Any, wanted: int) -> None:
    """Refuse what does not fit what was loaded."""
    lengths = {len(prompt) for prompt in prompts}
    if len(lengths) != 1 or 0 in lengths:
        raise EngineError("bad_request", "prompt_ids must be equally long lists with at least one id")
    if len(prompts) > model.max_batch or len(prompts[0]) + wanted > model.max_tokens:
        raise EngineError(
            "bad_request",
            f"{len(prompts)} x ({len(prompts[0])} + {wanted}) tokens do not fit what was loaded: "
            f"max_batch {model.max_batch}, max_tokens {model.max_tokens}",
        )
    if not all(type(token) is int and 0 <= token < model.vocabulary for p in prompts for token in p):
        raise EngineError("bad_request", f"a token id is outside the vocabulary of {model.vocabulary}")


def _highest(logits: Any, count: int) -> List[int]:
    places: List[int] = np.argsort(-logits)[:count].tolist()
    return places


def _log_sum_exp(logits: Any) -> float:
    highest = float(logits.max())
    return highest + float(np.log(np.exp(logits.astype(np.float64) - highest).sum()))


# (numbers, bytes) of a block; plain formats have blocks of one number.
_KV_BLOCKS = {"fp32": (1, 4), "fp16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}
_SAMPLING_WORDS = {
    "greedy": "greedy, timed with the step",
    "none": "none: random next tokens, as llama-bench times it",
}


def _options(given: Dict[str, Any], kv_dtype: str) -> Dict[str, Any]:
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise EngineError("bad_request", f"the llamacpp engine has no option {', '.join(unknown)}")
    options = {
        "threads": default_threads(),
        "sampling": "greedy",
        "n_batch": None,  # as much as the case needs
        "n_ubatch": N_UBATCH,
        "kv_dtype": kv_dtype,
        "mmap": "on",
        "mlock": "off",
        # The fused kernel computes in half precision, which is not what an fp32 case asks for.
        "flash_attention": "off" if kv_dtype == "fp32" else "auto",
    }
    options.update(given)
    for name, known in CHOICES.items():
        if options[name] not in known:
            raise EngineError("bad_request", f"option {name} must be one of {', '.join(known)}")
    for name in COUNTS:
        if options[name] is not None:
            _positive(options, name)
    if options["kv_dtype"] != kv_dtype:
        raise EngineError("bad_request", f"kv_dtype {options['kv_dtype']} is not the case's, {kv_dtype}")
    return options


def _positive(request: Dict[str, Any], field: str) -> int:
    value = request.get(field)
    if type(value) is not int or value < 1:
        raise EngineError("bad_request", f"{field} must be a whole number above 0, not {value!r}")
    return value


def _kv_token_bytes(request: Dict[str, Any]) -> int:
    """Bytes of keys and values of one token; what llama.cpp logs of its cache is rounded to 10 KiB."""
    arch = request["architecture"]
    block, size = _KV_BLOCKS[request["formats"]["kv_dtype"]]
    return int(-(-2 * arch["layers"] * arch["kv_heads"] * arch["head_dim"] * size // block))
