"""Models in GGUF files, written by the ``gguf`` package: what they are, what they take, and bad files."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import architectures
import gguf
import numpy as np
import pytest
from gguf_made import WIDE, Kind, all_in, write_gguf

from profiler.errors import InputFileError, UsageError
from profiler.models.accounting import decode_step_bytes, parameters, weights_bytes
from profiler.models.architecture import Architecture
from profiler.models.catalogue import resolve_model
from profiler.models.gguf_architecture import ROPE_FACTORS, llama3_factors
from profiler.models.gguf_file import MAX_ELEMENTS, read_gguf
from profiler.models.gguf_model import read_gguf_model
from profiler.models.gguf_types import FILE_TYPES, TYPES

KINDS = gguf.GGMLQuantizationType
SMALL = [
    replace(arch, rope_scaling=None)
    for arch in (architectures.LLAMA, architectures.QWEN2, architectures.QWEN3)
]


def refusal(path: Path) -> str:
    with pytest.raises(InputFileError) as caught:
        read_gguf_model(path)
    return str(caught.value)


def test_the_types_are_those_of_the_gguf_package() -> None:
    theirs = {
        int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items() if int(kind) in TYPES
    }
    assert {number: tuple(kind) for number, kind in TYPES.items()} == theirs
    names = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    assert {number: name for number, (name, _) in FILE_TYPES.items()} == {
        number: names[number] for number in FILE_TYPES
    }
    assert {base for _, base in FILE_TYPES.values()} <= {kind.name for kind in TYPES.values()}


@pytest.mark.parametrize("arch", [*SMALL, architectures.QWEN3_MOE_ONLY], ids=lambda arch: arch.family)
def test_the_architecture_is_the_one_that_was_written(tmp_path: Path, arch: Architecture) -> None:
    found = read_gguf_model(write_gguf(tmp_path / "m.gguf", arch))
    assert found.architecture == arch
    assert found.formats.weight_format == "fp32"
    assert weights_bytes(found.architecture, found.formats) == 4 * parameters(arch).total


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_K", "Q6_K", "IQ4_XS", "IQ2_XXS", "MXFP4", "BF16", "F16"])
def test_the_bytes_are_those_of_the_tensors(tmp_path: Path, kind: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", kind_of=all_in(KINDS[kind]))
    found = read_gguf_model(path)
    assert found.formats.weight_format == {"BF16": "bf16", "F16": "fp16"}.get(kind, kind.lower())
    stored = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)
    assert weights_bytes(found.architecture, found.formats) == stored
    # A tied embedding is read whole, as everything else.
    assert decode_step_bytes(found.architecture, found.formats, 1, 1).weights_read == stored


def test_a_mixture_is_called_what_the_file_calls_itself_if_that_is_true(tmp_path: Path) -> None:
    def mixed(name: str) -> Kind:
        return KINDS.Q6_K if "ffn_down" in name or "attn_v" in name or "token" in name else KINDS.Q4_K

    claims = {"general.file_type": int(gguf.LlamaFileType.MOSTLY_Q4_K_M)}
    found = read_gguf_model(write_gguf(tmp_path / "m.gguf", kind_of=mixed, fields=claims))
    assert (found.formats.weight_format, found.formats.compute_dtype, found.formats.kv_dtype) == (
        "q4_k_m", "int8", "fp16",
    )  # fmt: skip
    assert set(found.details["tensor_types"]) == {"Q4_K", "Q6_K", "F32"}
    lies = {"general.file_type": int(gguf.LlamaFileType.MOSTLY_Q8_0)}
    other = read_gguf_model(write_gguf(tmp_path / "n.gguf", kind_of=mixed, fields=lies))
    assert other.formats.weight_format == "q4_k"


def test_of_an_untied_embedding_only_rows_are_read(tmp_path: Path) -> None:
    untied = replace(WIDE, tied_embeddings=False)
    found = read_gguf_model(write_gguf(tmp_path / "m.gguf", untied, all_in(KINDS.Q8_0)))
    whole, row = weights_bytes(untied, found.formats), 256 // 32 * 34
    assert decode_step_bytes(untied, found.formats, 2, 1).weights_read == whole - 62 * row


def test_real_world_spellings_give_the_same_work(tmp_path: Path) -> None:
    """No key_length, KV heads per layer, numbers rounded to 32 bits, and unity factors."""
    fields = {
        "llama.attention.key_length": None,
        "llama.attention.head_count_kv": [4, 4],
        "llama.rope.dimension_count": 64,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    extra = [(ROPE_FACTORS, np.ones(32, np.float32))]
    found = read_gguf_model(write_gguf(tmp_path / "m.gguf", fields=fields, extra=extra, tokens=64))
    assert found.architecture == WIDE
    assert found.details["vocabulary_tokens"] == 64


def test_llama_3s_scaling_is_known_by_its_factors(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    arch = replace(WIDE, rope_theta=500_000.0)
    factors = np.array(llama3_factors(500_000.0, 32, scaling), np.float32)
    path = write_gguf(tmp_path / "m.gguf", arch, extra=[(ROPE_FACTORS, factors)])
    assert read_gguf_model(path).architecture.rope_scaling == scaling
    odd = write_gguf(tmp_path / "n.gguf", arch, extra=[(ROPE_FACTORS, factors * 1.5)])
    assert (read_gguf_model(odd).architecture.rope_scaling or {})["rope_type"] == "table"
    broken = write_gguf(tmp_path / "o.gguf", arch, extra=[(ROPE_FACTORS, np.zeros(32, np.float32))])
    assert "no factor" in refusal(broken)


def test_our_factors_are_those_that_the_worker_writes(tmp_path: Path) -> None:
    from profiler.worker.gguf_checkpoint import _rope_factors

    written = _rope_factors(
        {"head_dim": 8, "rope_theta": 10_000.0, "rope_scaling": architectures.LLAMA3_SCALING}
    )
    assert np.allclose(written, llama3_factors(10_000.0, 4, architectures.LLAMA3_SCALING))


def test_yarn_is_read(tmp_path: Path) -> None:
    fields = {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 128,
    }
    found = read_gguf_model(write_gguf(tmp_path / "m.gguf", fields=fields)).architecture.rope_scaling
    assert found == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def parts(folder: Path, count: int = 2) -> list[Path]:
    made = []
    for number in range(count):
        fields = {"split.no": number, "split.count": count}
        path = folder / f"big-Q8_0-{number + 1:05}-of-{count:05}.gguf"
        of_part = range(number, 1000, count).__contains__
        made.append(write_gguf(path, kind_of=all_in(KINDS.Q8_0), fields=fields, keep=of_part))
    return made


def test_parts_are_read_together_whichever_is_given(tmp_path: Path) -> None:
    first, second = parts(tmp_path)
    whole = read_gguf_model(write_gguf(tmp_path / "whole.gguf", kind_of=all_in(KINDS.Q8_0)))
    found = read_gguf_model(second)
    assert (found.path, found.details["files"]) == (first, 2)
    assert (found.architecture, found.formats) == (whole.architecture, whole.formats)
    resolved = resolve_model(str(second))
    assert (resolved.name, resolved.weights) == ("big-Q8_0", "file")
    assert resolved.real_weights == {"kind": "file", "path": str(first)}


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first, second = parts(tmp_path)
    content = second.read_bytes()
    second.write_bytes(first.read_bytes())
    assert "says it is part 0 (from 0), its name part 1" in refusal(first)
    second.unlink()
    assert "1 of 2 parts are missing (big-Q8_0-00002-of-00002.gguf" in refusal(first)
    alone = tmp_path / "renamed.gguf"
    alone.write_bytes(content)
    assert "in 2 parts, not 1" in refusal(alone)


def test_the_digest_tells_files_apart_and_not_their_names(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    digest = read_gguf_model(path).digest
    moved = path.rename(tmp_path / "other name.gguf")
    assert read_gguf_model(moved).digest == digest
    changed = bytearray(moved.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(changed)
    assert read_gguf_model(moved).digest != digest


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "m.gguf", tokens=64).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (*range(0, 600, 37), len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:length])
        line = refusal(cut)
        assert "\n" not in line
        assert "truncated" in line or "is not a GGUF file" in line


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(64), "version 1"),
        (b"GGML" + bytes(64), "is not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 1), "tensors"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "claims a text"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, MAX_ELEMENTS + 1), "more than any"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "unknown type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "unknown element type 9"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, head: bytes, says: str) -> None:
    (tmp_path / "m.gguf").write_bytes(head)
    assert says in refusal(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"named": "gemma3"}, "has the architecture 'gemma3'; known are llama, qwen2, qwen3, qwen3moe"),
        ({"fields": {"llama.block_count": 3}}, "lacks the tensors blk.2.attn_norm.weight"),
        ({"fields": {"llama.block_count": None}}, "llama.block_count: is missing"),
        ({"fields": {"llama.embedding_length": 128, "llama.attention.key_length": 32}}, "another shape"),
        ({"fields": {"llama.attention.head_count_kv": [4, 2]}}, "llama.attention.head_count_kv"),
        ({"fields": {"llama.expert_count": 8}}, "mixture of experts of the architecture 'llama'"),
        ({"fields": {"llama.rope.dimension_count": 32}}, "only part of each head is rotated"),
        ({"extra": [("blk.0.attn_q.bias", np.zeros(256, np.float32))]}, "not have here: blk.0.attn_q.bias"),
        ({"fields": {"llama.rope.scaling.type": "longrope"}}, "rope"),
    ],
)  # fmt: skip
def test_models_that_are_none_of_ours_are_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert says in refusal(write_gguf(tmp_path / "m.gguf", **changes))


def test_an_unknown_type_and_a_twin_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    content = path.read_bytes()
    name = b"token_embd.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8
    path.write_bytes(content[:at] + struct.pack("<I", 77) + content[at + 4 :])
    assert "type number 77" in refusal(path)
    path.write_bytes(content.replace(b"blk.1.attn_norm.weight", b"blk.0.attn_norm.weight"))
    assert "twice" in refusal(path)


def test_other_things_under_that_name(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        resolve_model(str(tmp_path / "none.gguf"))
    (tmp_path / "m.gguf").symlink_to("/dev/zero")
    with pytest.raises(InputFileError, match="not a regular file"):
        read_gguf(tmp_path / "m.gguf")
    folder = tmp_path / "folder"
    folder.mkdir()
    write_gguf(folder / "x.gguf")
    with pytest.raises(UsageError, match="give the file"):
        resolve_model(str(folder))


def test_the_command_shows_what_a_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from profiler.__main__ import main

    path = write_gguf(tmp_path / "m.gguf", kind_of=all_in(KINDS.Q5_K))
    with pytest.raises(SystemExit) as ended:
        main(["models", str(path), "--json"])
    assert ended.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["formats"]["weight_format"] == "q5_k"
    assert shown["weights_bytes"] == sum(each["bytes"] for each in shown["details"]["tensor_types"].values())
    with pytest.raises(SystemExit):
        main(["models", str(path)])
    assert "tensors in Q5_K" in capsys.readouterr().out
