"""What a load process does by the clock, and how late its event loop is in doing so."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from typing import Final

LAG_EVERY_S: Final = 0.01


class Ticks:
    """Named timers of the running loop, at most one of a name at a time."""

    def __init__(self) -> None:
        self._handles: dict[str, asyncio.TimerHandle] = {}
        self._lags = array("d")
        self._lag_due = 0.0

    @property
    def lag_s(self) -> tuple[float, ...]:
        """How late the loop was, one value for each 10 ms since :meth:`watch_lag`."""
        return tuple(self._lags)

    def after(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        """Call after a time, instead of what was to be called by this name."""
        if name in self._handles:
            self._handles[name].cancel()
        self._handles[name] = asyncio.get_running_loop().call_later(delay_s, call)

    def watch_lag(self) -> None:
        """Measure from now on how late the loop is."""
        now = time.monotonic()
        if self._lag_due:
            self._lags.append(max(0.0, now - self._lag_due))
        self._lag_due = now + LAG_EVERY_S
        self.after("lag", LAG_EVERY_S, self.watch_lag)

    def cancel(self) -> None:
        """Call nothing any more."""
        for handle in self._handles.values():
            handle.cancel()
