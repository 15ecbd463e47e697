"""Taking out of a text what identifies a machine or a person, before it is sent to anybody."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from profiler.backends.tree import Tree

# systemd writes pods with underscores; what stands before may be a letter ("pod4c4c...").
_UUID = re.compile(r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}", re.IGNORECASE)
_AMD_UUID = re.compile(r"(?<=GPU-)[0-9a-f]{16}(?![0-9a-f-])", re.IGNORECASE)
_LONG_HEX = re.compile(r"[0-9a-f]{32,}", re.IGNORECASE)  # machine ids, container ids
_SERIAL_LINE = re.compile(r"^([^\n:=]*serial[^\n:=]*[:=][ \t]*)(\S.*)$", re.IGNORECASE | re.MULTILINE)
_SECRET_FILES = {
    "machine id": ("/etc/machine-id", "/var/lib/dbus/machine-id", "/sys/class/dmi/id/product_uuid"),
    "serial": (
        "/sys/class/dmi/id/product_serial",
        "/sys/class/dmi/id/board_serial",
        "/sys/class/dmi/id/chassis_serial",
    ),
    "host name": ("/proc/sys/kernel/hostname", "/etc/hostname"),
}
SCRUBBED = ("host name", "user name", "home path", "machine id", "serial numbers", "UUIDs", "container ids")
# The names that every machine has say nothing about this one.
_COMMON = {"", "root", "/", "localhost", "(none)", "none"}


def find_secrets(tree: Tree, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the values that must not leave this machine, each with the label that replaces it."""
    secrets: dict[str, str] = {}

    def add(label: str, value: str | None) -> None:
        if value and value.lower() not in _COMMON:
            secrets[value] = f"<{label}>"

    for label, names in _SECRET_FILES.items():
        for name in names:
            add(label, tree.text(name))
    for host in (
        platform.node(),
        *(value for value, label in tuple(secrets.items()) if label == "<host name>"),
    ):
        add("host name", host)
        add("host name", host.partition(".")[0])
    for variable in ("USER", "LOGNAME", "SUDO_USER", "USERNAME"):
        add("user name", environment.get(variable))
    try:
        add("user name", getpass.getuser())
        add("home path", str(Path.home()))
    except (OSError, KeyError, RuntimeError):
        pass  # a user id without an entry in the password file has no name to hide
    add("home path", environment.get("HOME"))
    for at, name in enumerate(tree.glob("/sys/class/drm/card*/device/unique_id")):
        number = tree.text(name) or ""
        add(f"gpu number {at}", number)
        if re.fullmatch(r"[0-9a-fA-F]+", number):
            add(f"gpu number {at}", str(int(number, 16)))
    return secrets


class Scrubber:
    """Replaces secrets by labels; equal UUIDs get equal labels, so that duplicates stay visible.

    Args:
        secrets: value -> label, as :func:`find_secrets` returns them.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._labels = {value.lower(): label for value, label in secrets.items()}
        longest_first = sorted(self._labels, key=len, reverse=True)
        self._known = re.compile("|".join(map(_pattern, longest_first)), re.IGNORECASE) if secrets else None
        self._numbered: dict[str, str] = {}

    def scrub(self, text: str) -> str:
        """Return ``text`` without secrets."""
        if self._known:
            text = self._known.sub(lambda match: self._labels[match[0].lower()], text)
        text = _SERIAL_LINE.sub(r"\1<serial>", text)
        for pattern in (_UUID, _AMD_UUID, _LONG_HEX):
            text = pattern.sub(lambda match: self._number(match[0].lower()), text)
        return text

    def _number(self, value: str) -> str:
        if not value.strip("0-_"):
            return value  # an all-zero UUID identifies nothing, and is what a report may be about
        return self._numbered.setdefault(value, f"<uuid {len(self._numbered) + 1}>")


def _pattern(value: str) -> str:
    """A short name is only meant where it stands alone: the host ``vm`` is not in ``vmx``."""
    escaped = re.escape(value)
    return escaped if len(value) > 8 else rf"(?<![0-9a-z]){escaped}(?![0-9a-z])"
