"""AMD's energy counter through the Python package ``amdsmi``, which is kept at arm's length.

Importing it may print to standard output, raise KeyError (no library) or AttributeError (a library
older than the package), and before ROCm 7.2 its calls were not thread-safe. So its output is
dropped, any failure is an answer, and one lock is around everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from profiler.backends.base import Unavailable
from profiler.backends.identity import normal_pci

# The accumulator counts 2^-16 J (gpu_metrics of amdgpu: "15.259 uJ"). The package's own
# counter_resolution is rounded to 15.3 uJ, which makes every energy 0.27 % too large.
JOULES_PER_COUNT = 2.0**-16
_NOT_AVAILABLE = (1 << 64) - 1
_REMEDY = "install the amdsmi package that came with your ROCm: pip install /opt/rocm/share/amd_smi"

_lock = threading.RLock()


class AmdSmi:
    """Opens the library when first asked."""

    def __init__(self) -> None:
        self._module: Any = None
        self._failure: Unavailable | None = None
        self._handles: dict[str, Any] = {}

    def open(self) -> Unavailable | None:
        """Import and initialise ``amdsmi`` once; return why not, or None when it is open."""
        with _lock:
            if self._module is None and self._failure is None:
                self._failure = self._open()
            return self._failure

    def _open(self) -> Unavailable | None:
        try:
            with _stdout_kept_clean():
                module = import_module("amdsmi")
                module.amdsmi_init()
                for handle in module.amdsmi_get_processor_handles():
                    address = normal_pci(str(module.amdsmi_get_gpu_device_bdf(handle)))
                    if address is not None:
                        self._handles[address] = handle
        except ModuleNotFoundError:
            return Unavailable(
                "no_library",
                "amdgpu shows energy through the Python package amdsmi, which is missing",
                _REMEDY,
            )
        except (Exception, SystemExit) as error:  # whatever a broken installation raises
            return Unavailable(
                "library_mismatch", f"the Python package amdsmi is unusable ({_line(error)})", _REMEDY
            )
        self._module = module
        return None

    def addresses(self) -> list[str]:
        """Return the PCI addresses that the library lists; none when it is not open."""
        return [] if self.open() is not None else sorted(self._handles)

    @property
    def simulated(self) -> bool:
        """Whether the opened package says of itself that no hardware stands behind it."""
        return self._module is not None and hasattr(self._module, "AIPROF_SIMULATED")

    def ask(self, call: str, pci_address: str | None) -> Any:
        """Return what the function ``call`` answers for the GPU, or :class:`Unavailable`."""
        failure = self.open()
        if failure is not None:
            return failure
        if pci_address not in self._handles:
            return Unavailable("no_device", f"amdsmi does not list the GPU at {pci_address}")
        with _lock:
            try:
                return getattr(self._module, call)(self._handles[pci_address])
            except Exception as error:  # its exception classes differ between versions
                return _refusal(error)

    def energy_count(self, pci_address: str | None) -> int | Unavailable:
        """Read the accumulator of the GPU at ``pci_address`` in its own unit of 2^-16 J."""
        answer = self.ask("amdsmi_get_energy_count", pci_address)
        if isinstance(answer, Unavailable):
            return answer
        # Older packages call the accumulator "power".
        count = answer.get("energy_accumulator", answer.get("power"))
        if not isinstance(count, int) or count in (0, _NOT_AVAILABLE):
            return Unavailable("not_supported_by_device", f"amdsmi answers {count!r} for the energy counter")
        return count


def _refusal(error: Exception) -> Unavailable:
    line = _line(error)
    if "NOT_SUPPORTED" in line.upper():
        return Unavailable(
            "not_supported_by_device", f"this GPU (or virtual machine) has no energy counter ({line})"
        )
    if "NO_PERM" in line.upper():
        return Unavailable("permission", f"this user may not read the energy counter ({line})", "run as root")
    return Unavailable("unknown", f"amdsmi refused to read the energy counter ({line})")


def _line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:200]


@contextlib.contextmanager
def _stdout_kept_clean() -> Iterator[None]:
    """Drop what Python or C code prints to standard output, which belongs to results."""
    sys.stdout.flush()
    kept = os.dup(1)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C code printed may still be in its buffer
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)
