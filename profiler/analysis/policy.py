"""A buyer's policy: requirements on cases, what counts as evidence, and how sure the verdict must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from profiler.analysis.cost_types import Costs
from profiler.analysis.figure_metrics import Metric
from profiler.models.formats import formats_for
from profiler.results.schema import CaseSpec

Allowance = Literal["one_start", "simulated", "predicted", "no_interval"]
Combine = Literal["all", "any"]

DEFAULT_CONFIDENCE = 0.95
DEFAULT_STARTS = 3
DEFAULT_FORBIDDEN = (
    "interference",
    "drift",
    "not_steady",
    "fidelity_wrong",
    "fidelity_degraded",
    "client_limited",
    "load_not_kept",
    "output_length",
    "prefix_cache",
    "dummy_weights",
)
"""Flags that say that the figure is not what the box does undisturbed, or not of the work it claims."""
SENSORS = (
    "energy_j",
    "power_mean_w",
    "power_max_1s_w",
    "idle_power_w",
    "max_sampled_device_bytes",
    "peak_process_bytes",
)
"""Measurements that a policy may insist on because they need a sensor."""


@dataclass(frozen=True)
class Selector:
    """Which cases a requirement is about; None or empty means any."""

    model: str | None = None
    scenario: str | None = None
    variant: Literal["full", "quick"] = "full"
    precision: tuple[str, ...] = ()
    weight_format: str | None = None
    compute_dtype: str | None = None
    kv_dtype: str | None = None
    batch: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    engine: str | None = None
    weights: Literal["random", "folder", "file"] | None = None

    def fits(self, spec: CaseSpec) -> bool:
        """Whether a case is meant."""
        return (
            self.fits_model(spec)
            and spec.variant == self.variant
            and self.scenario in (None, spec.scenario)
            and self.batch in (None, spec.batch)
            and self.prompt_tokens in (None, spec.prompt_tokens)
            and self.output_tokens in (None, spec.output_tokens)
        )

    def fits_model(self, spec: CaseSpec) -> bool:
        """Whether engine, model and formats are meant, whatever the work; memory depends on these alone."""
        formats = (spec.formats.weight_format, spec.formats.compute_dtype, spec.formats.kv_dtype)
        known = [formats_for(name) for name in self.precision]
        return (
            (self.model is None or self.model.lower() == spec.model.lower())
            and self.engine in (None, spec.engine)
            and self.weights in (None, spec.weights)
            and (not known or formats in [(f.weight_format, f.compute_dtype, f.kv_dtype) for f in known])
            and self.weight_format in (None, formats[0])
            and self.compute_dtype in (None, formats[1])
            and self.kv_dtype in (None, formats[2])
        )

    def __str__(self) -> str:
        quick = "" if self.variant == "full" else f" ({self.variant})"
        parts = [
            f"{self.scenario or 'any scenario'}{quick}",
            self.model or "any model",
            " or ".join(self.precision) or self.weight_format or "any format",
            "any batch" if self.batch is None else f"batch {self.batch}",
        ]
        parts += [
            f"{name}: {value}"
            for name in ("prompt_tokens", "output_tokens", "engine", "weights", "compute_dtype", "kv_dtype")
            if (value := getattr(self, name)) is not None
        ]
        return " · ".join(parts)


@dataclass(frozen=True)
class EvidenceNeeded:
    """What a figure must rest on before it may decide anything.

    Attributes:
        min_starts: fresh processes behind it.
        min_trials: measured trials in each of them.
        min_measured_s: wall time of all measured trials together.
        sensors: measurements that must have a value.
        verified: whether the runs must verify (``aiprof verify``).
    """

    min_starts: int = DEFAULT_STARTS
    min_trials: int = 1
    min_measured_s: float = 0.0
    sensors: tuple[str, ...] = ()
    verified: bool = False


@dataclass(frozen=True)
class Flags:
    """Which flags of a case keep it from being evidence.

    Attributes:
        forbidden: these do.
        allowed: if given, all others do, too.
    """

    forbidden: tuple[str, ...] = DEFAULT_FORBIDDEN
    allowed: tuple[str, ...] | None = None

    def refuse(self, code: str) -> bool:
        """Whether a flag keeps a case from being evidence; ``allow`` decides about two of them."""
        if code in ("simulated", "one_start"):
            return False
        return code in self.forbidden or (self.allowed is not None and code not in self.allowed)


@dataclass(frozen=True)
class Requirement:
    """One limit on one figure of the cases that a selector names.

    Attributes:
        id: unique in the policy.
        metric: what is limited.
        limit: at least (higher is better) or at most (lower is better), itself good enough; None for
            ``fidelity``.
        case: the cases.
        matching: whether all matching cases must do, or any one.
        allow: evidence that counts although it is weak.
        evidence: what the figure must rest on.
        flags: which flags refuse it.
        weight: in the ranking of candidates; 0 leaves it out.
        context_tokens: context per user, for ``max_users_at_context``.
        percentile: of request latencies at :attr:`users`; None for the mean over offline batches.
        users: concurrent users of a served case; None for an offline one.
        slo: limits that a request must keep to count as served well, by metric.
        note: the buyer's own words.
    """

    id: str
    metric: Metric
    limit: float | None
    case: Selector
    matching: Combine = "all"
    allow: frozenset[Allowance] = frozenset()
    evidence: EvidenceNeeded = EvidenceNeeded()
    flags: Flags = Flags()
    weight: float = 1.0
    context_tokens: int | None = None
    percentile: float | None = None
    users: int | None = None
    slo: tuple[tuple[str, float], ...] = ()
    note: str = ""

    @property
    def served(self) -> bool:
        """Whether only a served measurement could decide it."""
        return self.users is not None


@dataclass(frozen=True)
class RequirementGroup:
    """Requirements of which all or any must be met."""

    id: str
    combine: Combine
    members: tuple[Node, ...]


Node: TypeAlias = Requirement | RequirementGroup


@dataclass(frozen=True)
class Policy:
    """A policy file.

    Attributes:
        name: one line.
        description: the buyer's words.
        confidence: a requirement that the box does not meet passes at most with probability
            ``1 - confidence``.
        candidates: whether all candidates must pass, or any one.
        backends: device families that are candidates; empty for all.
        root: the requirements.
        costs: prices, where a requirement needs them.
    """

    name: str
    description: str
    confidence: float
    candidates: Combine
    backends: tuple[str, ...]
    root: RequirementGroup
    costs: Costs | None = field(default=None)

    def requirements(self) -> Iterator[Requirement]:
        """Yield all requirements, in the order of the file."""
        return _leaves(self.root)


def _leaves(node: Node) -> Iterator[Requirement]:
    if isinstance(node, Requirement):
        yield node
        return
    for member in node.members:
        yield from _leaves(member)
