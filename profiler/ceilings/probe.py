"""Asking a worker for a rate of its device, and turning the answer into a ceiling.

A ceiling is an end point: readings fall short of what the device can do when something else uses it,
and never exceed it by more than the clock's error. Its value is therefore the best reading, and its
interval reaches from there up to the 95% limit of Robson and Whitlock (Biometrika 51, 1964, p. 33) for the
end point of a distribution, ``best + 19 (best - second best)``. Readings that agree leave it narrow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from profiler.engines.contract import RATES
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.results.schema import Ceiling, Measurement

UNITS: Final = {"bytes_per_s": "bytes/s", "flops_per_s": "FLOP/s"}
METHOD: Final = "best reading; interval up to the end point's 95% limit (Robson and Whitlock 1964)"
# (1 - 0.05) / 0.05
_LIMIT: Final = 19.0


@dataclass(frozen=True)
class Probe:
    """What one probe saw.

    Attributes:
        rates: one value per repeat, in ``unit``.
        unit: ``bytes/s`` or ``FLOP/s``.
        method: how it was measured; values of different methods are never compared.
        details: whatever else the worker answered.
    """

    rates: tuple[float, ...]
    unit: str
    method: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Middle of the repeats, in ``unit``."""
        return median(self.rates)

    def ceiling(self, device_key: str, name: str, engine: str | None = None) -> Ceiling:
        """Return the best reading as a ceiling of that name."""
        best, *others = sorted(self.rates, reverse=True)
        limit = (best, best + _LIMIT * (best - others[0])) if others else None
        measurement = Measurement(
            value=best, unit=self.unit, ci95=limit, n=len(self.rates), method=METHOD, scope="device"
        )
        return Ceiling(
            device_key=device_key,
            name=name,
            ceiling_method=self.method,
            measurement=measurement,
            engine=engine,
            readings=self.rates,
        )


def ask(worker: WorkerProcess, kind: str, device: str, timeout_s: float, **fields: Any) -> Probe:
    """Ask a worker that has said hello for one kind of rate.

    Args:
        worker: the process.
        kind: one of the kinds in ``docs/architecture.md``.
        device: what the engine calls the device.
        timeout_s: after this the worker counts as hung.
        fields: what else the kind asks for.

    Raises:
        WorkerError: as for any request.
    """
    result = worker.request("probe", timeout_s, kind=kind, device=device, **fields)
    (field_name,) = (name for name in RATES if name in result)
    details = {name: value for name, value in result.items() if name not in (field_name, "method")}
    rates = tuple(float(rate) for rate in result[field_name])
    return Probe(rates, UNITS[field_name], str(result["method"]), details)


def missing(device_key: str, name: str, unit: str, reason: str, engine: str | None = None) -> Ceiling:
    """Return a ceiling that says why it was not measured."""
    return Ceiling(
        device_key=device_key,
        name=name,
        ceiling_method="none",
        measurement=Measurement.missing(unit, reason),
        engine=engine,
    )


def ask_or_say_why(
    worker: WorkerProcess,
    kind: str,
    device: str,
    timeout_s: float,
    *,
    device_key: str,
    name: str,
    unit: str,
    engine: str,
    **fields: Any,
) -> Ceiling:
    """Return the ceiling, or one with the reason when the engine refuses.

    Raises:
        WorkerError: the process is gone; nothing more can be asked of it.
    """
    try:
        return ask(worker, kind, device, timeout_s, **fields).ceiling(device_key, name, engine)
    except WorkerError as error:
        if error.fatal:
            raise
        return missing(device_key, name, unit, error.message, engine)
