"""The safetensors reader: what the real package writes, and what nobody should."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler.worker import safetensors_reader
from profiler.worker.protocol import EngineError
from profiler.worker.safetensors_reader import Checkpoint, read_header

pytestmark = pytest.mark.torch

MIXED = {
    "a.weight": torch.arange(35, dtype=torch.float32).reshape(5, 7) / 8,
    "b.weight": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "c.bias": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "d.weight": torch.tensor([[1.25]], dtype=torch.float64),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 4),
}


def write(path: Path, header: Any, data: bytes = b"", pad: int = 0) -> Path:
    """Write a file with any header, also one that makes no sense."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) + pad) + text + b" " * pad + data)
    return path


def tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def fault(folder: Path) -> str:
    with pytest.raises(EngineError) as caught:
        Checkpoint(str(folder))
    assert caught.value.kind == "weights"
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_of_every_float_format_are_converted(tmp_path: Path, dtype: Any) -> None:
    safetensors.torch.save_file(MIXED, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint(str(tmp_path))
    assert {name: entry.shape for name, entry in checkpoint.tensors.items()} == {
        name: tuple(value.shape) for name, value in MIXED.items()
    }
    for name, value in MIXED.items():
        destination = torch.full(value.shape, 99.0, dtype=dtype)
        checkpoint.copy(name, destination)
        assert torch.equal(destination, value.to(dtype)), name


def test_a_tensor_is_copied_in_parts_and_into_part_of_a_fused_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_reader, "_COPY_BYTES", 4096)
    value = torch.randn(3, 7001)
    safetensors.torch.save_file({"x": torch.ones(5), "y": value}, tmp_path / "model.safetensors")
    fused = torch.zeros(5, 7001)
    Checkpoint(str(tmp_path)).copy("y", fused[1:4])
    assert torch.equal(fused[1:4], value)
    assert not fused[[0, 4]].any()


def test_data_at_an_odd_byte_is_read(tmp_path: Path) -> None:
    header = {"x": tensor()}
    pad = 1 - len(json.dumps(header)) % 2
    write(tmp_path / "model.safetensors", header, struct.pack("<2f", 1.5, -3.0), pad=pad)
    destination = torch.zeros(2)
    checkpoint = Checkpoint(str(tmp_path))
    assert checkpoint.tensors["x"].begin % 4
    checkpoint.copy("x", destination)
    assert destination.tolist() == [1.5, -3.0]


def test_integers_and_fp8_are_known_but_not_read(tmp_path: Path) -> None:
    safetensors.torch.save_file({"q": torch.ones(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(str(tmp_path))
    with pytest.raises(EngineError, match="q is I8"):
        checkpoint.copy("q", torch.zeros(4))


BAD_HEADERS: dict[str, tuple[Any, bytes, str]] = {
    "not JSON": (b"{", b"", "not valid JSON"),
    "not UTF-8": (b"\xff\xfe", b"", "not valid JSON"),
    "not an object": ([], b"", "JSON object"),
    "deep": (b"[" * 200_000, b"", "not valid JSON"),
    "a number of a million digits": (b'{"x": ' + b"9" * 1_000_000 + b"}", b"", "not valid JSON"),
    "one name twice": (b'{"x": {}, "x": {}}', b"", "twice"),
    "entry is a list": ({"x": []}, b"", "no dtype"),
    "no shape": ({"x": {"dtype": "F32", "data_offsets": [0, 0]}}, b"", "no dtype"),
    "unknown dtype": ({"x": tensor("F33")}, b"\0" * 8, "F33"),
    "dtype is a list": ({"x": tensor([])}, b"\0" * 8, "unknown dtype"),
    "negative shape": ({"x": tensor(shape=[-1, -2])}, b"\0" * 8, "shape"),
    "boolean shape": ({"x": tensor(shape=[True, 2])}, b"\0" * 8, "shape"),
    "float shape": ({"x": tensor(shape=[2.0])}, b"\0" * 8, "shape"),
    "huge shape": ({"x": tensor(shape=[2**62, 2**62])}, b"\0" * 8, "do not fit"),
    "many dimensions": ({"x": tensor(shape=[1] * 100_000)}, b"\0" * 8, "short list"),
    "shape too large for data": ({"x": tensor(shape=[3])}, b"\0" * 8, "do not fit"),
    "one offset": ({"x": tensor(offsets=[0])}, b"\0" * 8, "data_offsets"),
    "negative offset": ({"x": tensor(offsets=[-8, 0])}, b"\0" * 8, "data_offsets"),
    "backwards": ({"x": tensor(offsets=[8, 0])}, b"\0" * 8, "do not fit"),
    "beyond the file": ({"x": tensor(offsets=[8, 16])}, b"\0" * 8, "starts at byte"),
    "data cut off": ({"x": tensor()}, b"\0" * 7, "truncated"),
    "data too long": ({"x": tensor()}, b"\0" * 9, "the file at"),
    "overlap": ({"x": tensor(), "y": tensor(offsets=[4, 12])}, b"\0" * 12, "starts at byte"),
    "hole": ({"x": tensor(), "y": tensor(offsets=[12, 20])}, b"\0" * 20, "starts at byte"),
    "same place": ({"x": tensor(), "y": tensor()}, b"\0" * 8, "starts at byte"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_bad_header_is_named(tmp_path: Path, case: str) -> None:
    header, data, expected = BAD_HEADERS[case]
    path = write(tmp_path / "model.safetensors", header, data)
    message = fault(tmp_path)
    assert expected in message
    assert message.startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\xff" * 8, struct.pack("<Q", 100) + b"{}"])
def test_a_bad_header_length(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert "model.safetensors: " in fault(tmp_path)


def test_a_header_longer_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_001))
        file.truncate(200_000_000)  # sparse
    assert "100000001" in fault(tmp_path)


@given(st.binary(max_size=200), st.booleans())
def test_no_file_makes_the_reader_fail_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, framed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(struct.pack("<Q", len(content)) + content if framed else content)
    assert_refused_or_inside(path)


@given(st.data())
def test_no_changed_byte_makes_an_entry_leave_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(safetensors.torch.save(MIXED))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(content)
    assert_refused_or_inside(path)


def assert_refused_or_inside(path: Path) -> None:
    try:
        entries = read_header(str(path))
    except EngineError:
        return
    assert all(8 <= entry.begin <= entry.end <= path.stat().st_size for entry in entries.values())


def shards(folder: Path, weight_map: dict[str, Any]) -> None:
    """Write an index, and for each shard in it that is a plain name a file with its tensors."""
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    names = {value for value in weight_map.values() if isinstance(value, str)}
    for shard in (name for name in names if re.fullmatch(r"[a-z]+\.safetensors", name)):
        held = {name: torch.full((2,), 1.0) for name, file in weight_map.items() if file == shard}
        safetensors.torch.save_file(held, folder / shard)


def test_shards_are_read_through_the_index(tmp_path: Path) -> None:
    shards(tmp_path, {"x": "one.safetensors", "y": "two.safetensors", "z": "one.safetensors"})
    checkpoint = Checkpoint(str(tmp_path))
    assert {name: Path(entry.file).name for name, entry in checkpoint.tensors.items()} == {
        "x": "one.safetensors",
        "y": "two.safetensors",
        "z": "one.safetensors",
    }


def test_every_missing_and_damaged_shard_is_named(tmp_path: Path) -> None:
    shards(tmp_path, {name: f"{name}.safetensors" for name in ("gone", "cut", "good", "other")})
    (tmp_path / "gone.safetensors").unlink()
    os.truncate(tmp_path / "cut.safetensors", 70)
    safetensors.torch.save_file({"good": torch.ones(2)}, tmp_path / "other.safetensors")
    message = fault(tmp_path)
    assert "gone.safetensors: cannot be read: No such file" in message
    assert "cut.safetensors: " in message
    assert "other.safetensors: lacks other" in message
    assert "more than one shard holds " in message


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "\ud800.safetensors",
        "a\0.safetensors",
        "..\\x.safetensors",
        "x.bin",
        "",
        7,
        None,
        [],
    ],
)
def test_an_index_cannot_point_outside_its_folder(tmp_path: Path, shard: Any) -> None:
    shards(tmp_path, {"x": shard})
    assert "names no shard" in fault(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {}}', b"[" * 10**6]
)
def test_a_bad_index_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    assert "model.safetensors.index.json: " in fault(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    assert "holds neither" in fault(tmp_path)
    assert "holds neither" in fault(tmp_path / "nowhere")


def test_what_is_not_a_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    assert "not a regular file" in fault(tmp_path)


def test_a_link_to_nowhere_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    assert "No such file" in fault(tmp_path)
