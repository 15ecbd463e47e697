"""How the model of a fidelity check is spread over devices: as the case is, as far as that can be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from profiler.models.architecture import Architecture
from profiler.models.parallel import ONE_DEVICE, Parallel, why_not
from profiler.results.schema import ParallelRecord


@dataclass(frozen=True)
class Spread:
    """How a check is spread.

    Attributes:
        parallel: over which devices.
        reason: why otherwise than its case is, None where it is spread alike.
    """

    parallel: Parallel
    reason: str | None

    @property
    def record(self) -> ParallelRecord | None:
        """As it goes into the record; None for one device."""
        return None if self.parallel.is_one else ParallelRecord(**asdict(self.parallel))

    def placed(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of ``load`` that say on which devices, from those of the case."""
        if self.parallel.is_one:
            return {"device": request["device"]}
        devices = request["devices"][: self.parallel.devices]
        return {"device": request["device"], "devices": devices, "parallel": asdict(self.parallel)}


def spread_of(asked: ParallelRecord | None, architecture: Architecture) -> Spread:
    """Return how a check is spread.

    Copies of a model (``dp``) take different requests and compute the same; engines make them in a server
    only, so one of them is checked, with the experts over its own ranks.

    Args:
        asked: of the case.
        architecture: of what the check runs.
    """
    if asked is None:
        return Spread(ONE_DEVICE, None)
    wanted = one_copy(Parallel(**asked.model_dump()))
    fault = why_not(architecture, wanted)
    if fault is not None:
        return Spread(ONE_DEVICE, f"checked on one device: {fault}")
    if asked.dp > 1:
        return Spread(wanted, f"one of {asked.dp} copies (dp) was checked")
    return Spread(wanted, None)


def one_copy(parallel: Parallel) -> Parallel:
    """Return one of the copies of a model, as it is spread itself."""
    if parallel.dp == 1:
        return parallel
    return replace(parallel, dp=1, ep=parallel.tp if parallel.ep > 1 else 1)
