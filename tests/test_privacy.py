from __future__ import annotations

import socket
from pathlib import Path

import pytest

from profiler import privacy


def test_homes_hosts_users_and_folders_are_taken_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setattr(socket, "gethostname", lambda: "rack12-node7")
    monkeypatch.setattr("getpass.getuser", lambda: "someone")
    monkeypatch.chdir(tmp_path)
    privacy._private_words.cache_clear()
    try:
        text = f"someone@rack12-node7: /home/someone/models/x.bin and {tmp_path}/y\x1b[31m"
        scrubbed = privacy.scrub(text)
    finally:
        monkeypatch.undo()
        privacy._private_words.cache_clear()
    assert scrubbed == "<user>@<host>: ~/models/x.bin and ./y [31m"
