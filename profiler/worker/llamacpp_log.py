"""What llama.cpp says while it loads: the only place where the sizes of its buffers are to be had."""

from __future__ import annotations

import re
import sys
from typing import Any, Dict, List

import llama_cpp

_BUFFER = re.compile(r"(\w+)\s+(model|KV|compute|output|\w+) buffer size =\s*([0-9.]+) MiB")
_ERROR_LEVEL = 4  # ggml_log_level
_KEPT = 400


class Log:
    """Takes over llama.cpp's log, keeps its last lines and passes it on to stderr."""

    def __init__(self) -> None:
        self._lines: List[str] = []
        self._errors: List[str] = []
        # Kept, because ctypes does not keep a callback alive that C still calls.
        self._callback = llama_cpp.llama_log_callback(self._take)
        llama_cpp.llama_log_set(self._callback, None)

    def _take(self, level: int, text: bytes, user_data: Any) -> None:
        line = text.decode("utf-8", "replace")
        sys.stderr.write(line)
        self._lines = [*self._lines[-_KEPT:], line]
        if level == _ERROR_LEVEL and line.strip():
            self._errors.append(line.strip())

    def clear(self) -> None:
        """Forget everything said so far."""
        self._lines, self._errors = [], []

    def error(self) -> str:
        """Return the first error since :meth:`clear`; later ones only say what follows from it."""
        return " ".join(self._errors[0].split())[:300] if self._errors else "no reason given"

    def buffers(self) -> Dict[str, int]:
        """Return the bytes of each kind of buffer, as ``{"model": …, "KV": …, "compute": …}``."""
        sizes: Dict[str, int] = {}
        for _, kind, mebibytes in _BUFFER.findall("".join(self._lines)):
            sizes[kind] = sizes.get(kind, 0) + round(float(mebibytes) * 2**20)
        return sizes
