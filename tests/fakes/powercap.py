"""Powercap zones on a clock that the test moves, and what the kernel answers when one of them fails.

``zones``: folder -> ``{"profile": "0:180,…", "range_uj": …, "first_uj": …, "fault": [kind, begin_s, end_s]}``
whose fault may be left out; its end may be null. Kinds: ``eio``, ``eacces`` (the kernel refuses opening and
reading), ``vanish`` (the zone is removed), ``garbage`` (no number), ``stuck``, ``reset`` (starts again at 0),
``back`` (by 50 J).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fakes.power import Profile

from profiler.sensors import files

_TICK_S = 0.001
_BACK_UJ = 50_000_000
_REFUSED = {"eio": errno.EIO, "eacces": errno.EACCES}


def profile_of(text: str) -> Profile:
    """The profile that ``str(profile)`` came from."""
    pairs = (segment.split(":") for segment in text.split(","))
    return Profile([(float(start), float(watts)) for start, watts in pairs])


class FaultyPowercap:
    """Keeps the files of zones at a moment; readers of files are led through it.

    Args:
        root: of the tree.
        zones: see above.
        t0_s: moment that profiles and faults count from.
        now_ns: the clock.
    """

    def __init__(
        self, root: Path, zones: Mapping[str, Mapping[str, Any]], t0_s: float, now_ns: Callable[[], int]
    ) -> None:
        self._zones = {
            root / "sys/class/powercap" / name / "energy_uj": (zone, profile_of(zone["profile"]))
            for name, zone in zones.items()
        }
        self._t0_s = t0_s
        self._written: dict[Path, str] = {}
        self._paths: dict[int, Path] = {}
        self.move(t0_s)
        kernel = SimpleNamespace(**vars(os))
        kernel.open, kernel.pread, kernel.close = self._open, self._pread, self._close
        files.os = kernel  # type: ignore[assignment, attr-defined]
        files.time = SimpleNamespace(monotonic_ns=now_ns)  # type: ignore[assignment, attr-defined]

    def move(self, now_s: float) -> None:
        """Bring all zones up to ``now_s``."""
        self._at_s = (now_s - self._t0_s) // _TICK_S * _TICK_S
        for path, (zone, profile) in self._zones.items():
            if self._fault(path) == "vanish":
                path.unlink(missing_ok=True)
            elif (text := self._content(path, zone, profile)) != self._written.get(path):
                path.write_text(text)
                self._written[path] = text

    def _content(self, path: Path, zone: Mapping[str, Any], profile: Profile) -> str:
        fault, begin_s = self._fault(path), (zone.get("fault") or (None, 0.0))[1]
        if fault == "garbage":
            return "no number\n"
        until_s = begin_s if fault == "stuck" else self._at_s
        counted = zone.get("first_uj", 5_000_000) + int(profile.joules(0.0, until_s) * 1e6)
        if fault == "reset":
            counted = int(profile.joules(begin_s, self._at_s) * 1e6)
        elif fault == "back":
            counted -= _BACK_UJ
        return f"{counted % zone['range_uj']}\n"

    def _fault(self, path: Path) -> str | None:
        """What is wrong with a zone at the moment."""
        kind, begin_s, end_s = self._zones[path][0].get("fault") or (None, 0.0, None)
        return kind if begin_s <= self._at_s and (end_s is None or self._at_s < end_s) else None

    def _refuse(self, path: Path) -> None:
        if path in self._zones and (number := _REFUSED.get(self._fault(path) or "")) is not None:
            raise OSError(number, os.strerror(number), str(path))

    def _open(self, name: str, flags: int) -> int:
        self._refuse(Path(name))
        descriptor = os.open(name, flags)
        self._paths[descriptor] = Path(name)
        return descriptor

    def _pread(self, descriptor: int, size: int, offset: int) -> bytes:
        self._refuse(self._paths[descriptor])
        return os.pread(descriptor, size, offset)

    def _close(self, descriptor: int) -> None:
        del self._paths[descriptor]
        os.close(descriptor)
