"""The compiled kernels against PyTorch's operators, for every instruction set that runs here."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from compilers import has_compiler

from profiler.worker import native
from profiler.worker.native import NativeError
from profiler.worker.random_weights import RandomWeights

pytestmark = [pytest.mark.torch, pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")]

# What native.cpp has code for: this CPU's own instructions, AVX2, and none in particular.
TARGETS = {"native": None, "avx2": ("-mavx2", "-mfma"), "generic": ()}
ODD_SHAPES = [(1, 1), (3, 31), (5, 33), (64, 64), (130, 200), (77, 129)]
BOUNDS = {torch.bfloat16: 2**-7, torch.float32: 1e-5}


@pytest.fixture(scope="module", params=TARGETS)
def library(request: pytest.FixtureRequest) -> Any:
    flags = TARGETS[request.param]
    if flags is None:
        return native.load_library()
    if request.param == "avx2" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no AVX2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "FLAGS", (*native.FLAGS, *flags))
        patch.setattr(native, "TARGETS", ("-mtune=generic",))
        return native.load_library.__wrapped__()


def noise(*shape: int, dtype: Any, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(found: Any, expected: Any, bound: float) -> None:
    assert found.shape == expected.shape
    largest = float(expected.abs().max()) or 1.0
    assert float((found.double() - expected.double()).abs().max()) <= bound * largest


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_linear_is_that_of_pytorch(library: Any, dtype: Any, batch: int) -> None:
    kernels = library.kernels(dtype)
    for rows, columns in ODD_SHAPES:
        x, weight = noise(batch, columns, dtype=dtype), noise(rows, columns, dtype=dtype, seed=1)
        for bias in (None, noise(rows, dtype=dtype, seed=2)):
            exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
            assert_close(kernels.linear(x, weight, bias), exact, BOUNDS[dtype])


def test_a_sequence_gets_the_same_bits_alone_and_in_a_batch(library: Any) -> None:
    kernels = library.kernels(torch.bfloat16)
    x, weight = noise(8, 200, dtype=torch.bfloat16), noise(130, 200, dtype=torch.bfloat16, seed=1)
    together = kernels.linear(x, weight, None)
    for index in range(8):
        assert torch.equal(kernels.linear(x[index : index + 1], weight, None)[0], together[index])


def test_more_threads_than_rows(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    x, weight = noise(2, 40, dtype=torch.float32), noise(2, 40, dtype=torch.float32, seed=1)
    assert_close(library.kernels(torch.float32).linear(x, weight, None), F.linear(x, weight), 1e-5)


def test_the_mlp_adds_to_the_stream(library: Any) -> None:
    stream, norm = noise(3, 1, 72, dtype=torch.float32), noise(72, dtype=torch.float32, seed=1)
    gate_up = noise(2 * 104, 72, dtype=torch.float32, seed=2)
    down = noise(72, 104, dtype=torch.float32, seed=3)
    gate, up = F.linear(F.rms_norm(stream, (72,), norm, 1e-5), gate_up).chunk(2, -1)
    expected = stream + F.linear(F.silu(gate) * up, down)
    library.kernels(torch.float32).mlp(norm, gate_up, down, 1e-5).step(stream, 0)
    assert_close(stream, expected, 1e-5)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_gating_is_that_of_pytorch(library: Any, dtype: Any) -> None:
    gate_up = noise(2, 5, 2 * 77, dtype=dtype) * 20  # far into both ends of the exponential
    gate, up = gate_up.double().chunk(2, -1)
    assert_close(library.kernels(dtype).gate(gate_up), F.silu(gate) * up, BOUNDS[dtype])


@pytest.mark.parametrize("batch", [1, 5])
def test_the_first_of_equal_logits_is_the_token(library: Any, batch: int) -> None:
    """As argmax does; in bf16 equal logits are common."""
    dtype, norm = torch.bfloat16, torch.ones(64, dtype=torch.bfloat16)
    weight = noise(40, 64, dtype=dtype).repeat(3, 1)  # every logit three times
    last = noise(batch, 64, dtype=dtype, seed=1)
    logits, best = library.kernels(dtype).head(norm, weight, 1e-6)(last)
    assert torch.equal(best, logits.float().argmax(-1, keepdim=True))
    assert best.max() < 40
    exact = F.linear(F.rms_norm(last.double(), (64,), eps=1e-6), weight.double())
    assert_close(logits, exact, 2**-5)


def test_a_negative_infinity_everywhere_is_no_crash(library: Any) -> None:
    weight = torch.full((9, 16), float("nan"))
    _, best = library.kernels(torch.float32).head(torch.ones(16), weight, 1e-6)(torch.ones(1, 16))
    assert 0 <= int(best) < 9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 2047, 2048, 2049, 4097, 131_073])
def test_random_weights_are_bit_identical(library: Any, dtype: Any, size: int) -> None:
    slow, fast = torch.empty(size, dtype=dtype), torch.full((size,), 7, dtype=dtype)
    RandomWeights(3, "cpu").fill("some.weight", slow)
    RandomWeights(3, "cpu", library).fill("some.weight", fast)
    assert torch.equal(slow, fast)


def test_random_weights_of_another_width_are_made_by_pytorch(library: Any) -> None:
    slow, fast = torch.empty(100, dtype=torch.float64), torch.empty(100, dtype=torch.float64)
    RandomWeights(3, "cpu").fill("some.weight", slow)
    RandomWeights(3, "cpu", library).fill("some.weight", fast)
    assert torch.equal(slow, fast)


def test_there_are_no_kernels_for_fp16(library: Any) -> None:
    assert library.kernels(torch.float16) is None


def test_the_record_names_compiler_and_instructions(library: Any) -> None:
    assert set(library.details) == {"compiler", "instructions"}
    assert all(library.details.values())
    assert "/" not in library.details["compiler"]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Look for the library as a new process with an empty cache would."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return native.load_library.__wrapped__


@pytest.fixture
def quick_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tmp_path / "native.cpp"
    source.write_text(
        'extern "C" __attribute__((visibility("default"))) const char* instructions() { return "none"; }\n'
    )
    monkeypatch.setattr(native, "SOURCE", str(source))
    return source


def test_it_is_compiled_once_for_each_source(fresh: Callable[[], Any], quick_source: Path) -> None:
    assert fresh().compile_s > 0
    assert fresh().compile_s is None
    quick_source.write_text(quick_source.read_text().replace("none", "some"))
    again = fresh()
    assert again.compile_s > 0
    assert again.details["instructions"] == "some"
    folder = Path(native.cache_folder())
    assert len(list(folder.iterdir())) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_source_that_does_not_compile_is_said_in_one_line(
    fresh: Callable[[], Any], quick_source: Path
) -> None:
    quick_source.write_text("nonsense;\n")
    with pytest.raises(NativeError, match=r"cannot compile the kernels: native\.cpp:1:\d+: error") as caught:
        fresh()
    assert "\n" not in str(caught.value)
    assert list(Path(native.cache_folder()).iterdir()) == []


def test_a_library_that_does_not_load_is_said_and_compiled_again(
    fresh: Callable[[], Any], quick_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(native, "_compile", lambda command, path: Path(path).write_bytes(b"torn") and None)
        with pytest.raises(NativeError, match=r"cannot be loaded: native-[0-9a-f]{16}\.so"):
            fresh()
    assert fresh().compile_s > 0


def test_without_a_compiler_the_reason_names_what_was_looked_for(
    fresh: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NativeError, match=r"no C\+\+ compiler \(g\+\+, c\+\+, clang\+\+\)"):
        fresh()
    monkeypatch.setenv("CXX", "mine")
    with pytest.raises(NativeError, match="mine"):
        fresh()


def test_a_cache_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aiprof").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = Path(native.cache_folder())
    try:
        assert os.access(folder, os.W_OK)
        assert tmp_path not in folder.parents
    finally:
        folder.rmdir()
