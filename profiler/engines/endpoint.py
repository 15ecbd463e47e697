"""The ``endpoint`` engine: a server by URL that somebody else started, in a sweep.

It has no worker: its cases are loads (``profiler/measure/served_sweep.py``). What it serves is stated by the
user with ``--model`` and ``--precision``, and recorded as stated.
"""

from __future__ import annotations

from typing import Any, ClassVar

from profiler.backends.base import Device
from profiler.errors import UsageError, unknown
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats

COUNTS = ("requests", "warm_up")
NUMBERS = ("from", "to")
TEXTS = ("url", "api", "served_model", "slo", "search", "simulated", "speculative")
OPTIONS = (*TEXTS, *COUNTS, *NUMBERS)


class EndpointEngine:
    """A server by URL."""

    name = "endpoint"
    simulated = False
    serves: ClassVar[bool] = True

    def unsupported(self, architecture: Architecture, formats: Formats, device: Device) -> str | None:
        """Nothing is refused: what the server runs is not ours to say."""
        return None

    def device_string(self, device: Device, hello: dict[str, Any]) -> str:
        """Never asked for: there is no worker.

        Raises:
            UsageError: always.
        """
        raise UsageError("engine endpoint drives a server and has no worker")

    def options(self, given: dict[str, str]) -> dict[str, Any]:
        """Parse the options of docs/engines.md.

        Raises:
            UsageError: one is unknown, missing or does not parse.
        """
        for key in given:
            if key not in OPTIONS:
                raise UsageError(f"--engine-option: {unknown('option of engine endpoint', key, OPTIONS)}")
        if not given.get("url"):
            raise UsageError("engine endpoint needs --url http://HOST:PORT")
        parsed: dict[str, Any] = dict(given)
        for key in COUNTS:
            text = given.get(key)
            if text is not None:
                if not text.isdecimal():
                    raise UsageError(f"--engine-option {key}={text}: must be a whole number")
                parsed[key] = int(text)
        for key in NUMBERS:
            if key in given:
                parsed[key] = _number(key, given[key])
        if given.get("search", "rate") not in ("concurrency", "rate"):
            raise UsageError(f"--engine-option search={given['search']}: must be concurrency or rate")
        if given.get("api", "completions") not in ("completions", "chat"):
            raise UsageError(f"--engine-option api={given['api']}: must be completions or chat")
        if given.get("simulated", "no") not in ("yes", "no"):
            raise UsageError(f"--engine-option simulated={given['simulated']}: must be yes or no")
        parsed["simulated"] = given.get("simulated") == "yes"
        return parsed


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1e6:
        raise UsageError(f"--engine-option {key}={text}: must be a number above 0")
    return number
