"""From energies of one meter in one start to what the record keeps of them."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.backends.base import Unavailable
from profiler.measure.amounts import Amount
from profiler.measure.kept_reads import LIMIT
from profiler.measure.sensor_records import reason_record
from profiler.results.schema import EnergyRecord
from profiler.results.sensor_record import Phase
from profiler.sensors.base import Energy
from profiler.sensors.meters import Meter


@dataclass(frozen=True)
class EnergyBook:
    """Writes the records of one meter.

    Attributes:
        meter: whose energies these are.
        start: index of the start.
        idle: with the model loaded and nothing to do.
    """

    meter: Meter
    start: int
    idle: Energy

    def idle_record(self) -> EnergyRecord:
        """Return the record of the rest."""
        idle = self.idle
        if idle.joules is None or idle.bound_j is None:
            return self.record("idle", idle, idle.reason or _NEVER_READ, idle.duration_s, None)
        amount = Amount(idle.joules, idle.bound_j, idle.duration_s)
        return self.record("idle", idle, amount, idle.duration_s, None)

    def record(
        self, phase: Phase, window: Energy, amount: Amount | Unavailable, active_s: float, tokens: int | None
    ) -> EnergyRecord:
        """Return the record of a phase.

        Args:
            phase: its name.
            window: what the sensors showed over the window that was looked at.
            amount: what of it belongs to the phase, or why that is not known.
            active_s: time of the phase's work, where there is no amount.
            tokens: that were processed in it, or None where they do not count.
        """
        if isinstance(amount, Amount):
            amount = limited(amount)
        known = amount if isinstance(amount, Amount) else None
        why = amount if isinstance(amount, Unavailable) else None
        net = None if known is None or phase == "idle" else self._net(known)
        return EnergyRecord(
            start=self.start,
            phase=phase,
            covers=self.meter.covers,
            scope=window.scope,
            sensors=tuple(info.key for info in self.meter.sensors),
            joules=None if known is None else known.joules,
            bound_j=None if known is None else known.bound_j,
            net_j=None if net is None else net.joules,
            net_bound_j=None if net is None else net.bound_j,
            window_s=window.duration_s,
            active_s=active_s if known is None else known.seconds,
            tokens=tokens,
            method="none" if known is None else window.method,
            n_ticks=window.n_ticks,
            tick_s=window.tick_s,
            flags=window.flags,
            reason=None if why is None else reason_record(why),
            simulated=window.simulated,
        )

    def _net(self, gross: Amount) -> Amount | None:
        """Return the energy above idling for as long, or None where nothing is left or idle is not known."""
        idle = self.idle
        if idle.joules is None or idle.bound_j is None:
            return None
        share = gross.seconds / idle.duration_s
        joules = gross.joules - share * idle.joules
        return Amount(joules, gross.bound_j + share * idle.bound_j, gross.seconds) if joules > 0 else None


_NEVER_READ = Unavailable("no_samples", "the sensor was never read")


def limited(amount: Amount) -> Amount | Unavailable:
    """Return the amount, or why it is too uncertain to be given."""
    if amount.relative_bound <= LIMIT:
        return amount
    needed_s = amount.seconds * amount.relative_bound / LIMIT
    text = (
        f"{amount.seconds:.3g} s of it are too short: {amount.joules:.3g} J would be uncertain by "
        f"{amount.bound_j:.3g} J"
    )
    remedy = f"give a larger --budget; about {needed_s:.2g} s would do for {LIMIT:.0%}"
    return Unavailable("window_too_short", text, remedy)
