"""NVIDIA's management library through ``pynvml``, with every refusal turned into an answer.

``pynvml`` (nvidia-ml-py) is imported and the driver library opened when first asked. A function
that the installed driver lacks, a GPU that fell off the bus and a reading that the board does not
have all come back as :class:`Unavailable`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module
from typing import Any

from profiler.backends.base import Unavailable

# nvmlReturn_t of nvml.h -> (code, text, remedy); {call} is the function that was refused.
_REFUSALS: dict[int, tuple[str, str, str]] = {
    3: ("not_supported_by_device", "this GPU does not offer {call}", ""),
    4: ("permission", "this user may not call {call}", "run as root, or ask for access to /dev/nvidia*"),
    9: (
        "driver_not_loaded",
        "the NVIDIA kernel driver is not loaded",
        "sudo modprobe nvidia; nvidia-smi must list the GPUs (in a container: start it with --gpus all)",
    ),
    10: ("timeout", "the NVIDIA driver did not answer {call} in time", "try again"),
    12: (
        "no_library",
        "no NVIDIA driver library found (libnvidia-ml.so.1)",
        "install the NVIDIA driver (in a container: start it with --gpus all)",
    ),
    13: ("library_mismatch", "the installed NVIDIA driver has no {call}", "update the NVIDIA driver"),
    15: ("lost", "the GPU is lost: it does not answer on the bus", "see dmesg for Xid errors; reboot"),
    16: ("reset_required", "the GPU needs a reset", "nvidia-smi --gpu-reset, or reboot"),
    18: (
        "library_mismatch",
        "the NVIDIA library and the loaded kernel driver have different versions",
        "reboot, or reload the nvidia kernel module",
    ),
    25: ("library_mismatch", "the NVIDIA driver refuses this version of {call}", "update the NVIDIA driver"),
}
_FIELD_POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT
_SCOPE_MODULE = 1  # NVML_POWER_SCOPE_MODULE
_ALL_ONES = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE as an unsigned number
_NO_COUNTER = Unavailable(
    "not_supported_by_device", "this GPU has no energy counter (before Volta, or a virtual GPU)"
)


class Nvml:
    """One opened NVML; :meth:`ask` calls any of its functions by name and never raises."""

    def __init__(self) -> None:
        self._module: Any = None
        self._failure: Unavailable | None = None

    def open(self) -> Unavailable | None:
        """Import ``pynvml`` and initialise the library once; return why not, or None when it is open."""
        if self._module is None and self._failure is None:
            self._failure = self._open()
        return self._failure

    def _open(self) -> Unavailable | None:
        try:
            module = import_module("pynvml")
        except ImportError as error:
            return Unavailable(
                "no_library", f"the Python package pynvml is missing ({error})", "pip install nvidia-ml-py"
            )
        try:
            module.nvmlInit()
        except module.NVMLError as error:
            return self._refusal("nvmlInit", error)
        self._module = module
        return None

    def ask(self, call: str, *arguments: Any) -> Any:
        """Return what the NVML function ``call`` answers, or :class:`Unavailable`."""
        failure = self.open()
        if failure is not None:
            return failure
        function = getattr(self._module, call, None)
        if function is None:
            return Unavailable(
                "library_mismatch",
                f"the installed nvidia-ml-py has no {call}",
                "pip install --upgrade nvidia-ml-py",
            )
        try:
            return function(*arguments)
        except self._module.NVMLError as error:
            return self._refusal(call, error)

    def counter(self, call: str, handle: Any) -> Callable[[], int | Unavailable]:
        """Return a reader of an unsigned 64-bit number that is fit to be called a hundred times per second.

        It does what ``pynvml`` does, with everything prepared that can be; only after :meth:`open`.
        """
        function = getattr(self._module.nvmlLib, call, None)
        if function is None:
            missing = self.ask(call, handle)  # which says so in words
            return lambda: missing
        value = ctypes.c_uint64()
        where = ctypes.byref(value)

        def read() -> int | Unavailable:
            code = function(handle, where)
            return self._refusal(call, self._module.NVMLError(code)) if code else value.value

        return read

    @property
    def simulated(self) -> bool:
        """Whether the opened library says of itself that no hardware stands behind it."""
        return self._module is not None and hasattr(self._module.nvmlLib, "aiprof_simulated")

    def constant(self, name: str) -> Any:
        """Return a constant of ``pynvml``; only after :meth:`open` succeeded."""
        return getattr(self._module, name)

    def _refusal(self, call: str, error: Exception) -> Unavailable:
        number = int(getattr(error, "value", -1))
        code, text, remedy = _REFUSALS.get(
            number, ("unknown", f"the NVIDIA driver refused {{call}} with error {number} ({error})", "")
        )
        return Unavailable(code, text.replace("{call}", call), remedy)

    def energy_counter(self, handle: Any) -> Callable[[], int | Unavailable]:
        """Return a reader of the energy counter: millijoules since the driver was loaded; Volta and later."""
        counter = self.counter("nvmlDeviceGetTotalEnergyConsumption", handle)

        def read() -> int | Unavailable:
            millijoules = counter()
            if millijoules == _ALL_ONES:
                return Unavailable(
                    "implausible", "the energy counter answers 'not available' as if it were a number"
                )
            if isinstance(millijoules, Unavailable) and millijoules.code == "not_supported_by_device":
                return _NO_COUNTER
            return millijoules

        return read

    def energy_scope(self, handle: Any) -> str:
        """Return what the counter covers: ``module`` where NVML knows one around the GPU, else ``board``.

        On Grace Hopper the counter is the whole module's (ml-energy/zeus PR 172). Whether a module
        exists is asked of the power reading, whose scope can be named.
        """
        values = self.ask("nvmlDeviceGetFieldValues", handle, [(_FIELD_POWER_INSTANT, _SCOPE_MODULE)])
        return "module" if not isinstance(values, Unavailable) and values[0].nvmlReturn == 0 else "board"
