"""What an engine is, seen from the conductor: how to ask a worker to run a model on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from profiler.backends.base import Device
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats


@dataclass(frozen=True)
class Serving:
    """How an engine's own server is driven.

    Attributes:
        requests: at most so many for each start, or None.
        warm_up: requests before each load, or None for the load client's own choice.
        slos: limits as texts.
        ready_timeout_s: when a server that does not answer is given up, or None for a time by its size.
        search: ``concurrency`` or ``rate``: look for the most users, or the highest rate, that keep the
            limits; None where the limits and the users that are given decide.
        low: users or requests per second to begin the search with, or None.
        high: where to end it at the latest, or None.
    """

    requests: int | None = None
    warm_up: int | None = None
    slos: tuple[str, ...] = ()
    ready_timeout_s: float | None = None
    search: str | None = None
    low: float | None = None
    high: float | None = None


class Engine(Protocol):
    """Conductor side of an engine. The other side lives in ``profiler/worker``.

    Attributes:
        name: the name used in ``--engine``, in records and in the worker's ``load`` request.
        simulated: True when its numbers do not come from hardware.

    An engine that understands the option ``layers: [dense, moe]`` of ``load`` also has
    ``runs_slices = True``; without it ``aiprof sweep --layers`` skips its cases. One that spreads a
    model over several devices (``devices`` and ``parallel`` of ``load``) has ``runs_parallel = True``, and
    ``why_not_parallel(parallel, device)`` where there is something that it cannot, with the reason.
    One whose worker can say how to start a server (``server``) has ``serving(given, asked=bool)``, which
    returns a :class:`Serving` for online cases and None for offline ones.
    """

    name: str
    simulated: bool

    def unsupported(self, architecture: Architecture, formats: Formats, device: Device) -> str | None:
        """Return why the engine cannot run this here, or None when it can."""
        ...

    def device_string(self, device: Device, hello: dict[str, Any]) -> str:
        """Return what the engine calls ``device``, matched by UUID or PCI address.

        Args:
            device: as the backend found it.
            hello: the worker's answer to ``hello`` (its ``devices`` list, see docs/architecture.md).

        Raises:
            UsageError: the engine does not see this device.
        """
        ...

    def options(self, given: dict[str, str]) -> dict[str, Any]:
        """Turn ``--engine-option key=value`` pairs into the ``options`` of a ``load`` request.

        Raises:
            UsageError: an option is unknown or its value does not parse.
        """
        ...
