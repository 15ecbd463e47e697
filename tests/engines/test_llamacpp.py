"""The llamacpp engine: what it accepts, and, where llama-cpp-python is at hand, the tokens that it makes.

The second part runs under the interpreter that AIPROF_LLAMACPP_PYTHON names (or ``.venv-llamacpp``).
"""

from __future__ import annotations

import dataclasses
import os
import random
import sys
from pathlib import Path
from typing import Any

import architectures
import gguf_made
import numpy as np
import pytest
from gguf_made import Kind, write_gguf

from profiler.backends.base import Device
from profiler.engines.llamacpp import LlamaCppEngine
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.errors import UsageError
from profiler.models.accounting import kv_cache_bytes, weights_bytes
from profiler.models.architecture import Architecture
from profiler.models.catalogue import resolve_model
from profiler.models.formats import formats_for

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("AIPROF_LLAMACPP_PYTHON") or str(REPOSITORY / ".venv-llamacpp/bin/python")
needs_llamacpp = pytest.mark.skipif(
    not Path(PYTHON).exists(), reason="no interpreter with llama-cpp-python (AIPROF_LLAMACPP_PYTHON)"
)
CPU = Device("cpu-0123456789ab", "cpu", 0, "a CPU", None)
GPU = dataclasses.replace(CPU, key="GPU-1", backend="cuda", name="a GPU")
# Rows of a matrix are quantised in blocks of 32 weights, of 256 in Q6_K.
WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "vocab_size": 512}


def test_what_it_does_not_run_it_says() -> None:
    engine = LlamaCppEngine()
    assert engine.unsupported(architectures.LLAMA, formats_for("q4_0"), CPU) is None
    no_family = engine.unsupported(architectures.DEEPSEEK_V3, formats_for("bf16"), CPU)
    assert no_family is not None
    assert "deepseek_v3" in no_family
    no_format = engine.unsupported(architectures.LLAMA, formats_for("w8a8-int8"), CPU)
    assert no_format is not None
    assert "w8a8-int8" in no_format
    yarn = dataclasses.replace(architectures.LLAMA, rope_scaling=architectures.YARN_SCALING)
    assert "yarn" in str(engine.unsupported(yarn, formats_for("bf16"), CPU))


def test_options_are_parsed_or_refused() -> None:
    engine = LlamaCppEngine()
    assert engine.options({"threads": "2", "sampling": "none"}) == {"threads": 2, "sampling": "none"}
    cache = {"kv_dtype": "q8_0", "n_batch": "256", "mmap": "off", "mlock": "on"}
    assert engine.options(cache) == cache | {"n_batch": 256}
    assert engine.options({"kv_dtype": "f16"}) == {"kv_dtype": "fp16"}
    for wrong in (
        {"threads": "0"}, {"sampling": "beam"}, {"treads": "2"}, {"kv_dtype": "q5"}, {"mmap": "yes"},
        {"kv_dtype": "q8_0", "flash_attention": "off"},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            engine.options(wrong)


def test_accelerators_are_for_the_endpoint() -> None:
    assert LlamaCppEngine().device_string(CPU, {}) == "cpu"
    with pytest.raises(UsageError, match="llama-server"):
        LlamaCppEngine().device_string(GPU, {})


def generate(
    folder: Path, engine: str, python: str, arch: Architecture, precision: str, **more: Any
) -> tuple[dict[str, Any], list[list[int]]]:
    formats = formats_for(precision)
    formats = dataclasses.replace(formats, kv_dtype=more.get("kv_dtype", formats.kv_dtype))
    options = {"threads": 1, **more}
    generator = random.Random(3)
    prompts = [[generator.randrange(arch.vocab_size) for _ in range(40)] for _ in range(3)]
    with WorkerProcess(python, folder / "worker.log") as worker:
        worker.request("hello", 120, engine=engine, options={})
        loaded = worker.request(
            "load", 120, start=0, architecture=dataclasses.asdict(arch),
            weights={"kind": "random", "seed": 1}, device="cpu", formats=dataclasses.asdict(formats),
            max_batch=3, max_tokens=72, options=options,
        )  # fmt: skip
        answer = worker.request("run", 120, prompt_ids=prompts, output_tokens=24, return_ids=True)
    return loaded, answer["output_ids"]


@needs_llamacpp
@pytest.mark.torch
@pytest.mark.parametrize("arch", architectures.SMALL[:4], ids=lambda arch: arch.family)
def test_its_tokens_are_those_of_the_torch_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: Architecture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if arch.family == "qwen3_moe":  # llama.cpp's has experts in every layer
        assert arch.experts is not None
        arch = dataclasses.replace(arch, experts=dataclasses.replace(arch.experts, dense_layers=0))
    _, found = generate(tmp_path, "llamacpp", PYTHON, arch, "fp32")
    _, expected = generate(tmp_path, "torch", sys.executable, arch, "fp32")
    assert found == expected


@needs_llamacpp
@pytest.mark.torch
@pytest.mark.parametrize("arch", architectures.SMALL[:3], ids=lambda arch: arch.family)
def test_its_logits_are_those_of_the_torch_engine_on_the_weights_of_the_fidelity_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: Architecture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prompts = [[(7 * at + row) % arch.vocab_size for at in range(30)] for row in range(2)]
    forced = [[(11 * at) % arch.vocab_size for at in range(5)], None]
    asked: dict[str, Any] = {"prompt_ids": prompts, "output_tokens": 6, "forced_ids": forced, "top": 5}
    expected = scored(tmp_path, "torch", sys.executable, arch, asked)
    found = scored(tmp_path, "llamacpp", PYTHON, arch, asked | {"score_ids": expected["ids"]})
    assert found["tokens"] == expected["tokens"]
    assert np.allclose(found["logits"], expected["logits"], atol=1e-4)
    assert np.allclose(np.ravel(found["log_sum_exp"]), np.ravel(expected["log_sum_exp"]), atol=1e-4)


def scored(
    folder: Path, engine: str, python: str, arch: Architecture, asked: dict[str, Any]
) -> dict[str, Any]:
    with WorkerProcess(python, folder / "worker.log") as worker:
        worker.request("hello", 120, engine=engine, options={})
        worker.request(
            "load", 120, start=0, architecture=dataclasses.asdict(arch),
            weights={"kind": "fidelity", "seed": 5}, device="cpu",
            formats=dataclasses.asdict(formats_for("fp32")), max_batch=2, max_tokens=48,
            options={"threads": 1},
        )  # fmt: skip
        return worker.request("score", 120, **asked)


@needs_llamacpp
@pytest.mark.parametrize("precision", ["q8_0", "q4_0", "bf16"])
def test_quantised_weights_take_what_the_accounting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arch = dataclasses.replace(architectures.LLAMA, **WIDE)
    loaded, tokens = generate(tmp_path, "llamacpp", PYTHON, arch, precision)
    assert loaded["weights_bytes"] == pytest.approx(weights_bytes(arch, formats_for(precision)), rel=0.01)
    assert loaded["kv_cache_bytes"] > 0
    assert len(tokens) == 3
    left = list((tmp_path / "aiprof" / "gguf").glob("*.gguf"))
    assert len(left) == 1


def k_quants(name: str) -> Any:
    """A mixture of types, as files that people download have."""
    if "ffn_down" in name:
        return Kind.Q8_0
    return Kind.Q4_1 if "attn" in name else Kind.Q5_0


@needs_llamacpp
@pytest.mark.torch
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_file_of_ones_own_is_run_as_it_is(tmp_path: Path, family: str) -> None:
    arch = dataclasses.replace(
        gguf_made.WIDE, family=family, attention_bias=family == "qwen2", vocab_size=512
    )
    fields = {"tokenizer.ggml.model": "none", f"{family}.vocab_size": 512}
    path = write_gguf(tmp_path / "m.gguf", arch, k_quants, fields=fields)
    found = resolve_model(str(path))
    assert found.formats is not None
    prompt = [(7 * at) % arch.vocab_size for at in range(30)]
    every = [[list(range(arch.vocab_size))]]
    asked: dict[str, Any] = {
        "prompt_ids": [prompt],
        "output_tokens": 1,
        "forced_ids": [[]],
        "score_ids": every,
    }
    logits = {}
    for engine, python, formats in (
        ("torch", sys.executable, formats_for("fp32")), ("llamacpp", PYTHON, found.formats)
    ):  # fmt: skip
        with WorkerProcess(python, tmp_path / "worker.log") as worker:
            worker.request("hello", 120, engine=engine, options={})
            loaded = worker.request(
                "load", 120, start=0, architecture=dataclasses.asdict(found.architecture),
                weights=found.real_weights, device="cpu", formats=dataclasses.asdict(formats),
                max_batch=1, max_tokens=48, options={"threads": 1},
            )  # fmt: skip
            logits[engine] = np.array(worker.request("score", 120, **asked)["logits"][0][0])
    assert loaded["weights_bytes"] == weights_bytes(found.architecture, found.formats)
    # Activations are rounded to 8 bits, nothing else differs.
    assert np.std(logits["llamacpp"] - logits["torch"]) < 0.03 * np.std(logits["torch"])


@needs_llamacpp
def test_options_change_how_and_not_what_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arch = dataclasses.replace(architectures.LLAMA, **WIDE)
    plain, expected = generate(tmp_path, "llamacpp", PYTHON, arch, "fp32")
    for options in ({"n_batch": 7}, {"mmap": "off", "n_ubatch": 16}):
        loaded, found = generate(tmp_path, "llamacpp", PYTHON, arch, "fp32", **options)
        assert found == expected
        assert all(loaded["details"][name] == value for name, value in options.items())
    assert plain["details"]["n_gpu_layers"] == 0


@needs_llamacpp
@pytest.mark.parametrize("kv_dtype", ["q8_0", "q4_0"])
def test_a_quantised_cache_takes_what_the_accounting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kv_dtype: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arch = dataclasses.replace(architectures.LLAMA, **WIDE)
    loaded, _ = generate(tmp_path, "llamacpp", PYTHON, arch, "bf16", kv_dtype=kv_dtype)
    # Three sequences, each rounded up to 256 tokens by llama.cpp.
    assert loaded["kv_cache_bytes"] == kv_cache_bytes(arch, kv_dtype, 256, 3)
    assert loaded["kv_cache_tokens"] == 256 * 3
    assert loaded["details"]["buffers"].get("KV", loaded["kv_cache_bytes"]) == pytest.approx(
        loaded["kv_cache_bytes"], abs=10_486
    )


@needs_llamacpp
def test_a_disk_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(WorkerError, match="XDG_CACHE_HOME") as caught:
        generate(tmp_path, "llamacpp", PYTHON, architectures.QWEN2, "bf16")
    assert caught.value.kind == "weights"
