"""The choice of kernels: every candidate checked, the fastest taken, everything recorded."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import pytest
import torch
from architectures import DEEPSEEK_V3, LLAMA, QWEN2, QWEN3_MOE
from compilers import has_compiler

from profiler.worker import kernels, native, native_kernels
from profiler.worker.decoder import Decoder
from profiler.worker.fusing import FUSED_BOUNDS
from profiler.worker.kernels import Work
from profiler.worker.native import NativeError
from profiler.worker.parameters import Parameters
from profiler.worker.protocol import EngineError
from profiler.worker.random_weights import RandomWeights

pytestmark = [pytest.mark.torch, pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")]

WORK = Work(batch=2, prompt_tokens=16, steps=8)
CPU = torch.device("cpu")


def filled(arch: Any = LLAMA, dtype: Any = torch.bfloat16, batch: int = 2) -> tuple[Decoder, Parameters]:
    parameters = Parameters(dtype, CPU, batch, 32)
    decoder = Decoder(dataclasses.asdict(arch), parameters)
    random = RandomWeights(3, "cpu")
    for name, tensor in decoder.tensors():
        random.fill(name, tensor)
    return decoder, parameters


def chosen(details: dict[str, Any]) -> set[str]:
    return {entry["chosen"] for entry in details["kernels"]}


def choose(
    decoder: Decoder, parameters: Parameters, asked: str | None = None, work: Work = WORK
) -> tuple[dict[str, Any], float | None]:
    found = kernels.find_candidates(asked, parameters.dtype, CPU, work.batch)
    return kernels.choose(decoder, parameters, asked, found, work)


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """Give each candidate a time of its own instead of the clock's."""
    monkeypatch.setattr(kernels, "_times", lambda calls, *_: {name: seconds[name] for name in calls})


@pytest.mark.parametrize("name", ["plain", "packed", "native"])
def test_the_fastest_is_taken_for_every_shape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"plain": 2.0, "packed": 2.0, "native": 2.0} | {name: 1.0})
    with torch.inference_mode():
        decoder, parameters = filled()
        details, seconds = choose(decoder, parameters)
    assert chosen(details) == {name}
    assert details["linear"] == "measured"
    assert seconds is not None
    assert json.loads(json.dumps(details)) == details
    assert details["fused_parts"] == ("MLP, attention, head" if name == "native" else FUSED_NONE)


FUSED_NONE = "none: not all of their products are native"


@pytest.mark.parametrize(("steps", "expected"), [(0, "packed"), (100, "native")])
def test_what_the_trial_does_decides(steps: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed matrices are faster for a prompt, native products for steps."""

    def times(calls: dict[str, Any], x: Any, budget_s: float) -> dict[str, float]:
        many = {"plain": 10.0, "packed": 5.0, "native": 12.0}
        few = {"plain": 3.0, "packed": 2.0, "native": 1.0}
        return {name: (many if len(x) > 8 else few)[name] for name in calls}

    monkeypatch.setattr(kernels, "_times", times)
    with torch.inference_mode():
        decoder, parameters = filled()
        work = dataclasses.replace(WORK, steps=steps)
        details = choose(decoder, parameters, None, work)[0]
    head = [entry for entry in details["kernels"] if entry["head"]]
    layers = [entry for entry in details["kernels"] if not entry["head"]]
    assert {entry["chosen"] for entry in layers} == {expected}
    assert {entry["chosen"] for entry in head} == {"native"}  # sees one token of each prompt
    assert {entry["prompt_rows"] for entry in layers} == {32}
    assert head[0]["prompt_rows"] == 2


def test_native_products_may_be_a_little_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    for slower, used in ((1.04, True), (1.06, False)):
        timed(monkeypatch, {"plain": 1.0, "packed": 1.0, "native": slower})
        with torch.inference_mode():
            decoder, parameters = filled()
            details = choose(decoder, parameters)[0]
        assert all((entry["chosen"] == "native") == used for entry in details["kernels"])


@pytest.mark.parametrize("factor", [1.02, float("nan")])
def test_a_kernel_that_computes_something_else_is_not_used(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, {"plain": 3.0, "packed": 2.0, "native": 1.0})
    right = native_kernels.Kernels.linear
    monkeypatch.setattr(native_kernels.Kernels, "linear", lambda self, *given: right(self, *given) * factor)
    with torch.inference_mode():
        decoder, parameters = filled()
        details = choose(decoder, parameters)[0]
    assert chosen(details) == {"packed"}
    for entry in details["kernels"]:
        assert "native" not in entry["step_s"]
        assert entry["rejected"]["native"].startswith("differs from plain by")
    json.dumps(details, allow_nan=False)


def test_a_part_that_computes_something_else_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"plain": 3.0, "packed": 2.0, "native": 1.0})
    right = native_kernels.Kernels.mlp

    def wrong(self: Any, norm: Any, gate_up: Any, down: Any, eps: float) -> Any:
        return right(self, norm, down.t().repeat(2, 1).contiguous(), down, eps)

    monkeypatch.setattr(native_kernels.Kernels, "mlp", wrong)
    with torch.inference_mode():
        decoder, parameters = filled()
        details = choose(decoder, parameters)[0]
        assert details["fused_parts"].startswith("none: layer ")
        assert "of its largest value, more than 0.031" in details["fused_parts"]
        assert all(layer._fused_steps == {} for layer in decoder._layers.values())


@pytest.mark.parametrize("arch", [LLAMA, QWEN2, QWEN3_MOE, DEEPSEEK_V3], ids=lambda arch: arch.family)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_measuring_changes_nothing_but_rounding(arch: Any, dtype: Any) -> None:
    """Real times: whatever is chosen on this machine computes what plain products do."""
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    with torch.inference_mode():
        logits = []
        for asked in ("plain", None, "native"):
            decoder, parameters = filled(arch, dtype)
            before = parameters.kv_cache_bytes
            details, _ = choose(decoder, parameters, asked)
            assert parameters.kv_cache_bytes == before
            decoder.forward(ids, 0)
            logits.append(decoder.forward(ids[:, :1], 5).float())
            if asked == "native":
                assert chosen(details) == {"native"}
    scale = logits[0].abs().max()
    bound = FUSED_BOUNDS[dtype] * (4 if dtype == torch.bfloat16 else 1)
    for other in logits[1:]:
        assert (other - logits[0]).abs().max() <= bound * scale


def test_a_tied_head_needs_no_second_copy_when_native() -> None:
    with torch.inference_mode():
        decoder, parameters = filled(QWEN2)
        before = parameters.weights_bytes
        choose(decoder, parameters, "native")
        assert parameters.weights_bytes == before


def test_without_a_compiler_the_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NativeError("no C++ compiler (g++)")

    monkeypatch.setattr(kernels, "load_library", functools.lru_cache(missing))
    with torch.inference_mode():
        decoder, parameters = filled()
        details = choose(decoder, parameters)[0]
    assert details["kernels_unavailable"] == {"native": "no C++ compiler (g++)"}
    assert details["native"] is None
    assert "native" not in chosen(details)
    with pytest.raises(EngineError, match=r"linear=native cannot be used: no C\+\+ compiler"):
        kernels.find_candidates("native", torch.bfloat16, CPU, 1)


@pytest.mark.parametrize(
    ("dtype", "device", "batch", "reason"),
    [
        (torch.float32, "cpu", 9, "up to 8 sequences on this CPU, not 9"),
        (torch.float16, "cpu", 1, "no native products in float16"),
        (torch.bfloat16, "cuda", 1, "for the CPU"),
    ],
)
def test_where_native_products_do_not_apply(dtype: Any, device: str, batch: int, reason: str) -> None:
    found = kernels.find_candidates(None, dtype, torch.device(device), batch)
    assert reason in (found.faults["native"] or "")
    assert found.library is None


def test_compiling_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native.load_library()
    compiled = native.Library(library.path, "a compiler", 4.5)
    monkeypatch.setattr(kernels, "load_library", functools.lru_cache(lambda: compiled))
    with torch.inference_mode():
        for expected in (4.5, 0.0):
            found = kernels.find_candidates("native", torch.bfloat16, CPU, 2)
            assert (found.compile_s or 0.0) == expected
            seconds = kernels.choose(*filled(), "native", found, WORK)[1]
            assert (seconds is None) == (expected == 0.0)
            assert seconds is None or seconds > expected


def test_with_one_candidate_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "packing_fault", lambda *_: "no oneDNN on this device")
    monkeypatch.setattr(kernels, "_native_fault", lambda *_: "no native products here")
    decoder, parameters = filled()
    details, seconds = choose(decoder, parameters)
    assert (seconds, details["linear"]) == (None, "the only one here")
    assert all(entry["step_s"] is None for entry in details["kernels"])
