"""Backends, engines and sensors by name: a built-in table first, entry points of other packages after it.

Names are known without importing anything; a class is imported when it is first asked for.
Other packages add theirs through the entry points ``aiprof.backends``, ``aiprof.engines``
and ``aiprof.sensors``.
On the same name ours wins: an installed package must not be able to replace what measures.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from profiler.errors import UsageError, unknown

BUILT_IN: dict[str, dict[str, str]] = {
    "backends": {
        "cuda": "profiler.backends.cuda:CudaBackend",
        "rocm": "profiler.backends.rocm:RocmBackend",
        "ascend": "profiler.backends.ascend:AscendBackend",
        "cpu": "profiler.backends.cpu:CpuBackend",
        "fake": "profiler.backends.fake:FakeBackend",
    },
    "engines": {
        "torch": "profiler.engines.torch:TorchEngine",
        "llamacpp": "profiler.engines.llamacpp:LlamaCppEngine",
        "vllm": "profiler.engines.vllm:VllmEngine",
        "endpoint": "profiler.engines.endpoint:EndpointEngine",
        "fake": "profiler.engines.fake:FakeEngine",
    },
    "sensors": {
        "nvml": "profiler.sensors.nvml_sensors:NvmlSensors",
        "amdsmi": "profiler.sensors.amd_sensors:AmdSensors",
        "rapl": "profiler.sensors.rapl_sensors:RaplSensors",
        "cpu": "profiler.sensors.cpu_sensors:CpuSensors",
        "dcmi": "profiler.sensors.dcmi_sensors:DcmiSensors",
        "redfish": "profiler.sensors.redfish:RedfishSensors",
        "command": "profiler.sensors.command:CommandSensors",
    },
}


def _foreign(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"aiprof.{group}")}


def names(group: str) -> list[str]:
    """Names in ``group`` (a key of :data:`BUILT_IN`): ours in table order, then foreign ones sorted."""
    ours = list(BUILT_IN[group])
    return ours + sorted(set(_foreign(group)) - set(ours))


def load(group: str, name: str, **options: Any) -> Any:
    """Return an instance of the class registered as ``name``, constructed with ``options``.

    Raises:
        UsageError: the name is not known, or a foreign package fails to import.
    """
    target = BUILT_IN[group].get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)(**options)
    foreign = _foreign(group)
    if name not in foreign:
        raise UsageError(unknown(group.removesuffix("s"), name, names(group)))
    try:
        return foreign[name].load()(**options)
    except Exception as error:  # a foreign package may fail in any way; ours must go on
        source = foreign[name].value
        raise UsageError(
            f"{group.removesuffix('s')} '{name}' from {source} cannot be loaded: {error}"
        ) from error
