"""The kernels of native.cpp: compiled once where a C++ compiler is, and called through ctypes.

The library lies in the user's cache under a name that holds everything it depends on: the source, the
compiler with its version, the flags, and the instructions of this CPU. Finding it there takes a few
milliseconds, compiling it about five seconds, once.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from typing import Any

import torch

from .native_kernels import LONG, POINTER, SUFFIXES, Kernels

SOURCE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "native.cpp")
COMPILERS = ("g++", "c++", "clang++")
FLAGS = ("-std=gnu++2a", "-O3", "-fopenmp", "-shared", "-fPIC", "-fvisibility=hidden")
# -march=native is not known to every compiler on every architecture; -mcpu=native is its name on some.
TARGETS = ("-march=native", "-mcpu=native")
COMPILE_TIMEOUT_S = 120
_FILL_BYTES = (2, 4)


class NativeError(Exception):
    """Why there are no kernels here, in one line."""


class Library:
    """The loaded library.

    Attributes:
        path: of the file.
        details: for the record: compiler and instructions used.
        compile_s: seconds spent compiling it in this process; None when it lay in the cache.
    """

    def __init__(self, path: str, compiler: str, compile_s: float | None) -> None:
        try:
            self._library = ctypes.CDLL(path)
            self._library.instructions.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            reason = str(error).replace(path, os.path.basename(path))
            raise NativeError(f"the compiled kernels cannot be loaded: {reason}") from error
        self.path, self.compile_s = path, compile_s
        self.details = {"compiler": compiler, "instructions": self._library.instructions().decode()}

    def kernels(self, dtype: Any) -> Kernels | None:
        """Return the kernels for ``dtype``, or None where there are none."""
        suffix = SUFFIXES.get(dtype)
        return None if suffix is None else Kernels(self._library, suffix)

    def fill(self, destination: Any, first_key: int, second_key: int, table: Any) -> bool:
        """Fill ``destination`` with random weights (random_weights.py); False for another width."""
        width = destination.element_size()
        if width not in _FILL_BYTES:
            return False
        function = getattr(self._library, f"fill_{width}")
        function.argtypes = [POINTER, LONG, ctypes.c_uint32, ctypes.c_uint32, POINTER, ctypes.c_int]
        function.restype = None
        threads = torch.get_num_threads()
        count = destination.numel()
        function(destination.data_ptr(), count, first_key, second_key, table.data_ptr(), threads)
        return True


@functools.lru_cache(maxsize=1)
def load_library() -> Library:
    """Return the library, compiled now if it is not in the cache.

    Raises:
        NativeError: no compiler, or none that could compile it.
    """
    compiler, version = find_compiler()
    faults = []
    for target in TARGETS:
        command = [compiler, *FLAGS, target]
        path = os.path.join(cache_folder(), f"native-{_key(command, version)}.so")
        if os.path.exists(path) and os.stat(path).st_uid == os.getuid():
            try:
                return Library(path, version, None)
            except NativeError:  # a torn file: compile over it
                pass
        began = time.perf_counter()
        fault = _compile(command, path)
        if fault is None:
            return Library(path, version, time.perf_counter() - began)
        faults.append(fault)
    raise NativeError(f"{os.path.basename(compiler)} cannot compile the kernels: {faults[0]}")


def library_for_weights(device: Any) -> Library | None:
    """Return the library to make random weights with, where there is one for ``device``."""
    if device.type != "cpu":
        return None
    try:
        return load_library()
    except NativeError:
        return None


def find_compiler() -> tuple[str, str]:
    """Return (path, first line of its version) of the compiler in ``CXX``, or of the first known one.

    Raises:
        NativeError: there is none.
    """
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else COMPILERS:
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == 0 and done.stdout:
            return path, done.stdout.splitlines()[0]
    raise NativeError(f"no C++ compiler ({asked or ', '.join(COMPILERS)})")


def cache_folder() -> str:
    """Return a folder of this user alone; a new one below the temporary folder where there is no home."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(home, "aiprof", "kernels")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK) and os.stat(folder).st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="aiprof-kernels-")


def _compile(command: list[str], path: str) -> str | None:
    """Compile to ``path``, which appears whole or not at all; return the fault in one line, or None."""
    part = f"{path}.{os.getpid()}"
    try:
        done = subprocess.run(
            [*command, "-o", part, SOURCE],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
        if done.returncode == 0:
            os.replace(part, path)
            return None
        lines = [line for line in done.stderr.splitlines() if "error:" in line] or done.stderr.splitlines()
        return lines[0].replace(SOURCE, "native.cpp") if lines else f"exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        return f"not done after {COMPILE_TIMEOUT_S} s"
    except OSError as error:
        return str(error)
    finally:
        if os.path.exists(part):
            os.remove(part)


def _key(command: list[str], version: str) -> str:
    """Return 16 hexadecimal digits that change with whatever the library depends on."""
    folder, source = os.path.dirname(SOURCE), b""
    for name in sorted(os.listdir(folder)):
        if name.endswith((".cpp", ".h")):
            with open(os.path.join(folder, name), "rb") as file:
                source += file.read()
    try:
        with open("/proc/cpuinfo") as file:
            found = re.search(r"^(?:flags|Features|isa)\s*:\s*(.+)$", file.read(), re.MULTILINE)
    except OSError:
        found = None
    about = [version, *command, platform.machine(), found.group(1) if found else ""]
    return hashlib.sha256(source + "\0".join(about).encode()).hexdigest()[:16]
