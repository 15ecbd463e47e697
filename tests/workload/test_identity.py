from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.models.architecture import Architecture, Experts, LatentAttention
from profiler.models.formats import Formats
from profiler.workload.identity import canonical_json, case_id, workload_id
from profiler.workload.lengths import Quantiles

ARCHITECTURE = Architecture(
    family="llama",
    vocab_size=1000,
    hidden_size=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate_size=128,
    tied_embeddings=True,
    attention_bias=False,
    qk_norm=False,
    norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    max_positions=2048,
    experts=Experts(count=8, per_token=2, intermediate_size=32),
    latent_attention=LatentAttention(
        query_rank=None, kv_rank=8, rope_head_dim=4, nope_head_dim=4, value_head_dim=4
    ),
)
CASE: dict[str, Any] = {
    "engine": "torch",
    "formats": Formats("bf16", "bf16", "bf16"),
    "weights": "random",
    "device_key": "cpu-000000000000",
    "seed": 0,
}


def work(architecture: Architecture = ARCHITECTURE, **changes: Any) -> str:
    return workload_id(architecture, **({"prompt_tokens": 128, "output_tokens": 128, "batch": 1} | changes))


def other(value: Any) -> Any:
    """A value of the same kind that is not the same."""
    if value is None:
        return 7
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, Mapping):
        return {**value, "new": 1}
    return value + 1


def variants(part: Any) -> list[Any]:
    return [replace(part, **{field.name: other(getattr(part, field.name))}) for field in fields(part)]


def test_every_field_of_the_work_matters() -> None:
    experts, latent = ARCHITECTURE.experts, ARCHITECTURE.latent_attention
    plain = replace(ARCHITECTURE, experts=None, latent_attention=None)
    changed = [replace(ARCHITECTURE, experts=None), replace(ARCHITECTURE, latent_attention=None)]
    changed += [replace(ARCHITECTURE, experts=one) for one in variants(experts)]
    changed += [replace(ARCHITECTURE, latent_attention=one) for one in variants(latent)]
    for field in fields(plain):
        if field.name not in ("experts", "latent_attention"):
            changed.append(replace(plain, **{field.name: other(getattr(plain, field.name))}))
    quantiles = Quantiles((0.5, 0.9), (10, 20))
    rate: dict[str, Any] = {"process": "poisson", "rate_per_s": 1.5, "requests": 100}
    ids = [work(), work(plain), *(work(one) for one in changed)]
    ids += [work(prompt_tokens=129), work(output_tokens=129), work(batch=2)]
    ids += [work(batch=None, arrivals=rate), work(batch=None, arrivals=rate | {"requests": 101})]
    ids += [work(prompt_tokens=quantiles), work(output_tokens=quantiles)]
    ids += [work(prompt_tokens=replace(quantiles, tokens=(10, 21)))]
    ids += [work(prompt_tokens=replace(quantiles, levels=(0.5, 0.95)))]
    assert len(set(ids)) == len(ids)


def test_what_only_describes_the_lengths_does_not_matter() -> None:
    quantiles = Quantiles((0.5,), (10,), mean=11.5)
    assert work(prompt_tokens=quantiles) == work(prompt_tokens=replace(quantiles, mean=None))


def test_how_a_number_was_written_does_not_matter() -> None:
    assert work(replace(ARCHITECTURE, rope_theta=10_000)) == work()
    scaling = {"original_max_position_embeddings": 8192, "factor": 8, "rope_type": "llama3"}
    assert work(replace(ARCHITECTURE, rope_scaling=scaling)) == work()


def test_work_is_either_offline_or_served() -> None:
    with pytest.raises(ValueError, match="either offline"):
        work(arrivals={"process": "constant"})
    with pytest.raises(ValueError, match="either offline"):
        work(batch=None)


def test_a_workload_id_can_be_computed_without_us() -> None:
    tiny = replace(ARCHITECTURE, rope_scaling=None, experts=None, latent_attention=None)
    text = (
        '{"architecture":{"attention_bias":"false","family":"llama","head_dim":16,"heads":4,'
        '"hidden_size":64,"intermediate_size":128,"kv_heads":2,"layers":2,"max_positions":2048,'
        '"norm_eps":"1e-06","qk_norm":"false","rope_theta":10000,"tied_embeddings":"true",'
        '"vocab_size":1000},"batch":1,"generator_version":1,"id_version":1,"output_tokens":128,'
        '"prompt_tokens":128,"sampling":"greedy, end-of-sequence ignored"}'
    )
    assert work(tiny) == hashlib.sha256(text.encode()).hexdigest()


def test_every_match_key_of_a_case_matters() -> None:
    formats: Formats = CASE["formats"]
    changes: list[dict[str, Any]] = [
        {},
        {"engine": "vllm"},
        {"formats": replace(formats, weight_format="q8_0")},
        {"formats": replace(formats, compute_dtype="fp32")},
        {"formats": replace(formats, kv_dtype="fp8")},
        {"weights": "folder"},
        {"weights_digest": "ab"},
        {"device_key": "GPU-1"},
        {"seed": 1},
        {"nonce": "n"},
        {"engine_options": {"threads": 2}},
        {"engine_options": {"threads": 4}},
    ]
    ids = [case_id("w", **(CASE | change)) for change in changes] + [case_id("v", **CASE)]
    assert len(set(ids)) == len(ids)


def test_no_options_and_empty_options_are_the_same_case() -> None:
    assert case_id("w", **CASE, engine_options={}) == case_id("w", **CASE)


VALUES = st.recursive(
    st.integers() | st.text(max_size=5) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(inner) for key, inner in reversed(value.items())}
    return [reordered(inner) for inner in value] if isinstance(value, list) else value


@given(value=VALUES)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical_json(reordered(value)) == canonical_json(value)


@given(value=VALUES)
def test_canonical_json_holds_only_integers_and_strings(value: Any) -> None:
    def leaves(part: Any) -> list[Any]:
        if isinstance(part, dict | list):
            return [
                leaf
                for inner in (part.values() if isinstance(part, dict) else part)
                for leaf in leaves(inner)
            ]
        return [part]

    text = canonical_json(value)
    assert text.isascii()
    assert {type(leaf) for leaf in leaves(json.loads(text))} <= {int, str}


@given(value=st.dictionaries(st.text(max_size=5), st.integers(), min_size=1), data=st.data())
def test_each_value_matters(value: dict[str, int], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    assert canonical_json(value | {key: value[key] + 1}) != canonical_json(value)
    assert canonical_json({name: inner for name, inner in value.items() if name != key}) != canonical_json(
        value
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, {"a": {1}}, object()])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical_json(value)
