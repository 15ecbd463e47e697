"""The torch engine with the weights of a GGUF file, which is what llama.cpp is held against."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import architectures
import numpy as np
import pytest
import torch
from gguf_made import WIDE, Kind, all_in, write_gguf
from torch_formats import FP32

from profiler.models.architecture import Architecture
from profiler.worker import gguf_checkpoint
from profiler.worker.protocol import EngineError
from profiler.worker.torch_engine import TorchEngine

pytestmark = pytest.mark.torch
PROMPT = [3, 1, 41, 59, 26, 53]


def scored(arch: Architecture, weights: dict[str, Any]) -> Any:
    """Return the logits of every token after the prompt, float64 ``[vocabulary]``."""
    engine = TorchEngine()
    engine.load(
        {
            "architecture": dataclasses.asdict(arch), "weights": weights, "device": "cpu", "formats": FP32,
            "max_batch": 1, "max_tokens": 16, "options": {"threads": 1, "linear": "plain"},
        }
    )  # fmt: skip
    answer = engine.score(
        {
            "prompt_ids": [PROMPT], "output_tokens": 1, "forced_ids": [[]],
            "score_ids": [[list(range(arch.vocab_size))]],
        }
    )  # fmt: skip
    return np.array(answer["logits"][0][0])


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", Kind.Q4_0), ("qwen2", Kind.Q8_0)], ids=("llama", "qwen2")
)
def test_logits_are_those_of_transformers_from_the_same_file(tmp_path: Path, family: str, kind: Any) -> None:
    transformers = pytest.importorskip("transformers")
    arch = dataclasses.replace(WIDE, family=family, attention_bias=family == "qwen2")
    write_gguf(tmp_path / "m.gguf", arch, all_in(kind), tokens=arch.vocab_size)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    ).eval()  # fmt: skip
    with torch.inference_mode():
        expected = reference(torch.tensor([PROMPT])).logits[0, -1].numpy()
    found = scored(arch, {"kind": "file", "path": str(tmp_path / "m.gguf")})
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "arch", [*architectures.SMALL[:3], architectures.QWEN3_MOE_ONLY], ids=lambda arch: arch.family
)
def test_a_file_that_we_wrote_gives_the_weights_it_was_written_from(
    tmp_path: Path, arch: Architecture
) -> None:
    path = str(tmp_path / "m.gguf")
    gguf_checkpoint.write(path, dataclasses.asdict(arch), "fp32", "fidelity", 7)
    found = scored(arch, {"kind": "file", "path": path})
    # NumPy and PyTorch scale the same numbers and may round the last bit apart.
    assert np.allclose(found, scored(arch, {"kind": "fidelity", "seed": 7}), rtol=1e-4, atol=1e-4)


def test_parts_are_read_together(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf", kind_of=all_in(Kind.Q5_0))
    for number in range(2):
        path = tmp_path / f"m-{number + 1:05}-of-00002.gguf"
        write_gguf(path, kind_of=all_in(Kind.Q5_0), keep=range(number, 1000, 2).__contains__)
    expected = scored(WIDE, {"kind": "file", "path": str(whole)})
    found = scored(WIDE, {"kind": "file", "path": str(tmp_path / "m-00001-of-00002.gguf")})
    assert np.array_equal(found, expected)


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", dataclasses.replace(WIDE, layers=1))
    with pytest.raises(EngineError, match=r"m\.gguf: tensors missing or misshapen: blk\.1\.attn_norm"):
        scored(WIDE, {"kind": "file", "path": str(path)})
    path.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(EngineError, match=r"m\.gguf: cannot be read") as caught:
        scored(WIDE, {"kind": "file", "path": str(path)})
    assert caught.value.kind == "weights"
