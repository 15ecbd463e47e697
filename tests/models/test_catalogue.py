"""The catalogue's files, and everything that --model can stand for."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from architectures import LLAMA, QWEN2

from profiler.errors import InputFileError, UsageError
from profiler.models.architecture import Architecture
from profiler.models.catalogue import ENTRIES, catalogue, load_entries, resolve_model
from profiler.models.config import to_config
from profiler.models.hub import cache_folder, is_repo_id
from profiler.models.weights import INDEX, weight_files, weights_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_safetensors(path: Path, header: dict[str, Any], data: bytes = b"\0\0") -> bytes:
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return raw


def write_model(folder: Path, arch: Architecture = LLAMA, weights: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_config(arch)), encoding="utf-8")
    if weights:
        tensor = {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}
        write_safetensors(folder / "model.safetensors", {"x": tensor})
    return folder


def cache_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repo: str, weights: bool = True) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, encoding="ascii")
    return write_model(folder / "snapshots" / COMMIT, weights=weights)


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))


def test_catalogue_holds_the_models_that_are_asked_for() -> None:
    names = set(catalogue())
    for size in ("0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b"):
        assert f"qwen2.5-{size}" in names
    for size in ("0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b", "235b-a22b"):
        assert f"qwen3-{size}" in names
    for size in ("qwen-1.5b", "qwen-7b", "qwen-14b", "qwen-32b", "llama-8b", "llama-70b"):
        assert f"deepseek-r1-distill-{size}" in names
    assert {"deepseek-r1", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"} <= names
    assert {"llama-3.2-1b", "llama-3.2-3b"} <= names


def test_every_entry_says_where_its_numbers_come_from() -> None:
    for entry in catalogue().values():
        assert entry.parameters_source
        assert entry.licence
        assert is_repo_id(entry.hub_id)
        assert all(is_repo_id(repo) for repo in entry.same_shapes)


def test_hub_ids_name_one_entry_each() -> None:
    ids = [repo.lower() for entry in catalogue().values() for repo in (entry.hub_id, *entry.same_shapes)]
    assert len(ids) == len(set(ids))


def test_catalogue_cannot_be_changed_by_its_callers() -> None:
    catalogue().clear()
    assert catalogue()


def test_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    good = (ENTRIES / "deepseek-r1.yaml").read_text(encoding="utf-8")
    (tmp_path / "a.yaml").write_text(good.replace("hidden_size: 7168", "hidden_size: -1"), encoding="utf-8")
    (tmp_path / "b.yaml").write_text(good.replace("licence: MIT", "license: MIT"), encoding="utf-8")
    (tmp_path / "c.yaml").write_text(good, encoding="utf-8")
    (tmp_path / "d.yaml").write_text(good, encoding="utf-8")
    with pytest.raises(InputFileError) as caught:
        load_entries(tmp_path)
    faults = "\n".join(caught.value.faults)
    assert "a.yaml: deepseek-r1: config: hidden_size: must be greater than 0" in faults
    assert "licence: is missing" in faults
    assert "d.yaml: models: 'deepseek-r1' is there twice" in faults


@pytest.mark.parametrize("selector", ["qwen3-8b", "Qwen3-8B", "Qwen/Qwen3-8B", "qwen/qwen3-8b-base"])
def test_names_and_hub_ids_of_the_catalogue(selector: str) -> None:
    resolved = resolve_model(selector)
    assert resolved.name == "qwen3-8b"
    assert resolved.architecture == catalogue()["qwen3-8b"].architecture
    assert (resolved.weights, resolved.folder, resolved.weights_digest) == ("random", None, None)


def test_folder_without_weights_is_random(tmp_path: Path) -> None:
    resolved = resolve_model(str(write_model(tmp_path / "mine", QWEN2, weights=False)))
    assert (resolved.name, resolved.weights, resolved.folder) == ("mine", "random", None)
    assert resolved.architecture == QWEN2


def test_folder_with_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    resolved = resolve_model(str(folder))
    assert (resolved.weights, resolved.folder) == ("folder", folder)
    assert resolved.weights_digest == weights_digest(weight_files(folder))
    assert str(tmp_path) not in resolved.source + resolved.name


def test_hub_id_in_the_cache_is_real_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = cache_model(monkeypatch, tmp_path, "Qwen/Qwen3-8B")
    resolved = resolve_model("qwen/qwen3-8b")
    assert (resolved.name, resolved.weights, resolved.folder) == ("Qwen/Qwen3-8B", "folder", snapshot)
    assert resolved.source == f"Hugging Face hub, Qwen/Qwen3-8B at {COMMIT}"
    assert resolve_model("qwen3-8b").weights == "random", "the name stays what it is on every box"


@pytest.mark.parametrize("reference", ["", "../../../outside", "main", "0123"])
def test_cache_with_a_strange_reference_is_no_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reference: str
) -> None:
    snapshot = cache_model(monkeypatch, tmp_path, "some/model")
    (snapshot.parent.parent / "refs" / "main").write_text(reference, encoding="ascii")
    write_model(snapshot.parent / "main")
    assert (write_model(tmp_path / "outside") / "config.json").samefile(
        snapshot.parent / "../../../outside/config.json"
    )
    with pytest.raises(UsageError, match="neither in the local Hugging Face cache nor in the catalogue"):
        resolve_model("some/model")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
    ],
)
def test_where_the_cache_is(environ: dict[str, str], expected: str) -> None:
    assert cache_folder(environ) == Path(expected).expanduser()


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'qwen3-8'; did you mean 'qwen3-8b'\? \(known: "):
        resolve_model("qwen3-8")


def test_unknown_paths_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        resolve_model(str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=r"no config.json in this folder"):
        resolve_model(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no such folder"):
        resolve_model(str(tmp_path / "file"))


def test_download_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="run 'pip install huggingface_hub', or give a folder"):
        resolve_model("some/model", allow_download=True)


class FakeHub(ModuleType):
    def __init__(self, answer: Path | Exception) -> None:
        super().__init__("huggingface_hub")
        self.answer = answer
        self.asked: list[str] = []

    def snapshot_download(self, repo: str, allow_patterns: list[str]) -> str:
        self.asked.append(repo)
        assert all(pattern.endswith((".json", ".safetensors")) for pattern in allow_patterns)
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_download_only_when_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = FakeHub(write_model(tmp_path / COMMIT))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert resolve_model("Qwen/Qwen3-8B").weights == "random"
    assert hub.asked == []
    resolved = resolve_model("Qwen/Qwen3-8B", allow_download=True)
    assert hub.asked == ["Qwen/Qwen3-8B"]
    assert (resolved.weights, resolved.folder) == ("folder", tmp_path / COMMIT)


def test_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub(OSError("401 Client Error\nmore lines")))
    with pytest.raises(UsageError, match=r"cannot download 'some/model' .*: 401 Client Error$"):
        resolve_model("some/model", allow_download=True)


def test_digest_is_over_names_sizes_headers_and_samples(tmp_path: Path) -> None:
    header = write_safetensors(tmp_path / "b.safetensors", {"x": 1})
    other = write_safetensors(tmp_path / "a.safetensors", {"y": 2}, b"123")
    expected = hashlib.sha256()
    for name, raw, size in (("a", other, len(other) + 11), ("b", header, len(header) + 10)):
        # A file smaller than a sample is read from its beginning 64 times.
        whole = (tmp_path / f"{name}.safetensors").read_bytes()
        parts = (f"{name}.safetensors", str(size), hashlib.sha256(raw).hexdigest())
        expected.update("\0".join((*parts, hashlib.sha256(whole * 64).hexdigest())).encode() + b"\n")
    files = weight_files(tmp_path)
    assert [path.name for path in files] == ["a.safetensors", "b.safetensors"]
    assert weights_digest(files) == weights_digest(files[::-1]) == expected.hexdigest()
    write_safetensors(tmp_path / "b.safetensors", {"z": 1})
    assert weights_digest(files) != expected.hexdigest()


def test_two_trainings_with_the_same_layout_have_different_digests(tmp_path: Path) -> None:
    digests = set()
    for number in range(3):
        write_safetensors(tmp_path / "model.safetensors", {"x": 1}, bytes([number]) * 1_000_000)
        digests.add(weights_digest(weight_files(tmp_path)))
    assert len(digests) == 3


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", struct.pack("<Q", 0), struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]"],
)
def test_other_files_are_no_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match="is not a safetensors file"):
        weights_digest((path,))


def test_index_says_which_files_belong(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model-1.safetensors", {})
    write_safetensors(tmp_path / "consolidated.safetensors", {})
    index = tmp_path / INDEX
    index.write_text(json.dumps({"weight_map": {"x": "model-1.safetensors"}}), encoding="utf-8")
    assert [path.name for path in weight_files(tmp_path)] == ["model-1.safetensors"]
    index.write_text(json.dumps({"weight_map": {"x": "model-1.safetensors", "y": "../2"}}), encoding="utf-8")
    with pytest.raises(InputFileError, match=r"1 of 2 weight files are missing \(\.\./2\)"):
        weight_files(tmp_path)
    for content in ("[", "[]", '{"weight_map": {"x": 1}}', '{"weight_map": []}'):
        index.write_text(content, encoding="utf-8")
        with pytest.raises(InputFileError, match="is not an index"):
            weight_files(tmp_path)
