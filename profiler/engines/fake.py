"""Conductor side of the ``fake`` engine, which computes nothing and can misbehave on request."""

from __future__ import annotations

from typing import Any

from profiler.backends.base import Device
from profiler.errors import UsageError, unknown
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.worker.fake_answers import MODES
from profiler.worker.fake_devices import DEVICES
from profiler.worker.fake_engine import DEFAULTS


class FakeEngine:
    """Programmable speed, noise, drift, memory and faults; see ``profiler/worker/fake_engine.py``."""

    name = "fake"
    simulated = True
    runs_slices = True
    runs_parallel = True

    def unsupported(self, architecture: Architecture, formats: Formats, device: Device) -> str | None:
        """Everything can be pretended."""
        return None

    def device_string(self, device: Device, hello: dict[str, Any]) -> str:
        """The engine knows its own devices by their keys; of any other it makes its plainest one.

        Its numbers are simulated on whatever device they are said to be; sensors of that device are real.
        """
        kind = device.key.partition(".")[0]  # one of several that are made up alike
        return kind if kind in DEVICES else "fake-0"

    def options(self, given: dict[str, str]) -> dict[str, Any]:
        """Parse ``key=value`` pairs to the types of the defaults.

        Raises:
            UsageError: unknown key, or a value of the wrong type.
        """
        parsed: dict[str, Any] = {}
        for key, text in given.items():
            if key not in DEFAULTS:
                raise UsageError(f"--engine-option: {unknown('option of engine fake', key, DEFAULTS)}")
            kind = type(DEFAULTS[key])
            try:
                parsed[key] = text.lower() in ("true", "1", "yes") if kind is bool else kind(text)
            except ValueError:
                raise UsageError(f"--engine-option {key}={text}: not a {kind.__name__}") from None
        if parsed.get("fidelity", "faithful") not in MODES:
            raise UsageError(
                f"--engine-option fidelity={parsed['fidelity']}: must be one of {', '.join(MODES)}"
            )
        return parsed
