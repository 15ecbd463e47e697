"""The source ``command``: a meter of the user's own, as a program that prints one reading per line.

``AIPROF_POWER_COMMAND`` is the program with its arguments. Each line is a number, optionally with a unit:
``W`` (the default), ``mW``, ``kW`` for power, ``J``, ``kJ``, ``Wh``, ``kWh`` for energy counted up. What it
measures is taken to be the whole machine (``AIPROF_POWER_SCOPE`` says otherwise).
"""

from __future__ import annotations

import math
import os
import re
import select
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import get_args

from profiler.backends.base import Json, Unavailable
from profiler.sensors.base import Read, Scope, SensorInfo, missing
from profiler.worker.isolation import die_with_parent

COMMAND, SCOPE = "AIPROF_POWER_COMMAND", "AIPROF_POWER_SCOPE"
_FIRST_LINE_S = 10.0
_STALE_S = 10.0
_POLL_HZ = 50.0
_MAX_POWER_W = 50_000.0
_LINE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*")
# unit -> (is power, thousandths of a watt or joule)
_UNITS = {
    "": (True, 1e3),
    "W": (True, 1e3),
    "mW": (True, 1.0),
    "kW": (True, 1e6),
    "J": (False, 1e3),
    "kJ": (False, 1e6),
    "Wh": (False, 3.6e6),
    "kWh": (False, 3.6e9),
}


class CommandSensors:
    """Runs the user's meter and reads what it prints.

    Args:
        command: the program and its arguments as one line; by default from the environment.
        scope: what it measures.
    """

    name = "command"

    def __init__(self, command: str | None = None, scope: str | None = None) -> None:
        self._command = command if command is not None else os.environ.get(COMMAND, "")
        self._scope = scope or os.environ.get(SCOPE, "wall")

    def options(self) -> Mapping[str, Json]:
        """Return the command and its scope."""
        return {"command": self._command, "scope": self._scope}

    def probe(self) -> list[SensorInfo]:
        """Run the program until its first line, which tells power from energy."""
        scope = self._checked_scope()
        if isinstance(scope, Unavailable):
            return [missing("command", scope, device="meter", scope="wall")]
        meter = self._start()
        if isinstance(meter, Unavailable):
            return [missing("command", meter, device="meter", scope=scope)]
        try:
            first = meter.first()
        finally:
            meter.stop()
        if isinstance(first, Unavailable):
            return [missing("command", first, device="meter", scope=scope)]
        is_power, raw = first
        return [
            SensorInfo(
                key="command:meter/power" if is_power else "command:meter/energy",
                source="command",
                device="wall" if scope == "wall" else "meter",
                kind="power_instant" if is_power else "energy_counter",
                scope=scope,
                unit="W" if is_power else "J",
                scale=1e-3,
                poll_hz=_POLL_HZ,
                max_power_w=_MAX_POWER_W,
                unavailable=_checked(raw) if is_power else None,
                note=f"from the program {shlex.split(self._command)[0]}",
            )
        ]

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Start the program for good; its latest line is what a read gives."""
        meter = self._start()
        if isinstance(meter, Unavailable):
            return dict.fromkeys(keys, meter)
        threading.Thread(target=meter.follow, daemon=True).start()
        return {key: meter.latest(is_power=key.endswith("/power")) for key in keys}

    def _checked_scope(self) -> Scope | Unavailable:
        for scope in get_args(Scope):
            if scope == self._scope:
                known: Scope = scope
                return known
        known_scopes = ", ".join(get_args(Scope))
        return Unavailable(
            "not_configured", f"{SCOPE}={self._scope} is none of {known_scopes}", f"set {SCOPE}"
        )

    def _start(self) -> _Meter | Unavailable:
        try:
            words = shlex.split(self._command)
        except ValueError as error:
            return Unavailable("not_configured", f"{COMMAND} cannot be split into words ({error})")
        if not words:
            text = "no meter of your own is named"
            return Unavailable("not_configured", text, f"set {COMMAND} to a program that prints watts")
        parent = os.getpid()
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                preexec_fn=lambda: die_with_parent(parent),
            )
        except OSError as error:
            return Unavailable("no_library", f"{words[0]} cannot be run ({error.strerror or error})")
        return _Meter(process, words[0])


class _Meter:
    """A running program and the last thing it said."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process = process
        self._name = name
        self._state: tuple[bool, int, float] | Unavailable = Unavailable(
            "timeout", f"{name} has printed nothing yet"
        )

    def first(self) -> tuple[bool, int] | Unavailable:
        """Wait for a line; return (is power, raw)."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _FIRST_LINE_S)[0]:
            return Unavailable("timeout", f"{self._name} printed nothing within {_FIRST_LINE_S:.0f} s")
        return self._parse(self._process.stdout.readline())

    def follow(self) -> None:
        """Keep up with what the program prints, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            parsed = self._parse(line)
            self._state = (
                parsed if isinstance(parsed, Unavailable) else (parsed[0], parsed[1], time.monotonic())
            )
        code = self._process.wait()
        self._state = Unavailable("lost", f"{self._name} ended ({code})", "keep it running")

    def latest(self, *, is_power: bool) -> Read:
        """Return a function that gives the last value of the right kind."""

        def read() -> int | Unavailable:
            state = self._state
            if isinstance(state, Unavailable):
                return state
            if state[0] is not is_power:
                return Unavailable("unreadable", f"{self._name} prints watts and joules by turns")
            if time.monotonic() - state[2] > _STALE_S:
                return Unavailable("timeout", f"{self._name} printed nothing for {_STALE_S:.0f} s")
            return (_checked(state[1]) or state[1]) if is_power else state[1]

        return read

    def stop(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _parse(self, line: bytes) -> tuple[bool, int] | Unavailable:
        text = line.decode("utf-8", "replace")
        match = _LINE.fullmatch(text)
        if match is None or match[2] not in _UNITS or not math.isfinite(1e6 * float(match[1])):
            if not line:
                return Unavailable("lost", f"{self._name} ended without printing anything")
            shown = text.strip()[:40]
            return Unavailable("unreadable", f"{self._name} prints '{shown}', which is no reading")
        is_power, factor = _UNITS[match[2]]
        return is_power, round(float(match[1]) * factor)


def _checked(milliwatts: int) -> Unavailable | None:
    """A machine that prints its own power is on."""
    return Unavailable("implausible", "the meter shows 0 W") if milliwatts == 0 else None
