"""Loading a case's model into a worker, and what is in use of memory meanwhile."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from profiler.backends.base import DeviceMemory, Unavailable
from profiler.backends.cpu import CpuBackend
from profiler.engines.process import WorkerProcess
from profiler.measure.context import CaseContext
from profiler.measure.memory import Samples, free_bytes, refuse_if_misplaced
from profiler.workload.prompts import weights_seed


def load_model(
    context: CaseContext, index: int, worker: WorkerProcess, placed: dict[str, Any]
) -> dict[str, Any]:
    """Load the model and return the worker's answer.

    Args:
        context: the case.
        index: of the start.
        worker: that loads it.
        placed: on which devices, as the engine calls them.

    Raises:
        StartFailedError: it took memory of another device than it should.
    """
    spec = context.spec
    generated = {"kind": "random", "seed": weights_seed(spec.seed, context.challenge)}
    timeouts, devices = context.timeouts, context.all_devices
    before = [free_bytes(context.backend, device) for device in devices]
    began = context.clock.now()
    loaded = worker.request(
        "load",
        timeouts.load_s + context.predicted.weights_bytes / timeouts.load_bytes_per_s,
        start=index,
        architecture=asdict(context.model.architecture),
        weights=context.model.real_weights or generated,
        **placed,
        formats=spec.formats.model_dump(),
        max_batch=spec.batch,
        max_tokens=spec.prompt_tokens + spec.output_tokens,
        prompt_tokens=spec.prompt_tokens,
        output_tokens=spec.output_tokens,
        options=context.options,
    )
    context.clock.account(loaded["load_s"], began)
    share = (loaded["weights_bytes"] + loaded["kv_cache_bytes"]) // len(devices)
    for device, free in zip(devices, before, strict=True):
        refuse_if_misplaced(device, free, free_bytes(context.backend, device), share)
    return loaded


class MemoryLooks:
    """Looks at the memory in use between the stages of a start.

    Args:
        context: the case.
    """

    def __init__(self, context: CaseContext) -> None:
        self._context = context
        self._device_used: dict[str, list[int]] = {}
        self._host_used: list[int] = []

    def look(self) -> DeviceMemory | None:
        """Look once; return what the first device that can be read shows."""
        host = CpuBackend().host_memory()
        if not isinstance(host, Unavailable):
            self._host_used.append(host.total_bytes - host.free_bytes)
        found: list[DeviceMemory] = []
        for device in self._context.all_devices:
            memory = self._context.backend.memory(device)
            if not isinstance(memory, Unavailable):
                used = self._device_used.setdefault(device.key, [])
                used.append(memory.total_bytes - memory.free_bytes)
                found.append(memory)
        return found[0] if found else None

    def seen(self, since_ns: int) -> Samples:
        """Look a last time and return all that was seen, also by the sampler since a moment."""
        last = self.look()
        polled = self._context.sensing.memory_in_use(self._context.device, since_ns)
        return Samples(self._device_used, self._host_used, last, polled)
