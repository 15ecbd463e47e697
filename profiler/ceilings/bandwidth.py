"""The read-bandwidth probe: what to ask of a worker, and what to make of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from profiler.engines.process import WorkerProcess
from profiler.results.schema import Ceiling, Measurement

# Far beyond any last-level cache, and read in a few tens of milliseconds by a small CPU.
PROBE_BYTES = 512 * 2**20
IDLE_PROBES = 10
PROBES_PER_SIDE = 3


@dataclass(frozen=True)
class BandwidthProbe:
    """Read bandwidth seen by one probe.

    Attributes:
        bytes_per_s: one value per repeat.
        method: how it was read; values of different methods are never compared.
    """

    bytes_per_s: tuple[float, ...]
    method: str

    @property
    def median(self) -> float:
        """Middle of the repeats, bytes/s."""
        return median(self.bytes_per_s)

    def ceiling(self, device_key: str) -> Ceiling:
        """Return the bandwidth as a ceiling: the best repeat, since a ceiling is what the device can do."""
        best = Measurement(
            value=max(self.bytes_per_s),
            unit="bytes/s",
            n=len(self.bytes_per_s),
            method="best of the idle probes",
            scope="device",
        )
        return Ceiling(
            device_key=device_key, name="read_bandwidth", ceiling_method=self.method, measurement=best
        )


def probe_read_bandwidth(
    worker: WorkerProcess, device: str, repeats: int, timeout_s: float
) -> BandwidthProbe:
    """Ask a worker that has said hello for the read bandwidth of a device.

    Args:
        worker: the process.
        device: what the engine calls the device.
        repeats: reads of :data:`PROBE_BYTES`.
        timeout_s: after this the worker counts as hung.

    Raises:
        WorkerError: as for any request.
    """
    result = worker.request(
        "probe", timeout_s, kind="read_bandwidth", device=device, bytes=PROBE_BYTES, repeats=repeats
    )
    return BandwidthProbe(tuple(float(value) for value in result["bytes_per_s"]), str(result["method"]))
