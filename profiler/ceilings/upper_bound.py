"""How fast a model could be on a device at most, before anything of it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.ceilings.matrix import matrix_ceiling_name
from profiler.ceilings.roofline import Bound, bound, find_ceiling
from profiler.models import accounting
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.models.work import trial_work
from profiler.results.schema import Ceiling
from profiler.workload.scenario import ScenarioPoint


@dataclass(frozen=True)
class UpperBound:
    """The roofline of one workload.

    Attributes:
        point: the workload.
        prefill: least time of the prefill.
        decode: least time of all decode steps, or None without any.
        needed_bytes: weights and cache.
        expected: whether bytes rest on an expected number of distinct experts.
    """

    point: ScenarioPoint
    prefill: Bound
    decode: Bound | None
    needed_bytes: int
    expected: bool

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens of the whole batch over the least time."""
        return self.point.batch * self.point.prompt_tokens / self.prefill.seconds

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens of the whole batch after the first ones over the least time."""
        if self.decode is None:
            return None
        return self.point.batch * (self.point.output_tokens - 1) / self.decode.seconds


def upper_bounds(
    architecture: Architecture,
    formats: Formats,
    points: Sequence[ScenarioPoint],
    ceilings: Sequence[Ceiling],
    device_key: str,
) -> list[UpperBound] | str:
    """Return the bound of each workload, or which ceiling is lacking.

    Args:
        architecture: of the model.
        formats: its number formats.
        points: the workloads.
        ceilings: measured, of any devices.
        device_key: the device.

    Raises:
        UsageError: a format is unknown.
    """
    name = matrix_ceiling_name(formats.compute_dtype)
    reading = find_ceiling(ceilings, device_key, "read_bandwidth")
    computing = find_ceiling(ceilings, device_key, name)
    for wanted, ceiling in (("read_bandwidth", reading), (name, computing)):
        if ceiling is None:
            known = (one for one in ceilings if (one.device_key, one.name) == (device_key, wanted))
            reason = next((one.measurement.reason for one in known), "not measured")
            return f"{wanted} is lacking: {reason}"
    assert reading is not None
    assert computing is not None
    rates = {
        "bytes_per_s": float(reading.measurement.value or 0.0),
        "flops_per_s": float(computing.measurement.value or 0.0),
    }
    found: list[UpperBound] = []
    for point in points:
        prompt, output, batch = point.prompt_tokens, point.output_tokens, point.batch
        work = trial_work(architecture, formats, prompt, output, batch)
        dtype = formats.compute_dtype
        prefill = bound(work.prefill_flops, work.prefill_bytes, compute_dtype=dtype, **rates)
        decode = bound(work.decode_flops, work.decode_bytes, compute_dtype=dtype, **rates)
        needed = accounting.weights_bytes(architecture, formats)
        needed += accounting.kv_cache_bytes(architecture, formats.kv_dtype, prompt + output, batch)
        steps = output > 1
        found.append(UpperBound(point, prefill, decode if steps else None, needed, work.expected))
    return found
