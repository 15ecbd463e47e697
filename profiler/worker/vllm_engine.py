"""The vllm engine: offline cases through vLLM's ``LLMEngine`` in this process.

Requests and results are those of docs/architecture.md. The engine core runs in the worker itself, so that
all requests of a batch are queued before its first step and every step can be stamped on the host. Over
the process border that vLLM uses by default the first step takes as many requests as have arrived.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import time
from typing import Any, Dict, List, Optional, Tuple

from . import (
    host_memory,
    vllm_devices,
    vllm_environment,
    vllm_model,
    vllm_scores,
    vllm_seen,
    vllm_server,
    vllm_speculation,
    vllm_steps,
)
from .protocol import EngineError
from .threads import default_threads

_NO_MEMORY = (
    "out of memory",
    "no available memory",
    "is less than desired",
    "available kv cache memory",
    "can't allocate memory",
)


class VllmEngine:
    """Worker side of the vllm engine; holds at most one model."""

    def __init__(self) -> None:
        self._vllm: Any = None
        self._devices: Any = None
        self._probes: Any = None
        self._environment: Dict[str, Any] = {}
        self._llm: Any = None
        self._plan: Any = None
        self._device: Any = None
        self._visible: Optional[Tuple[str, ...]] = None
        self._runs = 0

    def hello(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Import vLLM, and name the engine, its build, and the devices that its PyTorch has.

        Raises:
            EngineError: ``unsupported``, when vLLM cannot be imported.
        """
        threads = (request.get("options") or {}).get("threads") or default_threads()
        self._environment = vllm_environment.prepare(threads, in_process=True)
        try:
            self._vllm = importlib.import_module("vllm")
        except Exception as error:  # builds that do not fit each other fail in any way
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EngineError(
                "unsupported",
                "vLLM cannot be imported: %s: %s; name an interpreter that has it with --python "
                "(`make vllm-cpu` builds one for CPUs)" % (type(error).__name__, reason),
            ) from error
        from . import torch_devices, torch_probes  # after vLLM's own settings for PyTorch

        self._devices, self._probes = torch_devices, torch_probes
        self._device = torch_devices.require("cpu")
        devices, failures = vllm_devices.list_devices(torch_devices)
        details = {
            "build": vllm_environment.installed_version() or "unknown",
            "platform": vllm_devices.platform_name(),
            "failed_device_runtimes": failures,
            **self._environment,
        }
        engine = {"name": "vllm", "version": str(self._vllm.__version__), "details": details}
        return {"engine": engine, "devices": devices, "simulated": False}

    def load(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Write or find the checkpoint, and start vLLM's engine with it.

        Raises:
            EngineError: any kind; nothing stays loaded.
        """
        self.unload({})
        plan = vllm_model.plan(request)
        if plan.parallel.dp > 1:
            raise EngineError(
                "unsupported",
                "vLLM replicates a model (--dp) only in a server: give --concurrency, or --engine-option "
                "mode=online",
            )
        devices = request.get("devices", [request["device"]])
        self._become(*devices)
        if plan.parallel.devices > 1:
            os.environ.update(vllm_server.environment(plan, devices))  # for the processes of its ranks
        prepared = time.perf_counter()
        folder, weights = plan.checkpoint(request)
        began = time.perf_counter()
        if self._device.type != "cpu":
            self._devices.reset_peak(self._device)
        try:
            self._llm = self._vllm.LLM(model=folder, **plan.arguments(self._device.type))
            seen = vllm_seen.Seen(self._llm, plan)
            seen.check()
        except Exception as error:
            self.unload({})
            raise _as_engine_error(error) from error
        seconds, compile_s = time.perf_counter() - began, seen.compile_s()
        self._plan = plan
        answer = {
            "weights_bytes": seen.weights_bytes(folder),
            "kv_cache_bytes": seen.kv_tokens() * plan.kv_token_bytes,
            "kv_cache_tokens": seen.kv_tokens(),
            "load_s": seconds - (compile_s or 0.0),
            "compile_s": compile_s,
            "details": {
                "weights": weights,
                "prepare_checkpoint_s": began - prepared,
                **seen.details(),
                **self._environment,
            },
        }
        if plan.dummy:
            answer["dummy_weights"] = True
        return answer

    def server(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Write or find the checkpoint, and say how to start ``vllm serve`` with it; nothing is loaded.

        Raises:
            EngineError: any kind.
        """
        plan = vllm_model.plan(request)
        prepared = time.perf_counter()
        folder, weights = plan.checkpoint(request)
        return {
            **vllm_server.command(plan, folder, request.get("devices", [request["device"]])),
            "weights": weights,
            "weights_bytes": plan.stored_bytes(folder),
            "kv_token_bytes": plan.kv_token_bytes,
            "fills_memory": plan.fills_memory,
            "dummy_weights": plan.dummy,
            "prepare_checkpoint_s": time.perf_counter() - prepared,
        }

    def run(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Prefill the prompts together and decode exactly ``output_tokens`` each.

        Raises:
            EngineError: ``bad_request``, ``out_of_memory``, ``internal``.
        """
        if self._llm is None:
            raise EngineError("bad_request", "run before load")
        prompts, wanted = request["prompt_ids"], request["output_tokens"]
        self._plan.check(prompts, wanted)
        params = vllm_model.sampling(self._vllm, wanted)
        engine, speculates = self._llm.llm_engine, self._plan.speculates
        self._runs += 1
        try:
            before = vllm_speculation.counted(engine) if speculates else None
            done = vllm_steps.run(engine, prompts, params, "run-%d" % self._runs)
            after = vllm_speculation.counted(engine) if speculates else None
        except EngineError:
            raise
        except Exception as error:
            raise _as_engine_error(error) from error
        guessed = vllm_speculation.between(before, after)
        answer = _answer(done, bool(request.get("return_ids")))
        return answer if guessed is None else {**answer, "speculation": guessed}

    def score(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Return log-probabilities along given tokens; see :mod:`vllm_scores`.

        Raises:
            EngineError: ``unsupported`` for what vLLM does not tell, ``bad_request``, ``out_of_memory``.
        """
        if self._llm is None:
            raise EngineError("bad_request", "score before load")
        self._plan.check(request["prompt_ids"], request["output_tokens"])
        self._runs += 1
        try:
            return vllm_scores.score(
                self._llm.llm_engine, self._vllm.SamplingParams, request, "score-%d" % self._runs
            )
        except EngineError:
            raise
        except Exception as error:
            raise _as_engine_error(error) from error

    def probe(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Measure what the request's ``kind`` names with PyTorch; see :mod:`torch_probes`.

        Raises:
            EngineError: ``unsupported`` for another kind, ``bad_request``, ``device``, ``out_of_memory``.
        """
        self._become(request["device"])
        try:
            with self._devices.torch.inference_mode():
                measured: Dict[str, Any] = self._probes.measure(self._device, request)
                return measured
        except RuntimeError as error:
            raise _as_engine_error(error) from error
        finally:
            self._devices.release_cached(self._device)

    def memory(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Return peaks since ``load`` and what the device has left."""
        peak, reason = self._devices.engine_peak_bytes(self._device)
        total, free, source = self._devices.memory_bytes(self._device)
        answer = {
            "engine_peak_bytes": peak,
            "engine_peak_reason": reason,
            **host_memory.of_this_process(),
            "device_total_bytes": total,
            "device_free_bytes": free,
            "device_source": source,
        }
        if self._llm is not None and self._plan.fills_memory:
            answer["kv_capacity_tokens"] = vllm_seen.Seen(self._llm, self._plan).kv_tokens()
        return answer

    def unload(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """Shut vLLM's engine down, if there is one."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._plan = None
        gc.collect()
        self._devices.release_cached(self._device)
        return {}

    def _become(self, *names: str) -> None:
        """Make these the only devices that this process sees; they stay so.

        Raises:
            EngineError: ``device``, when one does not exist or this process has others.
        """
        if names[0] == "cpu":
            self._device = self._devices.require("cpu")
            return
        if self._visible is None:
            os.environ.update(vllm_devices.visible_only(list(names)))
            self._visible = names
        at = names[0]
        if at not in self._visible or not set(names) <= set(self._visible):
            raise EngineError(
                "device",
                "this process runs on %s and cannot turn to %s"
                % (", ".join(self._visible), ", ".join(names)),
            )
        self._device = self._devices.require("%s:%d" % (at.partition(":")[0], self._visible.index(at)))


def _answer(done: vllm_steps.Stepped, with_ids: bool) -> Dict[str, Any]:
    """Return the result of ``run``."""
    mixed, stamps = done.mixed(), done.token_stamps()
    text = json.dumps(done.ids, separators=(",", ":")).encode()
    answer: Dict[str, Any] = {
        "submit_ns": done.submit_ns,
        "first_token_ns": done.first_ns() if mixed is None else None,
        "last_token_ns": done.stamps[-1],
        "step_ns": stamps if mixed is None else None,
        "output_sha256": hashlib.sha256(text).hexdigest(),
        "preemptions": done.preemptions,
    }
    if mixed is not None:
        answer["split_reason"] = mixed
    if done.engine is not None:
        answer["engine_stamps_s"] = done.engine
    if with_ids:
        answer["output_ids"] = done.ids
    return answer


def _as_engine_error(error: Exception) -> EngineError:
    """Turn what vLLM raises into one line with a kind."""
    if isinstance(error, EngineError):
        return error
    messages: List[str] = []
    seen: Any = error
    while seen is not None and len(messages) < 5:
        messages.append("%s: %s" % (type(seen).__name__, " ".join(str(seen).split())))
        seen = seen.__cause__ or seen.__context__
    whole = " <- ".join(messages)[:1500]
    kind = "out_of_memory" if any(words in whole.lower() for words in _NO_MEMORY) else "internal"
    return EngineError(kind, "vLLM: %s" % whole)
