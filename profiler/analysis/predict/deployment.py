"""What is to be predicted: a model in number formats on devices that share the work in some way."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.errors import UsageError
from profiler.hardware.part import Hardware
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats


@dataclass(frozen=True)
class Parallel:
    """How ranks share the work.

    Attributes:
        tensor: ranks that share every matrix.
        pipeline: stages of layers, one after the other.
        data: replicas of attention that take different requests.
        expert: ranks over which routed experts are spread as wholes; 1: they are split like other
            matrices, by ``tensor``.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1

    @property
    def ranks(self) -> int:
        """Devices in all."""
        return self.tensor * self.pipeline * self.data

    @property
    def expert_ranks(self) -> int:
        """Ranks that share the routed experts of a layer."""
        return self.expert if self.expert > 1 else self.tensor


@dataclass(frozen=True)
class Deployment:
    """A model on devices.

    Attributes:
        hardware: the part; all ranks are alike.
        architecture: of the model.
        formats: of weights, arithmetic and cache.
        parallel: how the ranks share the work.
        weights_factor: real weight bytes over those of the weight format, for file formats that the
            accounting knows only approximately.
    """

    hardware: Hardware
    architecture: Architecture
    formats: Formats
    parallel: Parallel = Parallel()
    weights_factor: float = 1.0


def check(deployment: Deployment) -> None:
    """Refuse a deployment that cannot exist.

    Raises:
        UsageError: with all contradictions, one per line.
    """
    faults = [*_parallel_faults(deployment.architecture, deployment.parallel)]
    hardware, formats = deployment.hardware, deployment.formats
    dtype = formats.compute_dtype
    if dtype in hardware.lacks:
        have = ", ".join(hardware.flops) or "none published"
        faults.append(f"{hardware.title} cannot compute in {dtype}: {hardware.lacks[dtype]} (has: {have})")
    if faults:
        raise UsageError("\n".join(faults))


def _parallel_faults(arch: Architecture, parallel: Parallel) -> list[str]:
    faults = []
    if parallel.tensor > arch.heads:
        faults.append(f"tensor parallel {parallel.tensor}: the model has only {arch.heads} attention heads")
    elif arch.heads % parallel.tensor:
        faults.append(
            f"tensor parallel {parallel.tensor}: must divide the {arch.heads} attention heads of the model"
        )
    if parallel.pipeline > arch.layers:
        faults.append(f"pipeline parallel {parallel.pipeline}: the model has only {arch.layers} layers")
    if parallel.expert > 1:
        if arch.experts is None:
            faults.append(f"expert parallel {parallel.expert}: the model has no experts")
        elif arch.experts.count % parallel.expert:
            faults.append(f"expert parallel {parallel.expert}: must divide {arch.experts.count} experts")
        if parallel.expert not in (parallel.tensor * parallel.data, parallel.data, parallel.tensor):
            faults.append(
                f"expert parallel {parallel.expert}: must be the ranks of a stage "
                f"({parallel.tensor * parallel.data})"
            )
    return faults


def default_parallel(hardware: Hardware, architecture: Architecture, count: int) -> Parallel:
    """Return how engines use ``count`` devices unless told otherwise: tensor ranks as far as heads allow.

    Raises:
        UsageError: ``count`` ranks cannot share the heads and layers.
    """
    tensor = next(
        ranks for ranks in range(count, 0, -1) if count % ranks == 0 and architecture.heads % ranks == 0
    )
    parallel = Parallel(tensor=tensor, pipeline=count // tensor)
    faults = _parallel_faults(architecture, parallel)
    if faults:
        raise UsageError(f"{count} x {hardware.name}: " + "; ".join(faults))
    return parallel
