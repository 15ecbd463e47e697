"""The rotary embedding in a ``config.json``: two spellings, one meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from profiler.yamlio_faults import plain_words

DEFAULT_THETA = 10_000.0

_Factor = Annotated[float, Field(gt=0, le=1e6)]
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
_KEEPS_ORIGINAL_LENGTH = ("yarn", "llama3")


class _Parameters(BaseModel):
    """``rope_parameters``, or ``rope_scaling`` with the theta put in; keys as transformers 5 has them."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)

    rope_type: Literal["default", "linear", "dynamic", "yarn", "llama3"] = "default"
    rope_theta: Annotated[float, Field(ge=1, le=1e12)] = DEFAULT_THETA
    partial_rotary_factor: Annotated[float, Field(ge=1, le=1)] = 1.0
    factor: _Factor | None = None
    original_max_position_embeddings: Annotated[int, Field(gt=0, le=1 << 31)] | None = None
    low_freq_factor: _Factor | None = None
    high_freq_factor: _Factor | None = None
    attention_factor: _Factor | None = None
    beta_fast: _Factor | None = None
    beta_slow: _Factor | None = None
    mscale: _Factor | None = None
    mscale_all_dim: Annotated[float, Field(ge=0, le=1e6)] | None = None
    truncate: bool | None = None


@dataclass(frozen=True)
class Rope:
    """A rotary embedding that was read."""

    theta: float
    _parameters: _Parameters

    def scaling(self, max_positions: int) -> dict[str, Any] | None:
        """The scaling as in ``rope_scaling``, or None when there is none.

        Args:
            max_positions: what transformers takes the unscaled length for when it is not given.
        """
        given = self._parameters
        if given.rope_type == "default":
            return None
        scaling = given.model_dump(exclude={"rope_theta", "partial_rotary_factor"}, exclude_none=True)
        if given.rope_type in _KEEPS_ORIGINAL_LENGTH:
            scaling.setdefault("original_max_position_embeddings", max_positions)
        return scaling


def read_rope(config: Mapping[str, Any], faults: list[str]) -> Rope | None:
    """Read the rotary embedding from a whole ``config.json``.

    Args:
        config: the parsed JSON object.
        faults: what is wrong is added here, one line each.

    Returns:
        The rotary embedding, or None when it has faults.
    """
    key = "rope_parameters" if config.get("rope_parameters") is not None else "rope_scaling"
    found = config.get(key)
    if found is not None and not isinstance(found, dict):
        faults.append(f"{key}: must be an object")
        return None
    given = {name: value for name, value in (found or {}).items() if value is not None}
    if "type" in given:
        if given.setdefault("rope_type", given["type"]) != given["type"]:
            faults.append(f"{key}: type contradicts rope_type")
            return None
        del given["type"]
    for name in ("rope_theta", "partial_rotary_factor"):
        outer = config.get(name)
        if outer is not None and given.setdefault(name, outer) != outer:
            faults.append(f"{name}: contradicts {key}")
            return None
    try:
        parameters = _Parameters.model_validate(given)
    except ValidationError as error:
        for place, what in plain_words(error, _Parameters, given):
            inside = place[0] in (found or {}) or place[0] == "rope_type"
            faults.append(f"{key}.{place[0]}: {what}" if inside else f"{place[0]}: {what}")
        return None
    missing = [name for name in _REQUIRED[parameters.rope_type] if getattr(parameters, name) is None]
    faults += [f"{key}.{name}: is missing for rope_type '{parameters.rope_type}'" for name in missing]
    return None if missing else Rope(parameters.rope_theta, parameters)
