"""Architectures of the models that published measurements are about."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from profiler.models.architecture import Architecture, Experts
from profiler.models.catalogue import catalogue

ARCHITECTURES = Path(__file__).resolve().parent / "data" / "architectures.json"


@cache
def architectures() -> dict[str, Architecture]:
    """Architectures by hub id in lower case: those of the catalogue and those of the published models."""
    found = {}
    for entry in catalogue().values():
        for hub_id in (entry.hub_id, *entry.same_shapes):
            found[hub_id.lower()] = entry.architecture
    for hub_id, fields in json.loads(ARCHITECTURES.read_text()).items():
        fields = dict(fields)
        if "same_as" in fields:
            found[hub_id.lower()] = found[fields["same_as"].lower()]
            continue
        experts = fields.pop("experts", None)
        defaults: dict[str, Any] = {
            "family": "llama",
            "tied_embeddings": False,
            "attention_bias": False,
            "qk_norm": False,
            "norm_eps": 1e-6,
            "rope_theta": 1e4,
            "rope_scaling": None,
            "max_positions": 32768,
        }
        moe = None if experts is None else Experts(**experts)
        found[hub_id.lower()] = Architecture(**defaults | fields, experts=moe)
    return found
