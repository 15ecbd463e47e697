"""Shared by all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# Shared machines are slow at odd moments; no test is about time.
settings.register_profile("aiprof", deadline=None)
settings.load_profile("aiprof")
# A shell starts its background jobs with Ctrl-C ignored, and what ignores it passes that on to its children,
# among them those that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
