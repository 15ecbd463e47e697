"""The clock that budgets go by: CLOCK_MONOTONIC, plus time that a simulated engine claims has passed."""

from __future__ import annotations

import time


class BudgetClock:
    """Seconds since some moment; runs ahead of the real clock when an engine's time is virtual."""

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def now(self) -> float:
        """Return the time in seconds; only differences mean anything."""
        return time.monotonic() + self._skipped_s

    def account(self, claimed_s: float, since: float) -> None:
        """Move ahead when something claims to have taken longer than has passed since ``since``."""
        self._skipped_s += max(0.0, claimed_s - (self.now() - since))
