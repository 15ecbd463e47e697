"""The decoder against transformers, on small models with the real structure of each family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import DEEPSEEK_V3, LLAMA, SMALL
from compilers import has_compiler
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.models import accounting
from profiler.models.architecture import Architecture, LatentAttention
from profiler.models.formats import formats_for
from profiler.models.tensors import shapes
from profiler.worker import experts, native
from profiler.worker.decoder import Decoder
from profiler.worker.parameters import Parameters
from profiler.worker.protocol import EngineError

pytestmark = pytest.mark.torch

PROMPT, STEPS, BATCH = 37, 32, 2
needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
FAMILIES = ["llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3"]
VARIANTS = ["deepseek_v3_full_query", "qwen3_moe_unnormalised", "llama_yarn"]


def decoder_like(model: Any, layout: str = "plain") -> Decoder:
    """Return our decoder with the weights of a model of transformers and one kernel for all products."""
    parameters = Parameters(torch.float32, torch.device("cpu"), BATCH, PROMPT + STEPS)
    decoder = Decoder(model.architecture, parameters)
    theirs = model.weights()
    for name, ours in decoder.tensors():
        ours.copy_(theirs[name])
    kernels = native.load_library().kernels(torch.float32) if layout == "native" else None
    chosen = {matrix: layout for _, matrices in parameters.linears() for matrix in matrices}
    parameters.lay_out(chosen, set(), kernels, BATCH)
    if layout == "native":
        parts = decoder.fuse()
        assert ("attention" in parts) == (model.family != "deepseek_v3")
        assert {"MLP", "head"} <= {*parts} | ({"MLP"} if model.family == "qwen3_moe" else set())
    return decoder


@pytest.mark.parametrize("layout", ["plain", "packed", pytest.param("native", marks=needs_compiler)])
@pytest.mark.parametrize("family", [*FAMILIES, *VARIANTS])
def test_logits_at_prefill_and_after_each_decode_step(
    small_model: Callable[[str], Any], family: str, layout: str
) -> None:
    model = small_model(family)
    ids = torch.randint(0, 331, (BATCH, PROMPT + STEPS), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model.reference(ids).logits
        decoder = decoder_like(model, layout)
        assert expected[:, PROMPT - 1 :].std() > 0.1  # so that 1e-4 means something
        torch.testing.assert_close(
            decoder.forward(ids[:, :PROMPT], 0), expected[:, PROMPT - 1], atol=1e-4, rtol=0
        )
        for position in range(PROMPT, PROMPT + STEPS):
            logits = decoder.forward(ids[:, position : position + 1], position)
            torch.testing.assert_close(logits, expected[:, position], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_continuation(small_model: Callable[[str], Any], family: str) -> None:
    model = small_model(family)
    ids = torch.randint(0, 331, (BATCH, PROMPT), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        decoder = decoder_like(model)
        tokens = [decoder.step(ids, 0)]
        for position in range(PROMPT, PROMPT + STEPS - 1):
            tokens.append(decoder.step(tokens[-1], position))
        sequence = ids
        for _ in range(STEPS):  # without their cache, so that nothing is shared with what is tested
            best = model.reference(sequence).logits[:, -1].argmax(-1, keepdim=True)
            sequence = torch.cat((sequence, best), 1)
    assert torch.equal(torch.cat(tokens, 1), sequence[:, PROMPT:])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_prompt_of_one_token_and_part_of_the_batch(small_model: Callable[[str], Any], batch: int) -> None:
    model = small_model("llama")
    ids = torch.tensor([[7, 9, 11], [3, 5, 2]])[:batch]
    with torch.inference_mode():
        decoder = decoder_like(model)
        expected = model.reference(ids).logits
        for position in range(3):
            logits = decoder.forward(ids[:, position : position + 1], position)
            torch.testing.assert_close(logits, expected[:, position], atol=1e-4, rtol=0)


def test_a_second_prompt_sees_nothing_of_the_first(small_model: Callable[[str], Any]) -> None:
    decoder = decoder_like(small_model("qwen3"))
    long, short = torch.full((1, 30), 4), torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        fresh = decoder.forward(short, 0)
        decoder.forward(long, 0)
        assert torch.equal(decoder.forward(short, 0), fresh)


@pytest.mark.parametrize("arch", SMALL, ids=lambda arch: arch.family)
def test_tensors_are_those_of_the_catalogue_and_bytes_are_the_predicted_ones(arch: Architecture) -> None:
    for planned in (True, False):
        parameters = Parameters(torch.bfloat16, torch.device("cpu"), 3, 11, planned)
        decoder = Decoder(dataclasses.asdict(arch), parameters)
        assert {name: tuple(view.shape) for name, view in decoder.tensors()} == shapes(arch)
        assert all(view.is_contiguous() for _, view in decoder.tensors())
        assert parameters.weights_bytes == accounting.weights_bytes(arch, formats_for("bf16"))
        assert parameters.kv_cache_bytes == accounting.kv_cache_bytes(arch, "bf16", 11, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_bytes_are_the_predicted_ones(family: str) -> None:
    """Within 1%: packing pads, which a matrix of a real model hides and a tiny one does not."""
    small = next(arch for arch in SMALL if arch.family == family)
    arch = dataclasses.replace(small, hidden_size=256, vocab_size=2048, intermediate_size=512)
    if arch.experts is not None:
        arch = dataclasses.replace(arch, experts=dataclasses.replace(arch.experts, intermediate_size=64))
    if arch.latent_attention is not None:
        latent = LatentAttention(
            query_rank=96, kv_rank=64, rope_head_dim=32, nope_head_dim=32, value_head_dim=32
        )
        arch = dataclasses.replace(arch, latent_attention=latent, head_dim=64)
    parameters = Parameters(torch.bfloat16, torch.device("cpu"), 1, 8)
    Decoder(dataclasses.asdict(arch), parameters)
    parameters.pack(1)
    predicted = accounting.weights_bytes(arch, formats_for("bf16"))
    assert parameters.weights_bytes == pytest.approx(predicted, rel=0.01)
    # A tied head is looked up as it is, and multiplied with as it is packed.
    copied = 2 * arch.vocab_size * arch.hidden_size if arch.tied_embeddings else 0
    assert parameters.weight_copies_bytes == pytest.approx(copied, rel=0.01)


def test_packing_keeps_one_copy_of_each_matrix() -> None:
    parameters = Parameters(torch.float32, torch.device("cpu"), 1, 4)
    wide = dataclasses.replace(LLAMA, hidden_size=64, vocab_size=128, intermediate_size=64, head_dim=16)
    Decoder(dataclasses.asdict(wide), parameters)
    before = parameters.weights_bytes
    parameters.pack(1)
    assert parameters.weights_bytes == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"family": "gemma3"}, "gemma3"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
    ],
)
def test_what_it_would_compute_wrongly_is_refused(changes: dict[str, Any], named: str) -> None:
    arch = dataclasses.asdict(LLAMA) | changes
    with pytest.raises(EngineError, match=named) as caught:
        Decoder(arch, Parameters(torch.float32, "cpu", 1, 1, planned=True))
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize("arch", [LLAMA, DEEPSEEK_V3], ids=lambda arch: arch.family)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_never_builds_a_matrix_of_all_positions(dtype: Any, arch: Architecture) -> None:
    """With every implementation but the tiled one switched off, PyTorch raises if it does not apply."""
    decoder = Decoder(dataclasses.asdict(arch), Parameters(dtype, torch.device("cpu"), 2, 40))
    for _, tensor in decoder.tensors():
        tensor.fill_(0.01)
    tiled = torch.nn.attention.SDPBackend.FLASH_ATTENTION
    with torch.inference_mode(), torch.nn.attention.sdpa_kernel(tiled):
        decoder.forward(torch.ones(2, 30, dtype=torch.int64), 0)
        decoder.forward(torch.ones(2, 1, dtype=torch.int64), 30)


def test_latent_attention_decodes_from_the_compressed_cache_alone(small_model: Callable[[str], Any]) -> None:
    """No tensor of a decode step holds the keys or values of all heads at all positions."""
    model = small_model("deepseek_v3")
    heads, positions = 6, PROMPT + 8
    decoder = decoder_like(model)
    largest = 0

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and {positions + 1, BATCH * (positions + 1)} & {
                *result.shape
            }:
                largest = max(largest, result.numel())
            return result

    with torch.inference_mode():
        decoder.forward(torch.ones(BATCH, positions, dtype=torch.int64), 0)
        with Watch():
            decoder.forward(torch.ones(BATCH, 1, dtype=torch.int64), positions)
    compressed = BATCH * (positions + 1) * (36 + 12)
    assert 0 < largest <= compressed < BATCH * heads * (positions + 1) * (20 + 12)


@pytest.mark.parametrize("arch", SMALL, ids=lambda arch: arch.family)
@pytest.mark.parametrize("grouped", [False, True], ids=["gathered or all", "grouped"])
def test_a_decode_step_never_waits_for_an_accelerator(
    monkeypatch: pytest.MonkeyPatch, arch: Architecture, grouped: bool
) -> None:
    """Tensors without data take its place: whatever reads a value on the host raises on them."""
    monkeypatch.setattr(experts, "grouped_fault", lambda *_: None if grouped else "not here")
    parameters = Parameters(torch.bfloat16, torch.device("meta"), 2, 40)
    decoder = Decoder(dataclasses.asdict(arch), parameters)
    token = torch.zeros(2, 1, dtype=torch.int64, device="meta")
    with torch.inference_mode():
        for position in (30, 31):
            token = decoder.step(token, position)
    assert token.shape == (2, 1)


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
def test_a_slice_is_the_model_without_the_other_layers(
    small_model: Callable[[str], Any], family: str
) -> None:
    model = small_model(family)
    ids = torch.randint(0, 331, (BATCH, PROMPT), generator=torch.Generator().manual_seed(3))
    decoder = Decoder(model.architecture, Parameters(torch.float32, "cpu", BATCH, PROMPT), [0, 2])
    theirs = model.weights()
    for name, ours in decoder.tensors():
        ours.copy_(theirs[name])
    layers = model.reference.model.layers
    try:
        model.reference.model.layers = torch.nn.ModuleList([layers[0], layers[2]])
        with torch.inference_mode():
            model.reference.config.num_hidden_layers = 2
            expected = model.reference(ids, use_cache=False).logits[:, -1]
            torch.testing.assert_close(decoder.forward(ids, 0), expected, atol=1e-4, rtol=0)
    finally:
        model.reference.model.layers = layers
        model.reference.config.num_hidden_layers = 3
    assert not any(".layers.1." in name for name, _ in decoder.tensors())


def test_what_a_checkpoint_may_hold_beside_the_decoder() -> None:
    decoder = Decoder(
        dataclasses.asdict(DEEPSEEK_V3), Parameters(torch.float32, "cpu", 1, 1, planned=True), [0, 2]
    )
    assert decoder.leaves_out("model.layers.1.mlp.gate.weight")
    assert decoder.leaves_out("model.layers.3.eh_proj.weight")  # multi-token prediction
    assert decoder.leaves_out("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert not decoder.leaves_out("model.layers.2.extra")
    assert not decoder.leaves_out("lm_head.weight")
    llama = Decoder(dataclasses.asdict(LLAMA), Parameters(torch.float32, "cpu", 1, 1, planned=True))
    assert not llama.leaves_out("model.layers.2.mlp.gate.weight")
