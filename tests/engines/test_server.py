"""Servers that are started here: real processes, the known-truth server among them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import truth_server

from profiler.engines.server import ServerError, ServerProcess, free_port

PATIENCE_S = 120.0
TRUTH = Path(truth_server.__file__)

# Starts a child in a session of its own that ignores SIGTERM, says its pid, and then does as told.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "
    "time.sleep(600)"], start_new_session=True, stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print("child", child.pid, flush=True)
{then}
"""


def truth(port: int) -> list[str]:
    return [sys.executable, str(TRUTH), "--port", str(port), "--ttft-ms", "5", "--gap-ms", "1"]


def script(text: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, "-c", text, str(port)]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def child_of(log: Path) -> int:
    wait_until(lambda: log.exists() and "child " in log.read_text())
    return int(log.read_text().split("child ")[1].split()[0])


def test_a_server_is_ready_when_it_answers_and_gone_afterwards(tmp_path: Path) -> None:
    with ServerProcess(truth, tmp_path / "log", ready_path="/v1/models") as server:
        server.wait_ready(PATIENCE_S)
        server.check()
        assert server.url == f"http://127.0.0.1:{server.port}"
        pids = [process.pid for process in server.processes()]
        assert len(pids) == 1
    assert not any(map(alive, pids))
    assert server.processes() == []
    server.stop()  # once more does no harm


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    nowhere = ServerProcess(lambda port: ["/nowhere/vllm", str(port)], tmp_path / "log", name="vllm")
    with nowhere as server, pytest.raises(ServerError, match="ended while it was starting") as found:
        server.wait_ready(PATIENCE_S)
    assert found.value.message == "vllm ended while it was starting: exit code 127"
    assert found.value.kind == "server_died"
    assert found.value.log_tail == ("/nowhere/vllm: cannot be started: No such file or directory",)


def test_the_last_lines_of_a_dead_server_are_told_and_no_others(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier server\n")
    text = "import sys; print('loading'); sys.exit('no kernel image is available')"
    with ServerProcess(script(text), log) as server, pytest.raises(ServerError, match="code 1") as found:
        server.wait_ready(PATIENCE_S)
    assert set(found.value.log_tail) == {"loading", "no kernel image is available"}


def test_a_server_that_is_killed_is_found_dead(tmp_path: Path) -> None:
    with ServerProcess(truth, tmp_path / "log", ready_path="/v1/models") as server:
        server.wait_ready(PATIENCE_S)
        (process,) = server.processes()
        process.kill()
        wait_until(lambda: not server.running)
        with pytest.raises(ServerError, match="while it was serving: killed by SIGKILL"):
            server.check()


def test_a_server_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    waited: list[float] = []
    with ServerProcess(script("import time; time.sleep(600)"), tmp_path / "log") as server:
        with pytest.raises(ServerError, match="not ready within 0 s") as found:
            server.wait_ready(0.3, waited.append)
        pids = [process.pid for process in server.processes()]
    assert found.value.kind == "timeout"
    assert waited
    assert not any(map(alive, pids))


@pytest.mark.parametrize("then", ["time.sleep(600)", "sys.exit(3)"])
def test_no_grandchild_survives_even_one_that_is_deaf(tmp_path: Path, then: str) -> None:
    log = tmp_path / "log"
    with ServerProcess(script(PARENT.format(then=then)), log, grace_s=0.1) as server:
        pid = child_of(log)
    assert not alive(pid)
    assert server.processes() == []


def test_an_interrupt_ends_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def work() -> None:
        with ServerProcess(script(PARENT.format(then="time.sleep(600)")), log, grace_s=0.1):
            child_of(log)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not alive(child_of(log))


def test_the_server_dies_with_a_conductor_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    conductor = f"""
import sys, time
from pathlib import Path
from profiler.engines.server import ServerProcess
command = [sys.executable, "-c", {PARENT.format(then="time.sleep(600)")!r}]
with ServerProcess(lambda port: command, Path({str(log)!r}), grace_s=0.1):
    time.sleep(600)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", conductor], env=environment)
    pid = child_of(log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(pid))


def test_a_port_that_another_program_took_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ServerProcess(truth, tmp_path / "log", ready_path="/v1/models") as other:
        other.wait_ready(PATIENCE_S)
        ports = iter([other.port, 0])
        monkeypatch.setattr("profiler.engines.server.free_port", lambda: next(ports) or free_port())
        with ServerProcess(truth, tmp_path / "log2", ready_path="/v1/models") as server:
            server.wait_ready(PATIENCE_S)
            assert server.port != other.port
        other.check()
