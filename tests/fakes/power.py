"""Programmable power for the fakes: profiles whose energy is known exactly, and what serves them.

The truth is integrated here, the fakes integrate on their own (in C, or when they are asked); the only thing
that they share is the text of the profile.
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import http.server
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FAKES = Path(__file__).parent
TWO_GPUS = [f"GPU-{digit * 8}-1111-2222-3333-444444444444" for digit in "ab"]
# When the profiles of the fakes begin where a test has a clock of its own.
T0_S = 1.0


class Profile:
    """Piecewise constant power.

    Args:
        segments: (start in seconds, watts) in order; the first power also holds before, the last ever after.
    """

    def __init__(self, segments: Sequence[tuple[float, float]]) -> None:
        self.starts = [start for start, _ in segments]
        self.watts = [watts for _, watts in segments]
        spans = zip(itertools.pairwise(self.starts), self.watts, strict=False)
        self._joules = [0.0, *itertools.accumulate((end - start) * watts for (start, end), watts in spans)]

    def at(self, moment_s: float) -> float:
        """Power at a moment."""
        return self.watts[max(0, bisect.bisect_right(self.starts, moment_s) - 1)]

    def joules(self, begin_s: float, end_s: float) -> float:
        """Exact energy between two moments."""
        return self._until(end_s) - self._until(begin_s)

    def _until(self, moment_s: float) -> float:
        at = max(0, bisect.bisect_right(self.starts, moment_s) - 1)
        return self._joules[at] + (moment_s - self.starts[at]) * self.watts[at]

    def __str__(self) -> str:
        # Rounded here and not in the fakes, which read these very digits.
        return ",".join(f"{start!r}:{watts!r}" for start, watts in zip(self.starts, self.watts, strict=True))


def compile_fake(source: str, library: Path, *flags: str) -> Path | None:
    """Compile a C file of this folder into a shared library; None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library.parent.mkdir(parents=True, exist_ok=True)
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    name = f"-Wl,-soname,{library.name}"
    command = [compiler, "-shared", "-fPIC", "-O2", *warnings, *flags, name, "-o", str(library)]
    subprocess.run([*command, str(FAKES / source), "-lm", "-lpthread"], check=True)
    return library


def write_config(path: Path, values: Mapping[str, object]) -> None:
    """Write a fake's configuration in one step, so that no half of it is ever read."""
    later = path.with_name(f"{path.name}.new")
    later.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    later.replace(path)


class PowercapTree:
    """Keeps the counters of powercap zones up to date, as the kernel would on every read.

    Args:
        root: tree of files (see ``machines.zone``) whose ``energy_uj`` are rewritten.
        zones: folder -> (profile, microjoules at the beginning, microjoules after which it starts again).
        t0_s: CLOCK_MONOTONIC that the profiles count from.
        tick_s: how often the counters change.
        urgent: go before everything else on the machine where that is allowed; real counters wait for nobody.

    Attributes:
        longest_pause_s: longest time between two changes; on a busy machine much longer than ``tick_s``.
    """

    def __init__(
        self,
        root: Path,
        zones: Mapping[str, tuple[Profile, int, int]],
        t0_s: float,
        tick_s: float = 0.001,
        *,
        urgent: bool = False,
    ) -> None:
        self._folder = root / "sys/class/powercap"
        self.zones = dict(zones)
        self._t0_s = t0_s
        self._tick_s = tick_s
        self._urgent = urgent
        self.longest_pause_s = 0.0
        self._written_s = time.monotonic()
        self._stop = threading.Event()
        self._files = {name: os.open(self._folder / name / "energy_uj", os.O_WRONLY) for name in zones}
        self.write()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Bring all counters up to date."""
        now_s = time.monotonic() - self._t0_s
        for name, (profile, first, wrap) in self.zones.items():
            value = (first + int(profile.joules(0.0, now_s) * 1e6)) % wrap
            # One write of constant length: a reader sees the old or the new number, never half of one.
            os.pwrite(self._files[name], f"{value:020d}\n".encode(), 0)
        done_s = time.monotonic()
        self.longest_pause_s = max(self.longest_pause_s, done_s - self._written_s)
        self._written_s = done_s

    def _run(self) -> None:
        if self._urgent:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # of this thread only
        while not self._stop.wait(self._tick_s):
            self.write()

    def stop(self) -> None:
        """Let the counters stand still."""
        self._stop.set()
        self._thread.join()
        for file in self._files.values():
            os.close(file)


class RedfishServer(http.server.ThreadingHTTPServer):
    """A management controller with one chassis, which refreshes its readings once per ``period_s``.

    Args:
        profile: of the machine's power, from now on.
        schema: ``old`` (Power), ``new`` (EnvironmentMetrics) or ``both``.
        change: may replace what is answered: called with (path, document), returns (status, document,
            headers).
    """

    daemon_threads = True

    def __init__(
        self,
        profile: Profile,
        schema: str = "both",
        *,
        period_s: float = 0.25,
        password: str = "secret",
        change: Callable[[str, dict[str, Any]], tuple[int, Any, dict[str, str]]] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Controller)
        self.profile, self.schema, self.period_s, self.change = profile, schema, period_s, change
        self.t0_s = time.monotonic()
        self.token = "Basic " + base64.b64encode(f"aiprof:{password}".encode()).decode()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""

    def documents(self) -> dict[str, dict[str, Any]]:
        """All that it knows, by path."""
        now_s = (time.monotonic() - self.t0_s) // self.period_s * self.period_s
        watts, kwh = round(self.profile.at(now_s), 1), 12.5 + self.profile.joules(0, now_s) / 3.6e6
        chassis = "/redfish/v1/Chassis/1"
        power = {"PowerControl": [{"PowerConsumedWatts": watts}]}
        metrics = {"PowerWatts": {"Reading": watts}, "EnergykWh": {"Reading": round(kwh, 6)}}
        links = {"Power": "old", "EnvironmentMetrics": "new"}
        return {
            "/redfish/v1": {"Chassis": {"@odata.id": "/redfish/v1/Chassis"}},
            "/redfish/v1/Chassis": {"Members": [{"@odata.id": chassis}]},
            chassis: {
                name: {"@odata.id": f"{chassis}/{name}"}
                for name, schema in links.items()
                if self.schema in (schema, "both")
            },
            f"{chassis}/Power": power,
            f"{chassis}/EnvironmentMetrics": metrics,
        }


class _Controller(http.server.BaseHTTPRequestHandler):
    server: RedfishServer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.rstrip("/")
        document = self.server.documents().get(path)
        status, headers = (404 if document is None else 200), dict[str, str]()
        body: Any = document or {}
        if path != "/redfish/v1" and self.headers.get("Authorization") != self.server.token:
            status, body = 401, {}
        elif self.server.change is not None:
            status, body, headers = self.server.change(path, body)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
