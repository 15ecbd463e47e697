"""Shared by all tests."""

from __future__ import annotations

from hypothesis import settings

# Shared machines are slow at odd moments; no test is about time.
settings.register_profile("aiprof", deadline=None)
settings.load_profile("aiprof")
