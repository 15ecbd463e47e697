"""The source ``nvml``: energy, power, memory, clocks, throttling, temperature and ECC of NVIDIA GPUs.

Units and fields as in NVIDIA's ``nvml.h``: energy in millijoules since the driver was loaded, power in
milliwatts. ``nvmlDeviceGetPowerUsage`` is a mean over the last second on Ampere and later except GA100;
fields 185 and 186 are mean and instantaneous power wherever the driver has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from profiler.backends.base import Json, Unavailable
from profiler.backends.cuda_gpus import CLOCK_MEMORY, CLOCK_SM, Gpu, enumerate_gpus, gpu_memory
from profiler.sensors.base import Kind, Read, Scope, SensorInfo, Unit, missing, never_zero
from profiler.sensors.nvml import Nvml

_FIELD_POWER_AVERAGE, _FIELD_POWER_INSTANT = 185, 186
_AMPERE = 7  # NVML_DEVICE_ARCH_AMPERE
_GA100 = (8, 0)
_AVERAGE_S = 1.0
_COUNTER_HZ, _POWER_HZ, _SLOW_HZ, _NEVER_HZ = 100.0, 50.0, 2.0, 0.0
_ALL_ONES = (1 << 64) - 1
_TEMPERATURE_GPU = 0
_ECC_UNCORRECTED, _ECC_SINCE_BOOT = 1, 0
_MIG = Unavailable(
    "mig_instance",
    "a MIG instance has no energy counter of its own; the GPU's covers all instances",
    "measure with MIG off",
)
# A module is CPU, GPU and memory together; GB200's are rated at 2.7 kW.
_MAX_MODULE_POWER_W = 5_000.0


class NvmlSensors:
    """Finds and reads sensors of every GPU, whatever ``CUDA_VISIBLE_DEVICES`` says."""

    name = "nvml"

    def __init__(self) -> None:
        self._nvml = Nvml()

    def options(self) -> Mapping[str, Json]:
        """Return nothing: there is nothing to choose."""
        return {}

    def probe(self) -> list[SensorInfo]:
        """Return the sensors of all GPUs; MIG instances point to their GPU's counter."""
        failure = self._nvml.open()
        if failure is not None:
            return [missing("nvml", failure, scope="board")]
        gpus, unusable = enumerate_gpus(self._nvml)
        sensors = [
            replace(
                missing(
                    "nvml",
                    Unavailable(str(gpu["code"]), str(gpu["reason"]), str(gpu["remedy"])),
                    device=f"gpu-{gpu['nvml_index']}",
                    scope="board",
                ),
                simulated=self._nvml.simulated,
            )
            for gpu in unusable
        ]
        parents: dict[str, Any] = {}
        for gpu in gpus:
            if gpu.parent_uuid:
                parents[gpu.parent_uuid] = self._nvml.ask("nvmlDeviceGetHandleByIndex", gpu.index)
                sensors.append(self._instance(gpu))
            else:
                sensors += self._of_gpu(gpu.key, gpu.handle)
        for uuid, handle in parents.items():
            sensors += self._of_gpu(uuid, handle)
        return sensors

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return the reader of each key."""
        failure = self._nvml.open()
        if failure is not None:
            return dict.fromkeys(keys, failure)
        handles: dict[str, Any] = {}
        for gpu in enumerate_gpus(self._nvml)[0]:
            if gpu.parent_uuid:
                handles[gpu.parent_uuid] = self._nvml.ask("nvmlDeviceGetHandleByIndex", gpu.index)
            else:
                handles[gpu.key] = gpu.handle
        readers: dict[str, Read | Unavailable] = {}
        for key in keys:
            device, _, quantity = key.removeprefix("nvml:").rpartition("/")
            if device not in handles or isinstance(handles[device], Unavailable):
                readers[key] = Unavailable("lost", f"the GPU {device} is not there", "see dmesg")
            else:
                readers[key] = self._reader(handles[device], quantity)
        return readers

    def _instance(self, gpu: Gpu) -> SensorInfo:
        return SensorInfo(
            key=f"nvml:{gpu.key}/energy",
            source="nvml",
            device=gpu.key,
            kind="energy_counter",
            scope="board",
            unit="J",
            shares_with=(f"nvml:{gpu.parent_uuid}/energy",),
            unavailable=_MIG,
            simulated=self._nvml.simulated,
        )

    def _of_gpu(self, device: str, handle: Any) -> list[SensorInfo]:
        limit_mw = self._nvml.ask("nvmlDeviceGetPowerManagementLimit", handle)
        limit_w = None if isinstance(limit_mw, Unavailable) else limit_mw * 1e-3
        scope = _scope(self._nvml.energy_scope(handle))
        describe = partial(self._describe, device, handle)
        energy = describe(
            "energy", "energy_counter", "J", 1e-3, _COUNTER_HZ, scope=scope,
            max_power_w=limit_w if scope == "board" else _MAX_MODULE_POWER_W,
        )  # fmt: skip
        power_hz = _SLOW_HZ if energy.unavailable is None else _POWER_HZ
        powers = [
            describe("power_instant", "power_instant", "W", 1e-3, power_hz, max_power_w=limit_w),
            describe("power_average", "power_average", "W", 1e-3, power_hz,
                     average_window_s=_AVERAGE_S, max_power_w=limit_w),
        ]  # fmt: skip
        if all(info.unavailable is not None for info in powers):
            average_s = self._power_usage_average_s(handle)
            kind: Kind = "power_average" if average_s else "power_instant"
            powers.append(
                describe("power_usage", kind, "W", 1e-3, power_hz,
                         average_window_s=average_s, max_power_w=limit_w)
            )  # fmt: skip
        return [
            energy,
            *powers,
            describe("memory_used", "memory", "bytes", 1.0, _SLOW_HZ),
            describe("sm_clock", "clock", "Hz", 1e6, _SLOW_HZ),
            describe("memory_clock", "clock", "Hz", 1e6, _SLOW_HZ),
            describe("temperature", "temperature", "degC", 1.0, _SLOW_HZ),
            describe("throttle_reasons", "throttle", "bits", 1.0, _SLOW_HZ),
            describe("ecc_uncorrected", "ecc", "count", 1.0, _SLOW_HZ),
            describe("power_limit", "power_limit", "W", 1e-3, _SLOW_HZ),
            replace(
                describe("pcie_lanes", "link", "count", 1.0, _SLOW_HZ),
                nominal=_known(self._nvml.ask("nvmlDeviceGetMaxPcieLinkWidth", handle)),
            ),
            # The driver's list of processes takes milliseconds, in which other calls wait.
            describe("processes", "processes", "count", 1.0, _NEVER_HZ),
        ]

    def _describe(
        self,
        device: str,
        handle: Any,
        quantity: str,
        kind: Kind,
        unit: Unit,
        scale: float,
        poll_hz: float,
        *,
        scope: Scope = "board",
        average_window_s: float | None = None,
        max_power_w: float | None = None,
    ) -> SensorInfo:
        first = self._reader(handle, quantity)()
        return SensorInfo(
            key=f"nvml:{device}/{quantity}",
            source="nvml",
            device=device,
            kind=kind,
            scope=scope,
            unit=unit,
            scale=scale,
            poll_hz=poll_hz,
            average_window_s=average_window_s,
            max_power_w=max_power_w,
            unavailable=first if isinstance(first, Unavailable) else None,
            simulated=self._nvml.simulated,
            note="covers CPU, GPU and memory of the module" if scope == "module" else "",
        )

    def _power_usage_average_s(self, handle: Any) -> float | None:
        """Return over how long ``nvmlDeviceGetPowerUsage`` averages; unknown counts as averaging."""
        architecture = self._nvml.ask("nvmlDeviceGetArchitecture", handle)
        capability = self._nvml.ask("nvmlDeviceGetCudaComputeCapability", handle)
        if not isinstance(capability, Unavailable) and tuple(capability) == _GA100:
            return None
        return None if isinstance(architecture, int) and architecture < _AMPERE else _AVERAGE_S

    def _reader(self, handle: Any, quantity: str) -> Read:
        ask = self._nvml.ask
        if quantity == "memory_used":
            return partial(_used, self._nvml, handle)
        if quantity in ("power_instant", "power_average"):
            field = _FIELD_POWER_INSTANT if quantity == "power_instant" else _FIELD_POWER_AVERAGE
            return never_zero(partial(_field, self._nvml, handle, field))
        if quantity == "throttle_reasons":
            return partial(_throttle, self._nvml, handle)
        if quantity == "processes":
            return partial(_processes, self._nvml, handle)
        if quantity == "energy":
            return self._nvml.energy_counter(handle)
        calls: dict[str, tuple[str, tuple[int, ...]]] = {
            "power_usage": ("nvmlDeviceGetPowerUsage", ()),
            "sm_clock": ("nvmlDeviceGetClockInfo", (CLOCK_SM,)),
            "memory_clock": ("nvmlDeviceGetClockInfo", (CLOCK_MEMORY,)),
            "temperature": ("nvmlDeviceGetTemperature", (_TEMPERATURE_GPU,)),
            "power_limit": ("nvmlDeviceGetEnforcedPowerLimit", ()),
            "pcie_lanes": ("nvmlDeviceGetCurrPcieLinkWidth", ()),
            "ecc_uncorrected": ("nvmlDeviceGetTotalEccErrors", (_ECC_UNCORRECTED, _ECC_SINCE_BOOT)),
        }
        call, arguments = calls[quantity]
        read = _whole(partial(ask, call, handle, *arguments))
        return never_zero(read) if quantity == "power_usage" else read


def _scope(name: str) -> Scope:
    return "module" if name == "module" else "board"


def _whole(ask: Callable[[], Any]) -> Read:
    """Return ``ask`` with what says "not available" in the guise of a number turned into that."""

    def read() -> int | Unavailable:
        value = ask()
        if type(value) is not int:
            return value if isinstance(value, Unavailable) else int(value)
        if value == _ALL_ONES:
            return Unavailable("implausible", "the driver answers 'not available' as if it were a number")
        return value

    return read


def _field(nvml: Nvml, handle: Any, field: int) -> int | Unavailable:
    values = nvml.ask("nvmlDeviceGetFieldValues", handle, [(field, 0)])
    if isinstance(values, Unavailable):
        return values
    # The call can succeed and the field in it be refused.
    if values[0].nvmlReturn != 0:
        return Unavailable("not_supported_by_device", f"this GPU does not offer NVML field {field}")
    return int(values[0].value.uiVal)


def _used(nvml: Nvml, handle: Any) -> int | Unavailable:
    """Total minus free: the two versions of the call do not agree on what ``used`` means."""
    gpu = Gpu(handle, 0, "", None, None, (), None, None)
    refusal: Unavailable | None = None
    for version in (2, 1):
        memory = gpu_memory(nvml, gpu, version)
        if not isinstance(memory, Unavailable):
            return memory["total"] - memory["free"]
        refusal = memory
    assert refusal is not None
    return refusal


def _throttle(nvml: Nvml, handle: Any) -> int | Unavailable:
    reasons = nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if isinstance(reasons, Unavailable):  # the name of the same call before R535
        reasons = nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    return reasons if isinstance(reasons, Unavailable) else int(reasons)


def _processes(nvml: Nvml, handle: Any) -> int | Unavailable:
    """Number of processes that compute on the GPU, whoever they belong to."""
    listed = nvml.ask("nvmlDeviceGetComputeRunningProcesses", handle)
    return listed if isinstance(listed, Unavailable) else len(listed)


def _known(answer: Any) -> int | None:
    return None if isinstance(answer, Unavailable) else int(answer)
