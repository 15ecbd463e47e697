"""Captured decode steps: fixed addresses, no host, the tokens of the plain step. Recorded by a fake here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import DEEPSEEK_V3, LLAMA, QWEN3, SMALL
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.worker import captured
from profiler.worker.captured import capture
from profiler.worker.decoder import Decoder
from profiler.worker.parameters import Parameters
from profiler.worker.protocol import EngineError
from profiler.worker.random_weights import RandomWeights

pytestmark = pytest.mark.torch

MAX_TOKENS, BATCH = 24, 2


class Ops(TorchDispatchMode):  # type: ignore[misc]  # torch is not always there for mypy
    """Notes every operator with the shapes it sees, and the addresses of what existed before."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known = known
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        fixed = tuple(tensor.data_ptr() for tensor in tensors if tensor.data_ptr() in self.known)
        self.seen.append((str(func), shapes, fixed))
        return func(*args, **(kwargs or {}))


class FakeGraphs:
    """Replays by calling again; like a real graph it may only do what it did when it was recorded."""

    def __init__(self) -> None:
        self.replays: list[int] = []
        self.failing: str | None = None

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        if self.failing:
            raise RuntimeError(f"{self.failing}\nmore")
        known = self._addresses(step)
        with Ops(known) as recorded:
            step()
        number = len(self.replays)
        self.replays.append(0)

        def replay() -> None:
            with Ops(known) as now:
                step()
            assert now.seen == recorded.seen
            self.replays[number] += 1

        return replay

    @staticmethod
    def _addresses(step: Any) -> set[int]:
        steps = next(cell.cell_contents for cell in step.__closure__ if hasattr(cell.cell_contents, "batch"))
        return {tensor.data_ptr() for tensor in (steps._ids, steps._position, steps._output)}


def filled(arch: Any, dtype: Any = torch.float32) -> tuple[Decoder, Parameters]:
    parameters = Parameters(dtype, torch.device("cpu"), BATCH, MAX_TOKENS)
    decoder = Decoder(dataclasses.asdict(arch), parameters)
    random = RandomWeights(5, "cpu")
    for name, tensor in decoder.tensors():
        random.fill(name, tensor)
        if not name.endswith("norm.weight"):
            tensor.mul_(10)  # far apart logits
    return decoder, parameters


def plain(decoder: Decoder, prompt: Any, steps: int) -> list[Any]:
    tokens = [decoder.step(prompt, 0)]
    for position in range(prompt.shape[1], prompt.shape[1] + steps):
        tokens.append(decoder.step(tokens[-1], position))
    return tokens


@pytest.mark.parametrize("arch", SMALL, ids=lambda arch: arch.family)
def test_a_captured_run_gives_the_tokens_of_the_plain_one(arch: Any) -> None:
    if arch.experts is not None:
        # A CPU reads the choice of experts; on the devices that capture they are stacked.
        pytest.skip("experts on the CPU are reached by the host")
    graphs = FakeGraphs()
    prompt = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])
    with torch.inference_mode():
        decoder, parameters = filled(arch)
        steps, details, seconds = capture(decoder, parameters, "captured", graphs)
        expected = plain(decoder, prompt, 10)
        first = decoder.step(prompt, 0)
        assert steps is not None
        assert torch.equal(steps.run(first, 4, 10), torch.cat(expected[1:], 1))
        assert torch.equal(steps.run(first, 4, 3), torch.cat(expected[1:4], 1))  # from the start again
    assert details == {"step": "captured", "step_faults": {}}
    assert seconds is not None
    assert graphs.replays == [13]


def test_long_caches_are_read_by_several_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "_SPANS", 6)
    assert captured._ends(5) == [5]
    assert captured._ends(6) == [6]
    assert captured._ends(MAX_TOKENS) == [6, 12, 24]
    graphs = FakeGraphs()
    prompt = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])
    with torch.inference_mode():
        decoder, parameters = filled(LLAMA)
        steps, _, _ = capture(decoder, parameters, "captured", graphs)
        expected = plain(decoder, prompt, 20)
        assert steps is not None
        assert torch.equal(steps.run(expected[0], 4, 20), torch.cat(expected[1:], 1))
    assert graphs.replays == [2, 6, 12]


def test_what_a_cache_held_before_does_not_matter() -> None:
    with torch.inference_mode():
        decoder, parameters = filled(LLAMA)
        steps, _, _ = capture(decoder, parameters, "captured", FakeGraphs())
        assert steps is not None
        prompt = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])
        first = decoder.step(prompt, 0)
        before = steps.run(first, 4, 8)
        for part in parameters._cache:
            part[:, :, 4:] = 1e4
        assert torch.equal(steps.run(first, 4, 8), before)


def test_latent_attention_at_a_place_on_the_device() -> None:
    """The experts aside, which a CPU reaches through the host."""
    arch = dataclasses.replace(DEEPSEEK_V3, experts=None, intermediate_size=48)
    prompt = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])
    with torch.inference_mode():
        decoder, parameters = filled(arch)
        steps, _, _ = capture(decoder, parameters, "captured", FakeGraphs())
        expected = plain(decoder, prompt, 10)
        assert steps is not None
        assert torch.equal(steps.run(expected[0], 4, 10), torch.cat(expected[1:], 1))


def test_what_does_not_work_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any, **__: Any) -> None:
        raise RuntimeError("no Triton here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    graphs = FakeGraphs()
    with torch.inference_mode():
        steps, details, _ = capture(*filled(LLAMA), None, graphs)
        assert steps is not None
        assert details == {"step": "captured", "step_faults": {"compiled": "no Triton here"}}
        graphs.failing = "operation not permitted when stream is capturing"
        steps, details, seconds = capture(*filled(LLAMA), None, graphs)
    assert steps is None
    assert seconds is not None
    assert details["step"] == "eager"
    assert details["step_faults"] == {"compiled": "no Triton here", "captured": graphs.failing}


def test_a_step_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = captured._forward
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    monkeypatch.setattr(captured, "_forward", lambda *given: lambda *at: right(*given)(*at).roll(1, -1))
    with torch.inference_mode():
        steps, details, _ = capture(*filled(LLAMA), None, FakeGraphs())
    assert steps is None
    assert "differs from the plain one" in details["step_faults"]["captured"]


@pytest.mark.parametrize("arch", [LLAMA, QWEN3], ids=lambda arch: arch.family)
def test_the_step_is_one_graph_to_the_compiler(arch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph break would put the host back between the kernels; what is compiled further is not ours."""
    traced = torch.compile
    monkeypatch.setattr(torch, "compile", lambda forward, **given: traced(forward, backend="eager", **given))
    prompt = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])
    with torch.inference_mode():
        decoder, parameters = filled(arch)
        steps, details, _ = capture(decoder, parameters, "compiled", CallsAgain())
        expected = plain(decoder, prompt, 6)
        assert steps is not None
        assert torch.equal(steps.run(expected[0], 4, 6), torch.cat(expected[1:], 1))
    assert details["step"] == "compiled"


class CallsAgain:
    """Replays without comparing, which the compiler's own modes would not let through."""

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


@pytest.mark.parametrize(
    ("asked", "kind", "named"),
    [
        ("fast", "bad_request", "compiled, captured, eager"),
        ("captured", "unsupported", "cpu records no graphs"),
    ],
)
def test_what_cannot_be_asked_for_is_named(asked: str, kind: str, named: str) -> None:
    with pytest.raises(EngineError, match=named) as caught:
        capture(*filled(LLAMA), asked)
    assert caught.value.kind == kind


def test_a_fault_of_what_was_asked_for_is_an_error() -> None:
    graphs = FakeGraphs()
    graphs.failing = "no graphs"
    with torch.inference_mode(), pytest.raises(EngineError, match="step=captured: no graphs"):
        capture(*filled(LLAMA), "captured", graphs)


def test_on_a_cpu_steps_are_eager() -> None:
    assert capture(*filled(LLAMA), None) == (None, {"step": "eager", "step_faults": {}}, None)
