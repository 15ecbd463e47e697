"""What a policy file may say; every fault is found before anything is judged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from profiler.analysis.figure_metrics import COST, METRICS, SERVED
from profiler.analysis.policy import DEFAULT_CONFIDENCE, SENSORS, Allowance, Combine
from profiler.errors import UsageError, unknown
from profiler.models.formats import formats_for
from profiler.yamlio import FileModel

MOST_REQUIREMENTS = 1000
LATENCIES = ("ttft_s", "tpot_s", "e2e_s", "icl_s")
FRACTIONS = ("slo_attainment",)

Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S[^\n]*$")]
Code = Annotated[str, Field(max_length=60, pattern=r"^[a-z0-9_]+$")]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Limit = Annotated[float, Field(ge=0, le=1e18)]

# What people write by habit, in base units, to say what they should have written.
_UNITS = {
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0, "h": 3600.0},
    "bytes": {"B": 1.0, "GB": 1e9, "MB": 1e6, "TB": 1e12, "GiB": 2.0**30, "MiB": 2.0**20, "TiB": 2.0**40},
    "W": {"W": 1.0, "kW": 1e3, "mW": 1e-3},
    "J/token": {"J": 1.0, "mJ": 1e-3, "kJ": 1e3, "J/token": 1.0, "mJ/token": 1e-3},
    "tokens/s": {"tokens/s": 1.0, "tok/s": 1.0, "t/s": 1.0},
    "USD": {"USD": 1.0, "$": 1.0},
    "fraction": {"%": 0.01},
    "ratio": {"%": 0.01},
}
_WITH_UNIT = re.compile(r"\s*\$?\s*(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-zµ%$/]{1,10})?\s*")


class CaseFile(FileModel):
    """Which cases are meant."""

    model: Line | None = None
    scenario: Line | None = None
    variant: Literal["full", "quick"] | None = None
    precision: Line | Annotated[tuple[Line, ...], Field(min_length=1, max_length=20)] | None = None
    weight_format: Line | None = None
    compute_dtype: Line | None = None
    kv_dtype: Line | None = None
    batch: Annotated[int, Field(ge=1, le=65536)] | None = None
    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    engine: Line | None = None
    weights: Literal["random", "folder", "file"] | None = None

    @field_validator("precision")
    @classmethod
    def _known(cls, given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for name in (given,) if isinstance(given, str) else given or ():
            try:
                formats_for(name)
            except UsageError as error:
                raise ValueError(str(error)) from None
        return given

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if self.precision and (self.weight_format or self.compute_dtype or self.kv_dtype):
            raise ValueError("precision stands for all three formats; give it or them, not both")
        return self


class EvidenceFile(FileModel):
    """What a figure must rest on."""

    min_starts: Annotated[int, Field(ge=1, le=100)] | None = None
    min_trials: Annotated[int, Field(ge=1, le=100_000)] | None = None
    min_measured_s: Annotated[float, Field(ge=0, le=1e7)] | None = None
    sensors: tuple[Code, ...] | None = None
    verified: bool | None = None

    @field_validator("sensors")
    @classmethod
    def _known(cls, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in given or ():
            if name not in SENSORS:
                raise ValueError(unknown("sensor measurement", name, SENSORS))
        return given


class _Flags(FileModel):
    forbidden: tuple[Code, ...] | None = None
    allowed: tuple[Code, ...] | None = None

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        both = sorted(set(self.forbidden or ()) & set(self.allowed or ()))
        if both:
            raise ValueError(f"'{both[0]}' is both forbidden and allowed")
        return self


class _Slo(FileModel):
    ttft_s: Annotated[float, Field(gt=0, le=1e6)] | None = None
    tpot_s: Annotated[float, Field(gt=0, le=1e6)] | None = None
    e2e_s: Annotated[float, Field(gt=0, le=1e6)] | None = None


class NodeFile(FileModel):
    """A requirement, or ``all`` or ``any`` of several."""

    id: Annotated[str, Field(max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    all_of: tuple[NodeFile, ...] | None = Field(default=None, alias="all")
    any_of: tuple[NodeFile, ...] | None = Field(default=None, alias="any")
    metric: str | None = None
    unit: str | None = None
    at_least: Limit | None = None
    at_most: Limit | None = None
    verdict: Literal["faithful"] | None = None
    case: CaseFile = CaseFile()
    matching: Combine | None = None
    context_tokens: Tokens | None = None
    percentile: Annotated[float, Field(gt=1, lt=100)] | None = None
    users: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    slo: _Slo | None = None
    allow: tuple[Allowance, ...] = ()
    evidence: EvidenceFile = EvidenceFile()
    weight: Annotated[float, Field(ge=0, le=1000)] | None = None
    note: Line | None = None

    @field_validator("all_of", "any_of")
    @classmethod
    def _not_empty(cls, given: tuple[NodeFile, ...] | None) -> tuple[NodeFile, ...] | None:
        # Not min_length: pydantic would also report it when the entries themselves are faulty.
        if given == ():
            raise ValueError("must have at least one entry")
        return given

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, given: str | None) -> str | None:
        if given is not None and given not in METRICS:
            raise ValueError(unknown("metric", given[:60], METRICS))
        return given

    @field_validator("unit")
    @classmethod
    def _unit_of_the_metric(cls, given: str | None, info: ValidationInfo) -> str | None:
        metric = METRICS.get(info.data.get("metric") or "")
        if metric is not None and given is not None and given != metric.unit:
            raise ValueError(f"{metric.name} is in {metric.unit}, not '{given[:40]}'")
        return given

    @field_validator("at_least", "at_most", mode="before")
    @classmethod
    def _plain_number(cls, given: Any, info: ValidationInfo) -> Any:
        metric = METRICS.get(info.data.get("metric") or "")
        if isinstance(given, str) and metric is not None:
            raise ValueError(
                f"must be a number in {metric.unit}, not '{given[:40]}'{_rewrite(given, metric.unit)}"
            )
        return given

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        faults = list(_shape_faults(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _rewrite(text: str, unit: str) -> str:
    """Return ``; write 0.5`` for a number with a unit that can be converted."""
    match = _WITH_UNIT.fullmatch(text)
    factor = _UNITS.get(unit, {}).get(match[2] or "") if match else None
    return f"; write {float(match[1]) * factor:.12g}" if match and factor else ""


def _shape_faults(node: NodeFile) -> Iterator[str]:
    """What does not go together in one requirement."""
    given = node.model_fields_set - {"id", "note"}
    shapes = [name for name in ("all_of", "any_of", "metric") if getattr(node, name) is not None]
    if len(shapes) != 1:
        yield "give exactly one of metric (a requirement), all and any (a list of requirements)"
        return
    if shapes[0] != "metric":
        if given - {shapes[0]}:
            extra = ", ".join(sorted(given - {shapes[0]}))
            yield f"{extra}: belongs to the single requirements, not to the list"
        return
    metric = METRICS[node.metric or ""]
    if metric.name == "fidelity":
        if node.verdict is None or node.at_least is not None or node.at_most is not None:
            yield "fidelity takes verdict: faithful and no limit"
    else:
        right, wrong = ("at_least", "at_most") if metric.better == "higher" else ("at_most", "at_least")
        if getattr(node, wrong) is not None:
            yield f"{metric.name}: {metric.better} is better, so use {right}"
        elif getattr(node, right) is None:
            yield f"{right} is missing"
        if node.verdict is not None:
            yield "verdict goes with metric: fidelity"
    limit = node.at_least if node.at_least is not None else node.at_most
    if metric.name in FRACTIONS and limit is not None and limit > 1:
        yield f"{metric.name} is a share: at most 1, 0.99 for 99%"
    if metric.name == "sustained_ratio" and limit is not None and limit > 1.5:
        yield "sustained_ratio is about 1: 0.95 allows a loss of 5%"
    yield from _served_faults(node, metric.name)


def _served_faults(node: NodeFile, metric: str) -> Iterator[str]:
    if (node.context_tokens is not None) != (metric == "max_users_at_context"):
        yield "context_tokens goes with metric: max_users_at_context, and must be there for it"
    if node.percentile is not None and metric not in LATENCIES:
        yield f"percentile goes with {', '.join(LATENCIES)}"
    if node.percentile is not None and node.users is None:
        yield "percentile needs users: a percentile is of requests at a number of users"
    if metric in SERVED and node.users is None:
        yield f"{metric} needs users: it is measured at a number of users"
    if node.users is not None and metric not in (*LATENCIES, *SERVED):
        yield f"users does not go with {metric}"
    wants_slo = metric in ("slo_attainment", "goodput_requests_per_s")
    if wants_slo != (node.slo is not None and bool(node.slo.model_fields_set)):
        yield "slo (ttft_s, tpot_s or e2e_s) goes with slo_attainment and goodput_requests_per_s"


class PolicyFile(FileModel):
    """A policy file as it stands on disk."""

    policy: Literal[1]
    name: Line
    description: Annotated[str, Field(max_length=4000)] = ""
    confidence: Annotated[float, Field(ge=0.6, le=0.9999)] = DEFAULT_CONFIDENCE
    candidates: Combine = "all"
    backends: Annotated[tuple[Code, ...], Field(max_length=50)] = ()
    allow: tuple[Allowance, ...] = ()
    evidence: EvidenceFile = EvidenceFile()
    flags: _Flags = _Flags()
    costs: Annotated[str, Field(max_length=200, pattern=r"^[^/\\\x00][^\\\x00]*\.ya?ml$")] | None = None
    case: CaseFile = CaseFile()
    requirements: tuple[NodeFile, ...]

    @field_validator("costs")
    @classmethod
    def _beside_the_policy(cls, given: str | None) -> str | None:
        if given is not None and ".." in PurePath(given).parts:
            raise ValueError("must lie in the policy's folder or below it")
        return given

    @field_validator("requirements")
    @classmethod
    def _not_empty(cls, given: tuple[NodeFile, ...]) -> tuple[NodeFile, ...]:
        if not given:
            raise ValueError("must have at least one entry")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        leaves = [node for node in nodes_of(self.requirements) if node.metric is not None]
        faults = []
        if len(leaves) > MOST_REQUIREMENTS:
            faults.append(f"{len(leaves)} requirements; at most {MOST_REQUIREMENTS} are allowed")
        ids = [node.id for node in nodes_of(self.requirements) if node.id is not None]
        faults += [f"id '{name}' is there twice" for name in sorted({x for x in ids if ids.count(x) > 1})]
        if self.costs is None and any(node.metric in COST for node in leaves):
            faults.append("costs is missing: a cost in USD needs a cost file")
        for node in leaves:
            case = merged(self.case, node.case)
            if case.get("precision") and {"weight_format", "compute_dtype", "kv_dtype"} & case.keys():
                faults.append(f"{node.id or node.metric}: precision and single formats come together here")
            starts = node.evidence.min_starts or self.evidence.min_starts
            one_start = "one_start" in (*self.allow, *node.allow)
            if starts == 1 and not one_start:
                faults.append(f"{node.id or node.metric}: min_starts: 1 needs allow: [one_start]")
        if faults:
            raise ValueError("; ".join(dict.fromkeys(faults)))
        return self


def nodes_of(nodes: tuple[NodeFile, ...]) -> Iterator[NodeFile]:
    """Yield requirements and lists of them, in the order of the file."""
    for node in nodes:
        yield node
        yield from nodes_of(node.all_of or node.any_of or ())


def merged(common: CaseFile, own: CaseFile) -> dict[str, Any]:
    """Return what a requirement says about its cases on top of what the policy says about all."""
    return common.model_dump(exclude_none=True) | own.model_dump(exclude_none=True)
