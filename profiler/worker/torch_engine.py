"""The torch engine: an own decoder in plain PyTorch on any device that PyTorch has.

Requests and results are those of docs/architecture.md.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import time
from typing import Any, Iterator

import torch

from . import host_memory, kernels, scoring, torch_devices, torch_probes, weights
from .captured import capture
from .decoder import Decoder
from .int8 import quantise, require_int8
from .parameters import Parameters
from .protocol import EngineError
from .slices import layer_slice
from .threads import cpu_quota, default_threads
from .torch_support import FAMILIES, FORMATS, INT8, OPTIONS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class TorchEngine:
    """Worker side of the torch engine; holds at most one model."""

    def __init__(self) -> None:
        self._model: Any = None
        self._parameters: Any = None
        self._steps: Any = None
        self._device: Any = torch.device("cpu")
        torch.set_num_threads(default_threads())

    def hello(self, request: dict[str, Any]) -> dict[str, Any]:
        """Name the engine and every device that PyTorch can use here."""
        devices, failures = torch_devices.list_devices()
        details = {
            "build": _build(),
            "families": list(FAMILIES),
            "formats": [*FORMATS, INT8],
            "failed_device_runtimes": failures,
        }
        engine = {"name": "torch", "version": torch.__version__, "details": details}
        return {"engine": engine, "devices": devices, "simulated": False}

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Allocate the model and its cache and fill the weights; all of it or nothing.

        Raises:
            EngineError: any kind; nothing stays loaded.
        """
        self.unload({})
        dtype = _dtype(request["formats"])
        device = torch_devices.require(request["device"])
        options = request.get("options") or {}
        _set_threads(options)
        architecture = request["architecture"]
        layers = layer_slice(architecture, options.get("layers"))
        asked = options.get("linear")
        quantised = request["formats"]["weight_format"] == INT8
        if quantised:
            require_int8(architecture, dtype, device)
        candidates = kernels.find_candidates(asked, dtype, device, _positive(request, "max_batch"))
        started = time.perf_counter()  # compiling is no part of loading
        source = weights.open_source(request["weights"], architecture)
        size = (_positive(request, "max_batch"), _positive(request, "max_tokens"))
        plan = Parameters(dtype, device, *size, planned=True)
        source.check(Decoder(architecture, plan, layers))
        packing = candidates.faults["packed"] is None and asked != "plain" and asked != "native"
        _require_memory(plan, device, plan.packing_bytes if packing else 0)
        torch_devices.reset_peak(device)
        with _computing(f"loading on {device}"):
            parameters = Parameters(dtype, device, *size)
            model = Decoder(architecture, parameters, layers)
            source.fill(model, dtype, device)
            torch_devices.synchronize(device)
            load_s = time.perf_counter() - started
            work = _work(request)
            if quantised:
                chosen, compile_s = quantise(parameters, work)
            else:
                chosen, compile_s = kernels.choose(model, parameters, asked, candidates, work)
            steps, captured, capture_s = capture(model, parameters, options.get("step"))
        self._model, self._parameters, self._device = model, parameters, device
        self._steps = steps
        spent = [seconds for seconds in (compile_s, capture_s) if seconds is not None]
        return {
            "weights_bytes": parameters.weights_bytes,
            "kv_cache_bytes": parameters.kv_cache_bytes,
            "load_s": load_s,
            "compile_s": sum(spent) if spent else None,
            "details": {
                **model.details,
                "slice": None if layers is None else {"layers": layers, "of": architecture["layers"]},
                **chosen,
                **captured,
                "threads": torch.get_num_threads(),
                "cpu_quota_cpus": cpu_quota(),
                "dtype": request["formats"]["weight_format"],
                "torch": _build(),
                **source.details,
            },
            "weight_copies_bytes": parameters.weight_copies_bytes,
        }

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prefill the prompts and decode greedily, exactly ``output_tokens`` each.

        On the CPU every step is stamped. Elsewhere the host waits for the device twice: when the
        first tokens have reached the host, and when the last ones have.

        Raises:
            EngineError: ``bad_request``, ``out_of_memory``.
        """
        model, device = self._loaded(), self._device
        prompts, wanted = request["prompt_ids"], _positive(request, "output_tokens")
        _check_prompts(prompts, wanted, model.vocab_size, self._parameters)
        length = len(prompts[0])
        stamps = []
        with _computing(f"{len(prompts)} x {length} tokens on {device}"):
            torch_devices.synchronize(device)
            submit_ns = time.monotonic_ns()
            token = model.step(torch.tensor(prompts, dtype=torch.int64).to(device), 0)
            tokens = [token]
            token.cpu()
            stamps.append(time.monotonic_ns())
            captured = self._steps is not None and len(prompts) == self._steps.batch
            if captured and wanted > 1:
                tokens.append(self._steps.run(token, length, wanted - 1))
            for position in range(length, length if captured else length + wanted - 1):
                token = model.step(token, position)
                tokens.append(token)
                if device.type == "cpu":
                    stamps.append(time.monotonic_ns())
            output = torch.cat(tokens, 1).cpu()
            last_ns = stamps[-1] if device.type == "cpu" else time.monotonic_ns()
        ids = output.tolist()
        result = {
            "submit_ns": submit_ns,
            "first_token_ns": stamps[0],
            "last_token_ns": last_ns if wanted > 1 else stamps[0],
            "step_ns": stamps if device.type == "cpu" else None,
            "output_sha256": hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest(),
        }
        if request.get("return_ids"):
            result["output_ids"] = ids
        return result

    def score(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return logits along given or greedy tokens, by the same steps as :meth:`run`; see :mod:`scoring`.

        Raises:
            EngineError: ``bad_request``, ``out_of_memory``.
        """
        model, prompts, steps = self._loaded(), request["prompt_ids"], _positive(request, "output_tokens")
        _check_prompts(prompts, steps, model.vocab_size, self._parameters)
        with _computing("scoring %d tokens on %s" % (steps, self._device)):
            return scoring.score(model, request, self._device)

    def probe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Measure what the request's ``kind`` names; see :mod:`torch_probes`.

        Raises:
            EngineError: ``unsupported`` for another kind, ``bad_request``, ``device``, ``out_of_memory``.
        """
        device = torch_devices.require(request["device"])
        try:
            with _computing(f"the probe {request['kind']} on {device}"):
                return torch_probes.measure(device, request)
        finally:
            torch_devices.release_cached(device)

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return peaks since ``load`` and what the device of the loaded model has left."""
        peak, reason = torch_devices.engine_peak_bytes(self._device)
        total, free, source = torch_devices.memory_bytes(self._device)
        return {
            "engine_peak_bytes": peak,
            "engine_peak_reason": reason,
            **host_memory.of_this_process(),
            "device_total_bytes": total,
            "device_free_bytes": free,
            "device_source": source,
        }

    def unload(self, request: dict[str, Any]) -> dict[str, Any]:
        """Free the model, if there is one."""
        self._model = self._parameters = self._steps = None
        gc.collect()
        torch_devices.release_cached(self._device)
        return {}

    def _loaded(self) -> Any:
        if self._model is None:
            raise EngineError("bad_request", "run before load")
        return self._model


def _dtype(formats: dict[str, str]) -> Any:
    """Return the one dtype of computation and cache, and of weights that are not quantised."""
    fields = ["compute_dtype", "kv_dtype"]
    if formats["weight_format"] != INT8:
        fields.append("weight_format")
    names = {formats[field] for field in fields}
    if len(names) > 1 or not names <= set(DTYPES):
        raise EngineError(
            "unsupported",
            f"the torch engine runs weights, computation and cache in {', '.join(FORMATS)}, "
            f"or weights in {INT8}, not as {formats}",
        )
    return DTYPES[names.pop()]


def _set_threads(options: dict[str, Any]) -> None:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        known = ", ".join(OPTIONS)
        raise EngineError("bad_request", f"the torch engine has no option {', '.join(unknown)}, only {known}")
    threads = options.get("threads")
    torch.set_num_threads(default_threads() if threads is None else _positive(options, "threads"))


def _work(request: dict[str, Any]) -> kernels.Work:
    """Return what a trial will ask; where the request does not say, a short prompt and many steps."""
    tokens = request["max_tokens"]
    steps = request.get("output_tokens", tokens // 2) - 1
    return kernels.Work(request["max_batch"], request.get("prompt_tokens", tokens - steps - 1), steps)


def _positive(request: dict[str, Any], field: str) -> int:
    value = request.get(field)
    if type(value) is not int or value < 1:
        raise EngineError("bad_request", f"{field} must be a whole number above 0, not {value!r}")
    return value


def _check_prompts(prompts: Any, output_tokens: int, vocabulary: int, room: Parameters) -> None:
    """Refuse what would read outside the cache or the embedding."""
    lengths = {len(prompt) for prompt in prompts}
    if len(lengths) != 1 or 0 in lengths:
        raise EngineError("bad_request", "prompt_ids must be equally long lists with at least one id each")
    if len(prompts) > room.max_batch or len(prompts[0]) + output_tokens > room.max_tokens:
        raise EngineError(
            "bad_request",
            f"{len(prompts)} x ({len(prompts[0])} + {output_tokens}) tokens do not fit what was loaded: "
            f"max_batch {room.max_batch}, max_tokens {room.max_tokens}",
        )
    if not all(type(token) is int and 0 <= token < vocabulary for prompt in prompts for token in prompt):
        raise EngineError(
            "bad_request", f"a token id is no whole number or outside the vocabulary of {vocabulary}"
        )


def _require_memory(plan: Parameters, device: Any, packing_bytes: int) -> None:
    """Refuse a model that cannot fit before anything is allocated."""
    _, free, source = torch_devices.memory_bytes(device)
    needed = plan.weights_bytes + packing_bytes + plan.kv_cache_bytes
    if free is not None and needed > free:
        raise EngineError(
            "out_of_memory",
            f"{plan.weights_bytes} bytes of weights, {packing_bytes} to pack them and {plan.kv_cache_bytes} "
            f"of KV cache are {needed - free} more than the {free} free on {device} ({source})",
        )


@contextlib.contextmanager
def _computing(doing: str) -> Iterator[None]:
    """Compute in inference mode, and turn each way in which PyTorch says "no memory" into an EngineError."""
    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        known = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
        words = ("out of memory", "can't allocate memory", "not enough memory")
        if not isinstance(error, known) and not any(word in str(error).lower() for word in words):
            raise
        reason = str(error).splitlines()[0]
    else:
        return
    # Outside the except block, so that the error's traceback holds no tensors any more.
    gc.collect()
    raise EngineError("out_of_memory", f"{doing}: {reason}")


def _build() -> str:
    """Return one line on which PyTorch this is and what its kernels were built for."""
    parts = [f"torch {torch.__version__}"]
    for name, version in (("CUDA", torch.version.cuda), ("ROCm", torch.version.hip)):
        if version:
            parts.append(f"{name} {version}")
    capability = getattr(torch.backends.cpu, "get_cpu_capability", None)
    if capability is not None:
        parts.append(f"CPU kernels {capability()}")
    parts.append(f"oneDNN {'on' if torch.backends.mkldnn.is_available() else 'off'}")
    return ", ".join(parts)
