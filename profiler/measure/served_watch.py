"""What the sensors of this box say of a load on a server that runs on it: energy, memory, states as flags."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from profiler.backends.base import Device
from profiler.load.drive import Driven
from profiler.measure.case_watch import CaseWatch
from profiler.measure.kept_reads import SensorColumns
from profiler.measure.polled_memory import sampled_figures
from profiler.measure.sensing import Sensing
from profiler.measure.served_energy import ServedEnergy, served_figures


class ServedWatch:
    """Looks on from before a load to after it; begins by letting the server rest for a moment.

    Args:
        sensing: sensors of this box, sampled.
        device: on which the server runs.
    """

    def __init__(self, sensing: Sensing, device: Device) -> None:
        self._sensing = sensing
        self._device = device
        self._watch = CaseWatch(sensing, device)
        self._energy = ServedEnergy(sensing, device)
        self._energy.rest()

    def edge(self) -> None:
        """Say that the load begins or has ended about now."""
        self._energy.edge()

    def fields(self, driven: Driven) -> dict[str, Any]:
        """Return what is added to the fields of a case; nothing for one that failed."""
        begin_ns, end_ns = driven.begin_ns, driven.end_ns
        if begin_ns is None or end_ns is None or driven.fields["status"] != "ok":
            return {}
        measured = driven.fields["measurements"]
        rate, served = measured["output_tokens_per_s"], driven.fields["served"]
        tokens = round((rate.value or 0.0) * (served.duration_s or 0.0))
        records = self._energy.records(begin_ns, end_ns, tokens)
        stretch = self._energy.stretch(begin_ns, end_ns)
        polled = self._sensing.memory_in_use(self._device, *stretch.whole_ns)
        spans = self._energy.spans
        return {
            "measurements": measured | served_figures(records) | sampled_figures(polled),
            "energies": records,
            "energy_spans": () if spans is None else (spans,),
            "phases": self._energy.phases(self._watch.origin_ns, begin_ns, end_ns),
            "flags": (*driven.fields["flags"], *self._watch.flags([stretch])),
        }

    def columns(self) -> SensorColumns:
        """Return the reads since the load began, as columns."""
        return self._watch.columns()


class BesideLoad:
    """The sensors of a device of this box while ``aiprof load`` drives a server on it. Enter it before use.

    Args:
        device: on which the server runs.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._sensing = Sensing((device,))
        self._watch: ServedWatch | None = None

    def __enter__(self) -> Self:
        self._sensing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sensing.__exit__(kind, error, trace)

    @property
    def simulated(self) -> bool:
        """Whether the device or a sensor that is read is no hardware."""
        return self._device.simulated or self._sensing.simulated

    def begin(self) -> None:
        """Let the server rest, and look on from then."""
        self._watch = ServedWatch(self._sensing, self._device)

    def edge(self) -> None:
        """Say that the load begins or has ended about now."""
        self._sensing.edge()

    def fields(self, driven: Driven) -> dict[str, Any]:
        """Return what is added to the fields of the case that was driven."""
        return {} if self._watch is None else self._watch.fields(driven)

    def columns(self) -> SensorColumns:
        """Return the reads since :meth:`begin`, as columns."""
        return {"sensor": []} if self._watch is None else self._watch.columns()

    def record(self) -> dict[str, Any]:
        """Return the sensors, for the record of the run."""
        return {"sensors": self._sensing.records(), "baselines": self._sensing.baselines()}

    def details(self) -> dict[str, Any]:
        """Return on which device of this box the server is said to run."""
        return {"runs_on": self._device.key, "runs_on_name": self._device.name, "stated_by": "the user"}
