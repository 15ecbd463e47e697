"""The torch engine as the conductor sees it: requests in, results and errors out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from architectures import DEEPSEEK_V3, LLAMA, QWEN2, QWEN3, QWEN3_MOE, SMALL
from torch_formats import BF16, FP32

from profiler.models import accounting
from profiler.models.formats import formats_for
from profiler.models.tensors import shapes
from profiler.worker import host_memory, kernels, parameters, torch_devices, torch_engine
from profiler.worker.captured import capture
from profiler.worker.protocol import EngineError
from profiler.worker.random_weights import RandomWeights
from profiler.worker.torch_engine import TorchEngine

pytestmark = pytest.mark.torch

PROMPTS = [[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]]


@pytest.fixture
def engine() -> TorchEngine:
    return TorchEngine()


def load_request(arch: Any = LLAMA, **changes: Any) -> dict[str, Any]:
    request = {
        "op": "load",
        "architecture": arch if isinstance(arch, dict) else dataclasses.asdict(arch),
        "weights": {"kind": "random", "seed": 3},
        "device": "cpu",
        "formats": FP32,
        "max_batch": 2,
        "max_tokens": 64,
        # Which kernel is fastest may change from load to load, and with it the last bits.
        "options": {"threads": 1, "linear": "packed"},
    }
    return json.loads(json.dumps({**request, **changes}))  # type: ignore[no-any-return]


def run_request(**changes: Any) -> dict[str, Any]:
    return {"op": "run", "prompt_ids": PROMPTS, "output_tokens": 6, "return_ids": True, **changes}


def refused(kind: str, call: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> str:
    with pytest.raises(EngineError) as caught:
        call(request)
    assert caught.value.kind == kind
    assert "\n" not in caught.value.message
    return caught.value.message


def test_hello_names_the_engine_and_the_cpu(engine: TorchEngine) -> None:
    answer = json.loads(json.dumps(engine.hello({"op": "hello"})))
    assert answer["engine"]["name"] == "torch"
    assert answer["engine"]["version"] == torch.__version__
    assert answer["devices"][0]["device"] == "cpu"
    assert answer["simulated"] is False


@pytest.mark.parametrize("arch", SMALL, ids=lambda arch: arch.family)
def test_load_and_run_report_what_the_protocol_asks_for(engine: TorchEngine, arch: Any) -> None:
    loaded = json.loads(
        json.dumps(engine.load(load_request(arch, options={"threads": 1, "linear": "plain"})))
    )
    assert loaded["weights_bytes"] == accounting.weights_bytes(arch, formats_for("fp32"))
    assert loaded["kv_cache_bytes"] == accounting.kv_cache_bytes(arch, "fp32", 64, 2)
    assert loaded["details"]["slice"] is None
    assert (loaded["details"]["experts"] is None) == (arch.experts is None)
    assert loaded["load_s"] > 0
    assert loaded["compile_s"] is None
    assert loaded["details"]["threads"] == torch.get_num_threads() == 1
    result = json.loads(json.dumps(engine.run(run_request())))
    assert [len(ids) for ids in result["output_ids"]] == [6, 6]
    assert len(result["step_ns"]) == 6
    stamps = [result["submit_ns"], *result["step_ns"]]
    assert stamps == sorted(stamps)
    assert (result["first_token_ns"], result["last_token_ns"]) == (stamps[1], stamps[-1])
    text = json.dumps(result["output_ids"], separators=(",", ":"))
    assert result["output_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    again = engine.run(run_request(return_ids=False))
    assert again["output_sha256"] == result["output_sha256"]
    assert "output_ids" not in again


def test_one_output_token_is_a_prefill_only(engine: TorchEngine) -> None:
    engine.load(load_request())
    result = engine.run(run_request(output_tokens=1))
    assert result["first_token_ns"] == result["last_token_ns"]
    assert [len(ids) for ids in result["output_ids"]] == [1, 1]


@pytest.mark.parametrize("arch", [QWEN3, DEEPSEEK_V3], ids=lambda arch: arch.family)
def test_sequences_do_not_see_each_other(engine: TorchEngine, arch: Any) -> None:
    engine.load(load_request(arch))
    both = engine.run(run_request())["output_ids"]
    alone = [engine.run(run_request(prompt_ids=[prompt]))["output_ids"][0] for prompt in PROMPTS]
    assert both == alone


def test_off_the_cpu_steps_are_not_stamped(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.load(load_request())
    expected = engine.run(run_request())
    waits = itertools.count()
    monkeypatch.setattr(engine, "_device", torch.device("cuda", 0))
    monkeypatch.setattr(torch_devices, "synchronize", lambda device: next(waits))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
    result = engine.run(run_request())
    assert result["step_ns"] is None
    assert result["submit_ns"] < result["first_token_ns"] < result["last_token_ns"]
    assert result["output_ids"] == expected["output_ids"]
    assert next(waits) == 1  # before the submission; later the copies to the host wait


def test_captured_steps_make_the_run_when_the_batch_is_theirs(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a step by the host, for the whole batch only."""

    class CallsAgain:
        def record(self, step: Callable[[], None]) -> Callable[[], None]:
            return step

    engine.load(load_request())
    expected = engine.run(run_request())
    alone = engine.run(run_request(prompt_ids=PROMPTS[:1]))
    captured = functools.partial(capture, graphs=CallsAgain())
    monkeypatch.setattr(torch_engine, "capture", captured)
    details = engine.load(load_request(options={"threads": 1, "linear": "packed", "step": "captured"}))
    assert details["details"]["step"] == "captured"
    assert details["compile_s"] > 0
    steps = []
    right = engine._model.step

    def step(ids: Any, position: int) -> Any:
        steps.append(position)
        return right(ids, position)

    monkeypatch.setattr(engine._model, "step", step)
    assert engine.run(run_request())["output_ids"] == expected["output_ids"]
    assert steps == [0]
    assert engine.run(run_request(prompt_ids=PROMPTS[:1]))["output_ids"] == alone["output_ids"]
    assert steps == [0, 0, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("arch", [QWEN2, DEEPSEEK_V3], ids=lambda arch: arch.family)
@pytest.mark.parametrize("formats", [BF16, FP32], ids=["bf16", "fp32"])
def test_random_weights_are_those_written_to_a_checkpoint(
    engine: TorchEngine, tmp_path: Path, formats: dict[str, str], arch: Any
) -> None:
    """Another engine reads the recipe's tensors from a file; both must compute the same."""
    tensors = {}
    for name, shape in shapes(arch).items():
        tensors[name] = torch.empty(shape)
        RandomWeights(3, "cpu").fill(name, tensors[name])
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    engine.load(load_request(arch, formats=formats))
    made = engine.run(run_request())["output_sha256"]
    weights = {"kind": "folder", "path": str(tmp_path)}
    loaded = engine.load(load_request(arch, formats=formats, weights=weights))
    assert engine.run(run_request())["output_sha256"] == made
    kept = sum(name.endswith("correction_bias") for name in tensors)  # float32 in every format
    converted = {"fp32 to bf16": len(tensors) - kept} if formats == BF16 else {}
    assert loaded["details"]["converted"] == converted


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3"])
def test_a_checkpoint_of_transformers_continues_the_same(
    engine: TorchEngine, small_model: Callable[[str], Any], tmp_path: Path, family: str, sharded: bool
) -> None:
    model = small_model(family)
    folder = model.save(tmp_path, max_shard_size="60KB" if sharded else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == sharded
    engine.load(load_request(model.architecture, weights={"kind": "folder", "path": folder}))
    with torch.inference_mode():
        ids = torch.tensor(PROMPTS)
        for _ in range(6):
            best = model.reference(ids).logits[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat((ids, best), 1)
    assert engine.run(run_request())["output_ids"] == ids[:, 5:].tolist()


def saved(folder: Path, arch: Any, **changes: Any) -> dict[str, Any]:
    """Write a checkpoint of ``arch`` with some tensors changed, added, or (None) left out."""
    tensors: dict[str, Any] = {name: torch.zeros(shape) for name, shape in shapes(arch).items()}
    tensors |= changes
    kept = {name: value for name, value in tensors.items() if value is not None}
    safetensors.torch.save_file(kept, folder / "model.safetensors")
    return load_request(arch, weights={"kind": "folder", "path": str(folder)})


def test_all_missing_unexpected_and_misshapen_tensors_are_named(engine: TorchEngine, tmp_path: Path) -> None:
    changes = {
        "model.norm.weight": None,
        "lm_head.weight": None,
        "model.layers.0.self_attn.q_proj.weight": torch.zeros(3, 3),
        "model.layers.1.mlp.up_proj.weight": torch.zeros(48, 32, dtype=torch.int8),
        "model.layers.2.extra": torch.zeros(1),
    }
    engine.load(load_request())
    message = refused("weights", engine.load, saved(tmp_path, LLAMA, **changes))
    assert "missing: lm_head.weight, model.norm.weight;" in message
    assert "unexpected: model.layers.2.extra;" in message
    assert "model.layers.0.self_attn.q_proj.weight ([3, 3], not [32, 32])" in message
    assert "cannot be converted: model.layers.1.mlp.up_proj.weight (I8)" in message
    refused("bad_request", engine.run, run_request())  # neither the old model nor half of the new one


def test_many_missing_tensors_are_counted(engine: TorchEngine, tmp_path: Path) -> None:
    changes = {name: None for name in shapes(LLAMA) if "layers.1" in name}
    assert "… (9 in all)" in refused("weights", engine.load, saved(tmp_path, LLAMA, **changes))


def test_a_tied_head_and_rotary_frequencies_in_the_file_are_ignored(
    engine: TorchEngine, tmp_path: Path
) -> None:
    extra = {
        "lm_head.weight": torch.ones(96, 32),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    assert engine.load(saved(tmp_path, QWEN2, **extra))["details"]["ignored_tensors"] == 2


def test_a_slice_of_a_real_checkpoint_leaves_the_other_layers_on_disk(
    engine: TorchEngine, small_model: Callable[[str], Any], tmp_path: Path
) -> None:
    model = small_model("deepseek_v3")
    weights = {"kind": "folder", "path": model.save(tmp_path)}
    plain = {"linear": "plain"}
    whole = engine.load(load_request(model.architecture, weights=weights, options=plain))
    options = {**plain, "layers": [1, 1]}
    loaded = engine.load(load_request(model.architecture, weights=weights, options=options))
    assert loaded["details"]["slice"] == {"layers": [0, 1], "of": 3}
    left_out = [name for name in model.weights() if ".layers.2." in name]
    assert loaded["details"]["ignored_tensors"] == len(left_out) > 12
    assert loaded["kv_cache_bytes"] == whole["kv_cache_bytes"] * 2 // 3
    missing = whole["weights_bytes"] - loaded["weights_bytes"]
    assert missing == 4 * sum(model.weights()[name].numel() for name in left_out)
    assert len(engine.run(run_request())["output_ids"][0]) == 6


@pytest.mark.parametrize("arch", [QWEN3_MOE, DEEPSEEK_V3], ids=lambda arch: arch.family)
def test_the_layers_of_a_slice_have_the_weights_they_have_in_the_model(
    engine: TorchEngine, arch: Any
) -> None:
    """Random weights follow names, so a slice of layers 0 and 1 is the model without layer 2."""
    options = {"layers": [1, 1], "linear": "plain"}
    engine.load(load_request(arch, options=options))
    sliced = dict(engine._model.tensors())
    engine.load(load_request(arch, options={"linear": "plain"}))
    whole = dict(engine._model.tensors())
    assert set(whole) - set(sliced) == {name for name in whole if ".layers.2." in name}
    assert all(torch.equal(tensor, whole[name]) for name, tensor in sliced.items())


def test_fp8_with_block_scales_is_refused_with_the_reason(engine: TorchEngine, tmp_path: Path) -> None:
    """As DeepSeek-R1 is published."""
    name = "model.layers.0.self_attn.o_proj.weight"
    changes = {name: torch.zeros(32, 40).to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1, 1)}
    message = refused("unsupported", engine.load, saved(tmp_path, DEEPSEEK_V3, **changes))
    assert "128 x 128" in message
    assert "bf16" in message


def test_layers_for_multi_token_prediction_are_ignored(engine: TorchEngine, tmp_path: Path) -> None:
    extra = {"model.layers.3.eh_proj.weight": torch.ones(1), "model.layers.3.enorm.weight": torch.ones(1)}
    assert engine.load(saved(tmp_path, DEEPSEEK_V3, **extra))["details"]["ignored_tensors"] == 2


@pytest.mark.parametrize("arch", [LLAMA, QWEN3_MOE, DEEPSEEK_V3], ids=lambda arch: arch.family)
@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32"])
def test_every_format_runs(engine: TorchEngine, name: str, arch: Any) -> None:
    options = {"threads": 1}  # fp16 cannot be packed on every CPU
    loaded = engine.load(load_request(arch, formats=dict.fromkeys(FP32, name), options=options))
    assert loaded["details"]["dtype"] == name
    assert len(engine.run(run_request())["output_ids"][0]) == 6


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("unsupported", {"formats": {**FP32, "weight_format": "q4_0"}}, "q4_0"),
        ("unsupported", {"formats": {**FP32, "kv_dtype": "bf16"}}, "kv_dtype"),
        ("unsupported", {"architecture": {**dataclasses.asdict(QWEN3), "family": "gemma3"}}, "gemma3"),
        ("device", {"device": "cuda:7"}, "cuda:7"),
        ("device", {"device": "nonsense"}, "nonsense"),
        ("bad_request", {"options": {"thread": 1}}, "thread"),
        ("bad_request", {"options": {"threads": "2"}}, "threads"),
        ("bad_request", {"options": {"linear": "fast"}}, "linear"),
        ("bad_request", {"options": {"step": "fast"}}, "step"),
        ("unsupported", {"options": {"step": "captured"}}, "cpu records no graphs"),
        ("bad_request", {"options": {"layers": 3}}, "between 1 and 2, not 3"),
        ("bad_request", {"options": {"layers": [1, 1]}}, "has 2 and 0"),
        ("bad_request", {"max_batch": 0}, "max_batch"),
        ("bad_request", {"max_tokens": True}, "max_tokens"),
        ("bad_request", {"weights": {"kind": "dummy"}}, "dummy"),
        ("weights", {"weights": {"kind": "folder", "path": "/nowhere"}}, "/nowhere"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    engine: TorchEngine, kind: str, changes: dict[str, Any], named: str
) -> None:
    assert named in refused(kind, engine.load, load_request(**changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompt_ids": []}, "equally long"),
        ({"prompt_ids": [[]]}, "equally long"),
        ({"prompt_ids": [[1], [1, 2]]}, "equally long"),
        ({"prompt_ids": [[1]] * 3}, "max_batch 2"),
        ({"prompt_ids": [[1] * 60], "output_tokens": 5}, "max_tokens 64"),
        ({"prompt_ids": [[96]]}, "vocabulary of 96"),
        ({"prompt_ids": [[-1]]}, "vocabulary of 96"),
        ({"prompt_ids": [[1.5]]}, "vocabulary of 96"),
        ({"output_tokens": 0}, "output_tokens"),
    ],
)
def test_what_cannot_be_run_is_named(engine: TorchEngine, changes: dict[str, Any], named: str) -> None:
    engine.load(load_request())
    assert named in refused("bad_request", engine.run, run_request(**changes))


def test_too_little_memory_is_refused_with_the_numbers_before_anything_is_allocated(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "available_bytes", lambda: (100_000, "control group limit"))
    monkeypatch.setattr(parameters.Parameters, "lay_out", lambda *_: pytest.fail("allocated"))
    message = refused("out_of_memory", engine.load, load_request())
    weights = 4 * sum(torch.Size(shape).numel() for shape in shapes(LLAMA).values())
    assert f"{weights} bytes of weights" in message
    assert "32768 of KV cache" in message
    assert "100000 free on cpu (control group limit)" in message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("NPU out of memory. Tried to allocate"),
    ],
    ids=["cuda", "cpu", "npu"],
)
def test_out_of_memory_while_running_has_its_kind(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    engine.load(load_request())
    monkeypatch.setattr(engine._model, "step", fail)
    assert "2 x 5 tokens on cpu" in refused("out_of_memory", engine.run, run_request())


def test_other_errors_keep_their_own_kind(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("illegal instruction")

    engine.load(load_request())
    monkeypatch.setattr(engine._model, "step", fail)
    with pytest.raises(RuntimeError, match="illegal instruction"):
        engine.run(run_request())


def test_where_onednn_cannot_pack_the_engine_says_so(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "packing_fault", lambda *_: "no oneDNN on this device")
    details = engine.load(load_request(options={"threads": 1}))["details"]
    assert details["kernels_unavailable"]["packed"] == "no oneDNN on this device"
    assert "packed" not in {entry["chosen"] for entry in details["kernels"]}
    assert "no oneDNN" in refused("unsupported", engine.load, load_request())


def test_memory_and_unload(engine: TorchEngine) -> None:
    engine.load(load_request())
    memory = json.loads(json.dumps(engine.memory({"op": "memory"})))
    assert memory["engine_peak_bytes"] is None
    assert memory["engine_peak_reason"]
    assert 0 < memory["process_rss_bytes"] <= memory["peak_process_bytes"]
    assert 0 < memory["device_free_bytes"] <= memory["device_total_bytes"]
    assert engine.unload({"op": "unload"}) == {}
    assert "before load" in refused("bad_request", engine.run, run_request())


def test_probe(engine: TorchEngine) -> None:
    request = {"op": "probe", "kind": "read_bandwidth", "device": "cpu", "bytes": 1 << 20, "repeats": 2}
    answer = json.loads(json.dumps(engine.probe(request)))
    assert len(answer["bytes_per_s"]) == 2
    assert max(answer["bytes_per_s"]) == max(answer["variants"].values())
    assert answer["method"]
    refused("unsupported", engine.probe, {**request, "kind": "compute"})
    refused("device", engine.probe, {**request, "device": "cuda:9"})
    refused("bad_request", engine.probe, {**request, "repeats": 0})
