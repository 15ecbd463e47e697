"""Speculative decoding in vLLM: how it is asked for, and what it says came of it."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Optional

OPTIONS = ("speculative", "speculative_tokens", "speculative_model")
_TOKENS = 3  # guessed at a time unless asked otherwise
# Counters of vLLM, vllm/v1/spec_decode/metrics.py, by our names.
_COUNTERS = {
    "vllm:spec_decode_num_drafts": "drafts",
    "vllm:spec_decode_num_draft_tokens": "draft_tokens",
    "vllm:spec_decode_num_accepted_tokens": "accepted_tokens",
}


def config(options: Dict[str, Any]) -> Dict[str, Any]:
    """Return vLLM's ``speculative_config`` for the options of the engine."""
    found: Dict[str, Any] = {
        "method": options["speculative"],
        "num_speculative_tokens": tokens(options),
    }
    if "speculative_model" in options:
        found["model"] = options["speculative_model"]
    return found


def without_place(given: Dict[str, Any]) -> Dict[str, Any]:
    """Return options or arguments with the name of the model that guesses in place of its path."""
    found = dict(given)
    if "speculative_model" in found:
        found["speculative_model"] = _name(found["speculative_model"])
    about = found.get("speculative_config")
    if about and "model" in about:
        found["speculative_config"] = {**about, "model": _name(about["model"])}
    return found


def _name(folder: str) -> str:
    return os.path.basename(os.path.normpath(folder))


def tokens(options: Dict[str, Any]) -> int:
    """Return how many tokens are guessed at a time."""
    return int(options.get("speculative_tokens", _TOKENS))


def cache_layers(options: Dict[str, Any], layers: int) -> int:
    """Return the layers whose keys and values the cache holds because of the guesses.

    Models that guess have a cache of their own in the same blocks; each of their layers counts as one of the
    model's, which is the wider of the two.

    Args:
        options: of the engine.
        layers: of the model itself.
    """
    method = options["speculative"]
    if method == "draft_model":
        with open(os.path.join(options["speculative_model"], "config.json"), encoding="utf-8") as file:
            return int(json.load(file).get("num_hidden_layers", layers))
    return 1 if method in ("mtp", "eagle", "eagle3") else 0


def counted(engine: Any) -> Optional[Dict[str, int]]:
    """Return what was guessed and accepted since vLLM was loaded, or None where it does not count.

    Args:
        engine: vLLM's ``LLMEngine``; its counters stand in its own process, one for each engine.
    """
    found: Dict[str, int] = {}
    for metric in engine.get_metrics():
        name = _COUNTERS.get(metric.name)
        if name is not None:
            found[name] = found.get(name, 0) + int(metric.value)
    return found if len(found) == len(_COUNTERS) else None


def between(before: Optional[Dict[str, int]], after: Optional[Dict[str, int]]) -> Optional[Dict[str, int]]:
    """Return how far the counters came, or None where they are not known."""
    if before is None or after is None:
        return None
    return {name: after[name] - before[name] for name in after}
