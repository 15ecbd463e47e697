"""Rotary tables against those of transformers, with the configurations of real models."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from profiler.models.architecture import Architecture
from profiler.models.catalogue import catalogue
from profiler.models.config import to_config
from profiler.worker.elementwise import rotate, rotate_pairs
from profiler.worker.rotary import latent_scale, rotary_table

pytestmark = pytest.mark.torch

R1 = catalogue()["deepseek-r1"].architecture
QWEN3 = next(entry.architecture for entry in catalogue().values() if entry.architecture.family == "qwen3")
# What Qwen's model cards give for contexts beyond 32,768 tokens.
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def with_yarn(**changes: Any) -> Architecture:
    return dataclasses.replace(QWEN3, rope_scaling={**YARN, **changes})


def config_of(arch: Architecture) -> Any:
    fields = to_config(arch)
    return CONFIG_MAPPING[fields["model_type"]].from_dict(fields)


@pytest.mark.parametrize(
    "arch",
    [
        R1,
        QWEN3,
        with_yarn(),
        with_yarn(attention_factor=1.3, truncate=False),
        with_yarn(mscale=0.9, mscale_all_dim=0.4, beta_fast=20.0, beta_slow=2.0),
        with_yarn(factor=1.0),
    ],
    ids=[
        "deepseek-r1",
        "plain",
        "yarn",
        "yarn with a factor",
        "yarn with mscale",
        "yarn that stretches nothing",
    ],
)
def test_tables_are_those_of_transformers(arch: Architecture) -> None:
    module = DeepseekV3RotaryEmbedding if arch is R1 else Qwen3RotaryEmbedding
    positions = torch.arange(4096)
    expected = module(config_of(arch))(torch.zeros(1), positions[None])
    for ours, theirs in zip(rotary_table(dataclasses.asdict(arch), 4096), expected, strict=True):
        # Their frequencies are float32 powers, ours double ones: at position 4095 the angles differ by 2e-4.
        torch.testing.assert_close(ours[:, 0], theirs[0, :, : ours.shape[-1]], atol=1e-3, rtol=0)
        torch.testing.assert_close(ours[:64, 0], theirs[0, :64, : ours.shape[-1]], atol=2e-5, rtol=0)


def test_the_scale_of_deepseek_r1() -> None:
    with torch.device("meta"):
        expected = DeepseekV3Attention(config_of(R1), 0).scaling
    assert latent_scale(dataclasses.asdict(R1)) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(192**-0.5 * (0.1 * math.log(40) + 1) ** 2)
    plain = dataclasses.replace(R1, rope_scaling=None)
    assert latent_scale(dataclasses.asdict(plain)) == pytest.approx(192**-0.5)


def test_both_pairings_turn_by_the_angle_and_keep_products() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, keys = torch.randn(2, 1, 1, 1, 8, generator=generator)
    angles = torch.tensor([0.1, 0.5, 1.0, 2.0])
    cos, sin = angles.cos(), angles.sin()
    torch.testing.assert_close(
        rotate(queries, cos, sin)[0, 0, 0, :4], cos * queries[0, 0, 0, :4] - sin * queries[0, 0, 0, 4:]
    )
    pairs = rotate_pairs(queries, cos, sin).flatten()
    torch.testing.assert_close(pairs[:4], cos * queries.flatten()[0::2] - sin * queries.flatten()[1::2])
    for turn in (rotate, rotate_pairs):  # turning both by the same angle changes no product
        turned = (turn(queries, cos, sin) * turn(keys, cos, sin)).sum()
        torch.testing.assert_close(turned, (queries * keys).sum())
