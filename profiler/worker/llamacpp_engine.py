"""The llamacpp engine: llama.cpp through the low-level functions of ``llama-cpp-python``.

Requests and results are those of docs/architecture.md. What is timed is what ``llama-bench`` times: calls
of ``llama_decode`` up to the end of ``llama_synchronize``, and by default also choosing the next token,
which a served model has to do and ``llama-bench`` leaves out (option ``sampling=none`` leaves it out, too).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
import time
from typing import Any, Dict, List

import llama_cpp
import numpy as np

from . import gguf_files, host_memory, llamacpp_log, numpy_bandwidth
from .llamacpp_support import FAMILIES, FLASH_ATTENTION, FORMATS, N_UBATCH, OPTIONS, SAMPLING
from .protocol import EngineError
from .threads import cpu_quota, default_threads

# ggml_type of what the cache can hold (ggml.h).
_KV_TYPES = {"fp32": 0, "fp16": 1, "bf16": 30}
_FLASH = {"auto": -1, "off": 0, "on": 1}


class LlamaCppEngine:
    """Worker side of the llamacpp engine; holds at most one model."""

    def __init__(self) -> None:
        self._log = llamacpp_log.Log()
        llama_cpp.llama_backend_init()
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        self._size = (0, 0)
        self._vocabulary = 0
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
        try:
            self._open(path, request["formats"]["kv_dtype"], batch, tokens, options)
        except EngineError:
            self.unload({})
            raise
        loaded = time.perf_counter()
        self._size, self._sampling = (batch, tokens), options["sampling"]
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)
        return {
            "weights_bytes": int(llama_cpp.llama_model_size(self._model)),
            "kv_cache_bytes": llama_cpp.llama_n_ctx(self._context) * _kv_token_bytes(request),
            "load_s": loaded - began,
            "compile_s": None,
            "details": {
                "weights": weights,
                "prepare_checkpoint_s": began - prepared,
                "description": _description(self._model),
                "sampling": _SAMPLING_WORDS[self._sampling],
                "threads": options["threads"],
                "cpu_quota_cpus": cpu_quota(),
                "n_ubatch": options["n_ubatch"],
                "flash_attention": options["flash_attention"],
                "kv_type": request["formats"]["kv_dtype"],
                "buffers": self._log.buffers(),
            },
        }

    def _open(self, path: str, kv_dtype: str, batch: int, tokens: int, options: Dict[str, Any]) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self._model:
            raise EngineError("weights", f"llama.cpp does not load the file: {self._log.error()}")
        settings = llama_cpp.llama_context_default_params()
        # One stretch of cache per sequence, rounded up by llama.cpp itself.
        settings.n_ctx = batch * _rounded(tokens)
        settings.n_seq_max = batch
        settings.n_batch = batch * tokens
        settings.n_ubatch = options["n_ubatch"]
        settings.n_threads = settings.n_threads_batch = options["threads"]
        settings.type_k = settings.type_v = _KV_TYPES[kv_dtype]
        settings.flash_attn_type = _FLASH[options["flash_attention"]]
        settings.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise EngineError("out_of_memory", f"llama.cpp gives no context: {self._log.error()}")
        self._batch = llama_cpp.llama_batch_init(batch * tokens, 0, 1)

    def run(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Prefill the prompts together and decode exactly ``output_tokens`` each.

        Raises:
            EngineError: ``bad_request``, ``out_of_memory``.
        """
        if self._context is None:
            raise EngineError("bad_request", "run before load")
        prompts, wanted = request["prompt_ids"], _positive(request, "output_tokens")
        self._check(prompts, wanted)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        length, count = len(prompts[0]), len(prompts)
        self._fill([(token, at, row, at == length - 1)
                    for row, prompt in enumerate(prompts) for at, token in enumerate(prompt)])  # fmt: skip
        submit_ns = time.monotonic_ns()
        self._decode()
        tokens = self._next([row * length + length - 1 for row in range(count)])
        stamps, chosen = [time.monotonic_ns()], [tokens]
        for position in range(length, length + wanted - 1):
            self._fill([(token, position, row, True) for row, token in enumerate(tokens)])
            self._decode()
            tokens = self._next(range(count))
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
        if self._context is None:
            raise EngineError("bad_request", "score before load")
        prompts, steps = request["prompt_ids"], request["output_tokens"]
        self._check(prompts, steps)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        result: Dict[str, Any] = {name: [[] for _ in prompts] for name in _SCORES}
        ahead = [list(prompt) for prompt in prompts]
        position = 0
        for step in range(steps):
            width = len(ahead[0])
            self._fill([(token, position + at, row, at == width - 1)
                        for row, tokens in enumerate(ahead) for at, token in enumerate(tokens)])  # fmt: skip
            self._decode()
            position += width
            for row, forced in enumerate(request["forced_ids"]):
                found = self._logits(row * width + width - 1)
                wanted = request.get("score_ids")
                picked = _highest(found, request["top"]) if wanted is None else wanted[row][step]
                chosen = int(found.argmax())
                values = (chosen, list(picked), found[picked].tolist(), _log_sum_exp(found))
                for at, name in enumerate(_SCORES):
                    result[name][row].append(values[at])
                if step + 1 < steps:
                    ahead[row] = [chosen if forced is None else forced[step]]
        return result

    def _fill(self, rows: List[Any]) -> None:
        """Put (token, position, sequence, whether logits are wanted) into the batch."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for at, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[at] = token
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = wanted

    def _decode(self) -> None:
        answer = llama_cpp.llama_decode(self._context, self._batch)
        if answer != 0:
            kind = "out_of_memory" if answer in (1, -2) else "internal"
            raise EngineError(kind, f"llama_decode answered {answer}: {self._log.error()}")
        llama_cpp.llama_synchronize(self._context)

    def _next(self, places: Any) -> List[int]:
        """Return the next token of each sequence, from the logits at these places of the batch."""
        if self._sampling == "none":  # as llama-bench: any token, without a look at the logits
            return [random.randrange(self._vocabulary) for _ in places]
        return [int(self._logits(place).argmax()) for place in places]

    def _logits(self, place: int) -> Any:
        pointer = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(pointer, (self._vocabulary,))

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
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._model = self._context = self._batch = None
        return {}

    def _check(self, prompts: Any, wanted: int) -> None:
        """Refuse what does not fit what was loaded."""
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) != 1 or 0 in lengths:
            raise EngineError("bad_request", "prompt_ids must be equally long lists with at least one id")
        if len(prompts) > self._size[0] or len(prompts[0]) + wanted > self._size[1]:
            raise EngineError(
                "bad_request",
                f"{len(prompts)} x ({len(prompts[0])} + {wanted}) tokens do not fit what was loaded: "
                f"max_batch {self._size[0]}, max_tokens {self._size[1]}",
            )
        if not all(type(token) is int and 0 <= token < self._vocabulary for p in prompts for token in p):
            raise EngineError("bad_request", f"a token id is outside the vocabulary of {self._vocabulary}")


_SCORES = ("tokens", "ids", "logits", "log_sum_exp")


def _highest(logits: Any, count: int) -> List[int]:
    places: List[int] = np.argsort(-logits)[:count].tolist()
    return places


def _log_sum_exp(logits: Any) -> float:
    highest = float(logits.max())
    return highest + float(np.log(np.exp(logits.astype(np.float64) - highest).sum()))


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
        "n_ubatch": N_UBATCH,
        # The fused kernel computes in half precision, which is not what an fp32 case asks for.
        "flash_attention": "off" if kv_dtype == "fp32" else "auto",
    }
    options.update(given)
    for name, known in (("sampling", SAMPLING), ("flash_attention", FLASH_ATTENTION)):
        if options[name] not in known:
            raise EngineError("bad_request", f"option {name} must be one of {', '.join(known)}")
    for name in ("threads", "n_ubatch"):
        _positive(options, name)
    return options


def _positive(request: Dict[str, Any], field: str) -> int:
    value = request.get(field)
    if type(value) is not int or value < 1:
        raise EngineError("bad_request", f"{field} must be a whole number above 0, not {value!r}")
    return value


def _kv_token_bytes(request: Dict[str, Any]) -> int:
    """Bytes of keys and values of one token; what llama.cpp logs of its cache is rounded to 10 KiB."""
    arch, width = request["architecture"], {"fp32": 4, "fp16": 2, "bf16": 2}[request["formats"]["kv_dtype"]]
    return int(2 * arch["layers"] * arch["kv_heads"] * arch["head_dim"] * width)


def _rounded(tokens: int) -> int:
    """llama.cpp pads the cache of a sequence to 256 tokens."""
    return -(-tokens // 256) * 256


def _description(model: Any) -> str:
    text = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(model, text, len(text))
    return text.value.decode("utf-8", "replace")
