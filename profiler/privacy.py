"""Keeping the names of people, hosts and folders out of records."""

from __future__ import annotations

import functools
import getpass
import re
import socket
import tempfile
from pathlib import Path


@functools.cache
def _private_words() -> tuple[tuple[re.Pattern[str], str], ...]:
    words: list[tuple[str, str]] = []
    home = str(Path.home())
    if len(home) > 1:
        words.append((re.escape(home), "~"))
    words.append((re.escape(str(Path.cwd())), "."))
    words.append((re.escape(tempfile.gettempdir()) + r"(?=/)", "<tmp>"))
    host = socket.gethostname()
    if len(host) > 2 and host != "localhost":
        words.append((rf"\b{re.escape(host)}\b", "<host>"))
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""  # a container's numeric user without a name
    if len(user) > 2 and user != "root":
        words.append((rf"\b{re.escape(user)}\b", "<user>"))
    return tuple((re.compile(pattern), replacement) for pattern, replacement in words)


def served_name(name: str) -> str:
    """Return a model's name on a server; of a path, which llama-server and vLLM use unless told, its end."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] if re.match(r"[/~.\\]|[A-Za-z]:\\", name) else name


def scrub(text: str) -> str:
    """Return ``text`` without home and working folders, host and user name, and control characters."""
    for pattern, replacement in _private_words():
        text = pattern.sub(replacement, text)
    return "".join(character if character.isprintable() else " " for character in text)
