"""Energy of a load on a server that runs on this box, from the same sensors and with the same bounds."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.backends.base import Device
from profiler.measure.amounts import active
from profiler.measure.case_watch import Stretch
from profiler.measure.energy_book import EnergyBook
from profiler.measure.energy_summary import energy_measurements
from profiler.measure.kept_reads import EnergySource
from profiler.measure.peak_power import highest_second
from profiler.measure.sensing import Sensing
from profiler.results.schema import EnergyRecord, EnergySpans, Measurement, PhaseRecord
from profiler.sensors.meters import DEVICE, Meter

REST_S = 3.0
"""How long the loaded server is looked at while nobody asks anything of it."""


def served_figures(records: Sequence[EnergyRecord]) -> dict[str, Measurement]:
    """Return the figures of a load's energy; nothing tells prefill and decode of a server apart."""
    if not records:
        return {}
    starts = sorted({record.start for record in records})
    figures = energy_measurements([[one for one in records if one.start == start] for start in starts])
    return {name: one for name, one in figures.items() if not name.startswith(("prefill", "decode"))}


def load_energies(
    source: EnergySource, meter: Meter, spans: EnergySpans, output_tokens: int
) -> tuple[EnergyRecord, ...]:
    """Return the records of one meter for one load.

    Args:
        source: of the energies.
        meter: one of those of the device.
        spans: when the server rested and when it was driven.
        output_tokens: tokens of all successful requests.
    """
    ((begin_ns, _, end_ns),) = spans.trials
    idle = spans.idle or (begin_ns, begin_ns)
    book = EnergyBook(meter, spans.start, source.energy(meter, *idle))
    whole, seconds = source.energy(meter, begin_ns, end_ns), (end_ns - begin_ns) * 1e-9
    worked = active(whole, seconds, book.idle.mean_power_w)
    found = [book.idle_record(), book.record("trials", whole, worked, seconds, output_tokens)]
    if meter.covers == DEVICE:
        known = meter.unavailable is None
        second = highest_second(source, meter, begin_ns, end_ns) if known else whole
        found.append(book.record("max_1s", second, active(second, second.duration_s, None), 1.0, None))
    return tuple(found)


class ServedEnergy:
    """Follows one load.

    Args:
        sensing: the sweep's sensors.
        devices: on which the server runs.
        start: index of the server's start.
        started: whether the server is started for the load, and is not there yet.
    """

    def __init__(self, sensing: Sensing, *devices: Device, start: int = 0, started: bool = False) -> None:
        self._sensing = sensing
        self._device = devices[0]
        self._meters = sensing.meters(*devices)
        self._start = start
        self._before = sensing.processes(self._device) if started else None
        self._idle = (0, 0)
        self._at_rest: int | None = None
        self.spans: EnergySpans | None = None

    def rest(self) -> None:
        """Let the loaded server stand idle for a moment, where there is anything to read."""
        self._at_rest = self._sensing.processes(self._device)
        self._idle = self._sensing.rest(REST_S if any(meter.sensors for meter in self._meters) else 0.0)

    def edge(self) -> None:
        """Say that the load begins or has ended about now."""
        self._sensing.edge()

    def records(self, begin_ns: int, end_ns: int, output_tokens: int) -> tuple[EnergyRecord, ...]:
        """Return the energy of the load by every meter.

        Args:
            begin_ns: when the first request could be sent, CLOCK_MONOTONIC.
            end_ns: when the last answer had ended.
            output_tokens: tokens of all successful requests.
        """
        self._sensing.keep_up()
        for meter in self._meters:  # waits for the first reads after the load
            self._sensing.energy(meter, begin_ns, end_ns)
        self.spans = self._sensing.spans(self._start, idle=self._idle, trials=((begin_ns, None, end_ns),))
        source = self._sensing.kept(self._meters, self.spans)
        return tuple(
            record
            for meter in self._meters
            for record in load_energies(source, meter, self.spans, output_tokens)
        )

    def stretch(self, begin_ns: int, end_ns: int) -> Stretch:
        """Return when the server was driven, and how many processes were on its device.

        Where the server was there from the beginning, only those count that came while it was driven.
        """
        after = self._sensing.processes(self._device)
        return Stretch((begin_ns, end_ns), (self._idle[0], end_ns), self._before, self._at_rest, after)

    def phases(self, origin_ns: int, begin_ns: int, end_ns: int) -> tuple[PhaseRecord, ...]:
        """Return when the server rested and when it was driven."""
        spans = {"idle": self._idle, "trials": (begin_ns, end_ns)}
        return tuple(
            PhaseRecord(
                start=self._start,
                phase=name,
                begin_s=(begin - origin_ns) * 1e-9,
                end_s=(end - origin_ns) * 1e-9,
            )
            for name, (begin, end) in spans.items()
        )
