"""The decode step as a graph: launched once by the host, with everything in place on the device.

Beside a small model the host cannot launch a step's kernels as fast as an accelerator runs them. So the
step is compiled where that works, recorded once, and replayed: it takes its input, its position
and its place for the output from fixed addresses, and leaves the next token and position there.
"""

from __future__ import annotations

import time
from typing import Any, Callable

import torch

from .places import DevicePlace
from .protocol import EngineError
from .torch_support import STEPS

_SPANS = 2048
"""Up to so many positions one graph reads them all; beyond, one for each doubling reads what it may need."""
_WARM_UPS = 3
_CHECK_BOUND = {torch.bfloat16: 2**-4, torch.float16: 2**-6, torch.float32: 1e-3}
"""Of the largest logit, between the step by operators on slices and this one on masked caches."""


class CudaGraphs:
    """How CUDA and ROCm record and replay; tests have one for the CPU."""

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a function that replays what ``step`` launches; runs ``step`` a few times before."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        replay: Callable[[], None] = graph.replay
        return replay


class CapturedSteps:
    """All decode steps of a run without the host: one replay for each.

    Args:
        decoder: with filled weights; kernels do not change any more.
        batch: sequences; runs with fewer are not for this.
        max_tokens: positions of the cache.
        device: of all of them.
        graphs: how to record.
        compiled: whether to compile the step first.

    Raises:
        Exception: whatever the compiler or the runtime cannot do with this step.
    """

    def __init__(
        self, decoder: Any, batch: int, max_tokens: int, device: Any, graphs: Any, compiled: bool
    ) -> None:
        self.batch = batch
        self._ids = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._output = torch.zeros(batch, max_tokens, dtype=torch.int64, device=device)
        self._replays: list[tuple[int, Callable[[], None]]] = []
        for end in _ends(max_tokens):
            forward = _forward(decoder, end)
            if compiled:
                forward = torch.compile(forward, dynamic=False, fullgraph=True)
            self._check(decoder, forward)
            # Captured from here on: warm-ups would run off the end of the cache.
            self._position.zero_()
            self._replays.append((end, graphs.record(self._step(forward))))

    def run(self, first: Any, position: int, steps: int) -> Any:
        """Return ``[B, steps]``, the greedy tokens after ``first [B, 1]``, which is at ``position``."""
        self._ids.copy_(first)
        self._position.fill_(position)
        for at in range(position, position + steps):
            next(replay for end, replay in self._replays if at < end)()
        return self._output[:, position : position + steps].clone()

    def _step(self, forward: Callable[[Any, Any], Any]) -> Callable[[], None]:
        def step() -> None:
            token = forward(self._ids, self._position).argmax(-1, keepdim=True)
            self._output.index_copy_(1, self._position, token)
            self._ids.copy_(token)
            self._position.add_(1)

        return step

    def _check(self, decoder: Any, forward: Callable[[Any, Any], Any]) -> None:
        """Compare with the step that slices, at the second position, behind the same first one.

        Raises:
            EngineError: ``unsupported``, when they differ by more than the bound.
        """
        start = torch.arange(self.batch, device=self._ids.device).unsqueeze(1) % decoder.vocab_size
        decoder.forward(start, 0)
        expected = decoder.forward(start, 1).float()
        self._position.fill_(1)
        found = forward(start, self._position).float()
        error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
        bound = _CHECK_BOUND[decoder.dtype]
        if not error <= bound:
            message = (
                f"the step differs from the plain one by {error:.2g} of the largest logit, not {bound:.2g}"
            )
            raise EngineError("unsupported", message)


def _forward(decoder: Any, end: int) -> Callable[[Any, Any], Any]:
    def forward(ids: Any, position: Any) -> Any:
        return decoder.logits_at(ids, DevicePlace.at(position, end))

    return forward


def _ends(max_tokens: int) -> list[int]:
    """Return how many positions each graph reads, ascending: doubling from 2048, the last one all."""
    ends = []
    end = _SPANS
    while end < max_tokens:
        ends.append(end)
        end *= 2
    return [*ends, max_tokens]


def capture(
    decoder: Any, parameters: Any, asked: Any, graphs: Any = None
) -> tuple[CapturedSteps | None, dict[str, Any], float | None]:
    """Return (the captured steps or None, details for the record, seconds that it took or None).

    Args:
        decoder: with filled weights.
        parameters: that it was allocated from.
        asked: one of :data:`torch_support.STEPS`; None takes the first that works, compiled, captured, eager.
        graphs: how to record; None takes what the device has.

    Raises:
        EngineError: ``bad_request`` for another name, ``unsupported`` when what was asked for does not work.
    """
    if asked not in (None, *STEPS):
        raise EngineError("bad_request", f"option step must be one of {', '.join(STEPS)}, not {asked!r}")
    device = parameters.device
    if graphs is None and device.type == "cuda":
        graphs = CudaGraphs()
    if graphs is None:
        if asked in ("compiled", "captured"):
            raise EngineError("unsupported", f"option step={asked}: {device.type} records no graphs")
        return None, {"step": "eager", "step_faults": {}}, None
    began, faults = time.perf_counter(), dict[str, str]()
    for name in [asked] if asked else STEPS:
        if name == "eager":
            break
        try:
            size = parameters.max_batch, parameters.max_tokens
            steps = CapturedSteps(decoder, *size, device, graphs, name == "compiled")
            return steps, {"step": name, "step_faults": faults}, time.perf_counter() - began
        except Exception as error:  # compilers and drivers fail in any way; out of memory is one too
            faults[name] = (str(error).splitlines() or [type(error).__name__])[0][:300]
    if asked in faults:
        raise EngineError("unsupported", f"option step={asked}: {faults[asked]}")
    return None, {"step": "eager", "step_faults": faults}, time.perf_counter() - began
