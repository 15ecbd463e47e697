"""Reading a policy and the cost file that it names."""

from __future__ import annotations

from pathlib import Path

from profiler.analysis.cost_file import load_costs
from profiler.analysis.cost_types import Costs
from profiler.analysis.figure_metrics import METRICS
from profiler.analysis.policy import (
    DEFAULT_FORBIDDEN,
    DEFAULT_STARTS,
    Combine,
    EvidenceNeeded,
    Flags,
    Node,
    Policy,
    Requirement,
    RequirementGroup,
    Selector,
)
from profiler.analysis.policy_schema import NodeFile, PolicyFile, merged, nodes_of
from profiler.errors import InputFileError
from profiler.yamlio import load_yaml


def load_policy(path: Path) -> Policy:
    """Read a policy and the cost file that it names.

    Raises:
        InputFileError: with every fault of both files, each with its line.
    """
    given = load_yaml(path, PolicyFile)
    taken = {node.id for node in nodes_of(given.requirements) if node.id is not None}
    return Policy(
        name=given.name,
        description=given.description.strip(),
        confidence=given.confidence,
        candidates=given.candidates,
        backends=given.backends,
        root=RequirementGroup("policy", "all", _members(given, given.requirements, taken)),
        costs=None if given.costs is None else _costs_beside(path, given.costs),
    )


def _costs_beside(policy: Path, name: str) -> Costs:
    """Read the cost file; a link out of the policy's folder would read files that are not the buyer's."""
    folder = policy.resolve().parent
    path = policy.parent / name
    if not path.resolve().is_relative_to(folder):
        raise InputFileError([f"{policy}: costs: '{name}' leads out of the policy's folder"])
    return load_costs(path)


def _members(file: PolicyFile, nodes: tuple[NodeFile, ...], taken: set[str]) -> tuple[Node, ...]:
    return tuple(_node(file, node, taken) for node in nodes)


def _node(file: PolicyFile, node: NodeFile, taken: set[str]) -> Node:
    name = node.id or _numbered(node.metric or ("all" if node.all_of else "any"), taken)
    if node.metric is None:
        combine: Combine = "all" if node.all_of else "any"
        return RequirementGroup(name, combine, _members(file, node.all_of or node.any_of or (), taken))
    allow = frozenset((*file.allow, *node.allow))
    case = merged(file.case, node.case)
    precision = case.pop("precision", ())
    flags = file.flags
    return Requirement(
        id=name,
        metric=METRICS[node.metric],
        limit=node.at_least if node.at_least is not None else node.at_most,
        case=Selector(**case, precision=(precision,) if isinstance(precision, str) else tuple(precision)),
        matching=node.matching or "all",
        allow=allow,
        evidence=_evidence(file, node),
        flags=Flags(
            DEFAULT_FORBIDDEN if flags.forbidden is None and flags.allowed is None else flags.forbidden or (),
            flags.allowed,
        ),
        weight=1.0 if node.weight is None else node.weight,
        context_tokens=node.context_tokens,
        percentile=node.percentile,
        users=node.users,
        slo=tuple(node.slo.model_dump(exclude_none=True).items()) if node.slo else (),
        note=node.note or "",
    )


def _evidence(file: PolicyFile, node: NodeFile) -> EvidenceNeeded:
    common, own = (part.evidence.model_dump(exclude_none=True) for part in (file, node))
    given = common | own
    if "one_start" in node.allow and "min_starts" not in own:
        # Allowing one start here and asking for several everywhere: here it is one.
        given["min_starts"] = 1
    default = 1 if "one_start" in file.allow else DEFAULT_STARTS
    return EvidenceNeeded(**({"min_starts": default} | given))


def _numbered(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free)
    return free
