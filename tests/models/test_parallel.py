"""Models spread over devices: what divides, and what each device holds."""

from __future__ import annotations

import dataclasses

import architectures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.models import accounting
from profiler.models.catalogue import resolve_model
from profiler.models.formats import formats_for
from profiler.models.parallel import ONE_DEVICE, Parallel, device_share, stage_layers, why_not

R1 = resolve_model("deepseek-r1", False).architecture
LLAMA = resolve_model("llama-3.1-8b", False).architecture


@pytest.mark.parametrize(
    ("arch", "parallel", "words"),
    [
        (LLAMA, Parallel(tp=3), "--tp 3 does not divide the 32 attention heads"),
        (LLAMA, Parallel(pp=33), "--pp 33 is more than the 32 layers"),
        (LLAMA, Parallel(ep=2), "the model has no experts"),
        (R1, Parallel(tp=8, ep=4), "--ep 4 must be --tp x --dp = 8"),
        (dataclasses.replace(LLAMA, kv_heads=6, heads=48), Parallel(tp=4), "neither divides the 6 KV heads"),
        (dataclasses.replace(LLAMA, intermediate_size=14335), Parallel(tp=2), "width of 14335"),
    ],
)
def test_what_does_not_divide_is_said(arch: object, parallel: Parallel, words: str) -> None:
    assert words in str(why_not(arch, parallel))  # type: ignore[arg-type]


def test_what_divides_is_not_refused() -> None:
    for parallel in (
        ONE_DEVICE,
        Parallel(tp=8),
        Parallel(tp=8, ep=8),
        Parallel(tp=4, pp=2),
        Parallel(dp=8, ep=8),
    ):
        assert why_not(R1, parallel) is None
    assert why_not(LLAMA, Parallel(tp=16)) is None  # more ranks than KV heads: they are kept twice


def test_layers_that_do_not_divide_go_to_the_stages_before_the_last() -> None:
    # vLLM 0.32, get_pp_indices(61, 0..3, 4): (0, 15), (15, 30), (30, 46), (46, 61).
    assert [(one.start, one.stop) for one in stage_layers(61, 4)] == [(0, 15), (15, 30), (30, 46), (46, 61)]


@given(st.integers(1, 200), st.integers(1, 32))
def test_every_layer_is_in_one_stage(layers: int, stages: int) -> None:
    found = stage_layers(layers, min(stages, layers))
    assert [layer for one in found for layer in one] == list(range(layers))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("arch", [R1, LLAMA, *architectures.SMALL], ids=lambda arch: arch.family)
def test_one_device_holds_everything(arch: object) -> None:
    formats = formats_for("bf16")
    share = device_share(arch, formats, ONE_DEVICE, tokens=100, batch=3)  # type: ignore[arg-type]
    assert share.weights_bytes == accounting.weights_bytes(arch, formats)  # type: ignore[arg-type]
    assert share.kv_cache_bytes == accounting.kv_cache_bytes(arch, "bf16", 100, 3)  # type: ignore[arg-type]


def test_eight_devices_hold_a_little_more_than_an_eighth_of_r1() -> None:
    formats = formats_for("fp8-block128")
    whole = accounting.weights_bytes(R1, formats)
    share = device_share(R1, formats, Parallel(tp=8, ep=8), tokens=1000, batch=8)
    # Norms, routers and latent attention's small projections are on every device.
    assert 1 / 8 < share.weights_bytes / whole < 1.05 / 8
    # The latent cache is one for all heads, so every rank has it.
    assert share.kv_cache_bytes == accounting.kv_cache_bytes(R1, formats.kv_dtype, 1000, 8)
    copies = device_share(R1, formats, Parallel(dp=8, ep=8), tokens=1000, batch=8)
    assert copies.kv_cache_bytes * 8 == share.kv_cache_bytes
    assert copies.weights_bytes > share.weights_bytes  # attention is there eight times


def test_heads_and_stages_share_the_cache() -> None:
    formats = formats_for("bf16")
    whole = accounting.kv_cache_bytes(LLAMA, "bf16", 1000, 4)
    assert device_share(LLAMA, formats, Parallel(tp=4), tokens=1000, batch=4).kv_cache_bytes == whole // 4
    assert device_share(LLAMA, formats, Parallel(pp=4), tokens=1000, batch=4).kv_cache_bytes == whole // 4
    assert device_share(LLAMA, formats, Parallel(tp=16), tokens=1000, batch=4).kv_cache_bytes == whole // 8
