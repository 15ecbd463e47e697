"""The read-bandwidth probe round every case, and over the idle box."""

from __future__ import annotations

from profiler.ceilings.probe import Probe, ask
from profiler.engines.process import WorkerProcess

# Far beyond any last-level cache, and read in a few tens of milliseconds by a small CPU.
PROBE_BYTES = 512 * 2**20
IDLE_PROBES = 10
PROBES_PER_SIDE = 3


def probe_read_bandwidth(worker: WorkerProcess, device: str, repeats: int, timeout_s: float) -> Probe:
    """Ask a worker that has said hello for the read bandwidth of a device.

    Args:
        worker: the process.
        device: what the engine calls the device.
        repeats: reads of :data:`PROBE_BYTES`.
        timeout_s: after this the worker counts as hung.

    Raises:
        WorkerError: as for any request.
    """
    return ask(worker, "read_bandwidth", device, timeout_s, bytes=PROBE_BYTES, repeats=repeats)
