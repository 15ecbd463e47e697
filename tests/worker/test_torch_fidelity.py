"""The fidelity check against the real torch engine, right and wrong in every way that is to be caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from architectures import NARROW, SMALL
from fidelity_emulation import round_cache, round_weights, skip_layer
from fidelity_noise import figures, load, reference_of

from profiler.measure.fidelity_artefact import Artefact, artefact_of
from profiler.measure.fidelity_limits import Judgement, judge
from profiler.measure.fidelity_reference import Reference
from profiler.models.architecture import Architecture
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import formats_for
from profiler.worker.fidelity_weights import logit_deviation

pytestmark = pytest.mark.torch


def _artefact(architecture: Architecture = NARROW) -> Artefact:
    model = ResolvedModel(
        name="small",
        architecture=architecture,
        weights="random",
        source="test",
        folder=None,
        weights_digest=None,
    )
    return artefact_of(model, seed=3)


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    return _artefact()


@pytest.fixture(scope="module")
def reference(artefact: Artefact) -> Reference:
    return reference_of(artefact)


Judged = Callable[..., Judgement]


@pytest.fixture
def judged(artefact: Artefact, reference: Reference) -> Judged:
    """Return a function from how to spoil a loaded engine to the verdict on it."""

    def run(claims: str, dtype: str = "bf16", change: Any = None, **architecture: Any) -> Judgement:
        engine = load(artefact, dtype, change, **architecture)
        return judge(figures(artefact, reference, engine), formats_for(claims))

    return run


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_engine_is_faithful_in_what_it_runs(judged: Judged, precision: str) -> None:
    found = judged(precision, precision)
    assert (found.verdict, found.reason) == ("faithful", None)
    assert found.figures.positions == 64


@pytest.mark.parametrize(
    "precision", ["fp8-block128", "w8a16-int8", "w8a8-int8", "w4a16-g128", "q8_0", "q4_0"]
)
def test_an_emulated_format_is_faithful_to_its_own_name(judged: Judged, precision: str) -> None:
    found = judged(precision, "fp16", lambda engine: round_weights(engine, precision))
    assert found.verdict == "faithful", found


def test_weights_that_torchao_quantised_are_faithful_and_no_bf16(judged: Judged) -> None:
    pytest.importorskip("torchao")
    assert judged("w8a16-int8", "w8a16-int8").verdict == "faithful"
    found = judged("bf16", "w8a16-int8")
    assert (found.verdict, found.explained_by) == ("degraded", "w8a16-int8")


def test_a_wrong_rope_base_is_wrong(judged: Judged) -> None:
    assert judged("bf16", rope_theta=10_000.0).verdict == "wrong"


@pytest.mark.parametrize("layer", [0, 1])
def test_a_skipped_layer_is_wrong(judged: Judged, layer: int) -> None:
    assert judged("bf16", change=lambda engine: skip_layer(engine, layer)).verdict == "wrong"


@pytest.mark.parametrize("precision", ["q4_0", "w4a16-g128"])
def test_weights_secretly_in_four_bits_are_degraded_and_named(judged: Judged, precision: str) -> None:
    found = judged("bf16", change=lambda engine: round_weights(engine, precision))
    assert found.verdict == "degraded"
    assert found.explained_by in ("q4_0", "w4a16-g128", "fp8-block128", "an int8 KV cache")


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_a_cache_secretly_in_eight_bits_is_degraded(judged: Judged, kv_dtype: str) -> None:
    found = judged("bf16", change=lambda engine: round_cache(engine, kv_dtype))
    assert found.verdict == "degraded", found


def test_bf16_that_claims_fp16_is_degraded(judged: Judged) -> None:
    found = judged("fp16", "bf16")
    assert (found.verdict, found.explained_by) == ("degraded", "bf16")


def test_other_weights_are_wrong(artefact: Artefact, reference: Reference) -> None:
    other = replace(artefact, weights={"kind": "fidelity", "seed": 4})
    found = judge(figures(artefact, reference, load(other, "bf16")), formats_for("bf16"))
    assert found.verdict == "wrong"


@pytest.mark.parametrize("architecture", SMALL, ids=lambda architecture: architecture.family)
def test_generated_weights_make_informative_logits_in_every_family(architecture: Architecture) -> None:
    artefact = _artefact(replace(architecture, max_positions=256))
    engine = load(artefact, "fp32")
    ids = torch.tensor([list(prompt) for prompt in artefact.prompts])
    with torch.inference_mode():
        logits = engine._model.forward(ids, 0)
    spread = float(logits.std(-1).mean())
    assert 0.4 < spread / logit_deviation(architecture.vocab_size) < 2.5
    likeliest = torch.softmax(logits, -1).max(-1)[0]
    assert float(likeliest.median()) < 0.99


def test_outliers_in_the_keys_change_nothing_in_floating_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from profiler.worker import fidelity_weights

    artefact = _artefact()
    before = reference_of(artefact)
    monkeypatch.setattr(fidelity_weights, "OUTLIER", 1.0)
    without = reference_of(artefact)
    for one, other in zip(before.scored, without.scored, strict=True):
        assert one.tokens == other.tokens
        assert one.log_sum_exp == pytest.approx(other.log_sum_exp, abs=1e-4)
