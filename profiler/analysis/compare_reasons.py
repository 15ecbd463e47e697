"""Why a case of one side has no counterpart on the other: the nearest case there, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from profiler.analysis.compare_evidence import Evidence
from profiler.analysis.compare_match import (
    KEY_FIELDS,
    MAX_PAIRS_PER_CASE,
    MAX_SHOWN,
    Inventory,
    Key,
    Match,
    UnmatchedKind,
    formats_text,
    frozen,
)
from profiler.results.schema import CaseSpec

# What is said of a case whose only difference is in these fields; what fits first is said.
_NAMED_DIFFERENCES: Final[Mapping[UnmatchedKind, tuple[str, ...]]] = {
    "formats": ("formats",),
    # Before what else changes the identity of the work.
    "architecture": ("workload_id",),
    "slice": ("workload_id", "slice"),
    "batch": ("workload_id", "batch"),
    "lengths": ("workload_id", "prompt_tokens", "output_tokens", "variant"),
    "scenario": ("scenario", "variant"),
    "seed": ("seed",),
    "weights": ("weights", "weights_digest"),
}
_NAMED: Final = {name for fields in _NAMED_DIFFERENCES.values() for name in fields}
DIFFERENCES: Final[Mapping[UnmatchedKind, tuple[str, ...]]] = {
    **_NAMED_DIFFERENCES,
    # Match keys that a later schema may add.
    "settings": tuple(name for name in KEY_FIELDS if name not in _NAMED),
}


class Neighbours:
    """Finds what the cases of a side differ in from a given one, in constant time."""

    def __init__(self, side: Inventory, match: Match) -> None:
        self.letter = side.letter
        self.differences = {
            kind: fields
            for kind, fields in DIFFERENCES.items()
            if fields and not (kind == "formats" and match == "same-fidelity")
        }
        self.ignored = frozenset({"formats"} if match == "same-fidelity" else ())
        self.specs = tuple(side.order.values())
        self.models = {spec.model: spec for spec in reversed(self.specs)}

    @cached_property
    def by_rest(self) -> dict[tuple[str, Key], list[CaseSpec]]:
        """The first cases of the side by kind of difference and everything else; rarely needed."""
        found: dict[tuple[str, Key], list[CaseSpec]] = {}
        for spec in self.specs:
            for kind, fields in self.differences.items():
                near = found.setdefault((kind, self._rest(spec, fields)), [])
                if len(near) <= MAX_SHOWN:
                    near.append(spec)
        return found

    def _rest(self, spec: CaseSpec, fields: Sequence[str]) -> Key:
        kept = [name for name in KEY_FIELDS if name not in fields and name not in self.ignored]
        # Without the identity of the work only the name says that it is the same model.
        name = spec.model if "workload_id" in fields else ""
        return (name, *(frozen(getattr(spec, field)) for field in kept))

    def why_missing(self, spec: CaseSpec) -> tuple[UnmatchedKind, str]:
        """Return why the side has no case like ``spec``."""
        for kind, fields in self.differences.items():
            near = self.by_rest.get((kind, self._rest(spec, fields)))
            if near:
                there = list(dict.fromkeys(_shown(kind, other, fields) for other in near))
                more = ", …" if len(there) > MAX_SHOWN else ""
                return kind, (
                    f"{self.letter} has it only with {kind} "
                    f"{', '.join(there[:MAX_SHOWN])}{more} instead of {_shown(kind, spec, fields)}"
                )
        other = self.models.get(spec.model)
        if other is None:
            return "not_planned", f"{self.letter} did not measure this model"
        differing = [
            kind
            for kind, fields in self.differences.items()
            if any(frozen(getattr(spec, name)) != frozen(getattr(other, name)) for name in fields)
            and kind != "architecture"
        ]
        return "several", f"{self.letter} has this model only with other {', '.join(differing) or 'work'}"


def _shown(kind: UnmatchedKind, spec: CaseSpec, fields: Sequence[str]) -> str:
    def clipped(value: Any) -> str:
        text = str(value)
        return text if len(text) <= 60 else f"{text[:60]}…"

    match kind:
        case "formats":
            return formats_text(spec.formats)
        case "lengths":
            return f"{spec.prompt_tokens} + {spec.output_tokens} tokens"
        case "scenario":
            return clipped(spec.scenario) + (f" ({spec.variant})" if spec.variant != "full" else "")
        case "slice":
            return "the whole model" if spec.slice is None else str(spec.slice)
        case "architecture":
            return f"{spec.workload_id[:12]}"
        case "weights":
            return spec.weights + (f" {clipped(spec.weights_digest)}" if spec.weights_digest else "")
        case "batch" | "seed":
            return str(getattr(spec, kind))
        case _:
            return ", ".join(f"{name} {clipped(getattr(spec, name))}" for name in fields)


def why_left_over(item: Evidence, kind: UnmatchedKind, baseline: str, candidate: str) -> str:
    """Return why a result of a case that both sides have is compared with nothing."""
    if kind == "ambiguous":
        return (
            f"{baseline} and {candidate} have more than {MAX_PAIRS_PER_CASE} pairs of devices and engines "
            "for this case; sweep with one --device and one --engine"
        )
    if kind == "other_engine":
        return (
            f"only one of {baseline} and {candidate} used engine {item.spec.engine}; the other was compared"
        )
    return f"only one of {baseline} and {candidate} used {item.device} ({item.spec.device_key})"
