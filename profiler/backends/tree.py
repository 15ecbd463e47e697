"""Reading ``/proc`` and ``/sys`` below a chosen root, so that tests can bring their own machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# Far above any real file here (/proc/PID/numa_maps of a large process, pci.ids); a tree that a stranger
# sent may hold anything.
MAX_BYTES: Final = 16 * 2**20
MAX_DIGITS: Final = 66  # of a number of 64 bits with its sign and its 0b, and 20 in decimal
# Linux is built for 8,192 CPUs at most; longer lists are nonsense and would fill the memory.
MAX_CPUS: Final = 2**16


class Tree:
    """A file system seen from ``root``; paths are written as on the real machine.

    Nothing here raises for a missing or denied file: such a file reads as None, and
    :meth:`why` says which of the two it was.

    Args:
        root: ``/`` on a real machine, a made-up tree in tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where ``name`` (``/sys/...``) really lies."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """Return the stripped content of a file, or None when it cannot be read."""
        try:
            return self._content(name).decode("utf-8", "replace").strip("\n\0 ")
        except OSError:
            return None

    def _content(self, name: str) -> bytes:
        with self.path(name).open("rb") as file:
            return file.read(MAX_BYTES)

    def integer(self, name: str) -> int | None:
        """Return the content of a file as an integer of 64 bits, or None when it is not one."""
        text = self.text(name)
        try:
            number = int(text, 0) if text and len(text) <= MAX_DIGITS else None
        except ValueError:
            return None
        return number if number is not None and abs(number) < 2**64 else None

    def exists(self, name: str) -> bool:
        """Return whether ``name`` exists, following symbolic links."""
        try:
            return self.path(name).exists()
        except OSError:
            return False

    def glob(self, pattern: str) -> list[str]:
        """Return the names that match ``pattern``, as on the real machine, numbers in order."""
        try:
            found = ["/" + str(path.relative_to(self.root)) for path in self.root.glob(pattern.lstrip("/"))]
        except OSError:
            return []
        return sorted(found, key=_natural)

    def why(self, name: str) -> str:
        """Return why :meth:`text` gave None for ``name``, or gave something that is no number."""
        try:
            self._content(name)
        except FileNotFoundError:
            return f"there is no {name}"
        except PermissionError:
            return f"{name} may not be read by this user"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
        return f"{name} holds no usable value"


def whole_number(text: str | None) -> int | None:
    """Return what an unsigned decimal number of 64 bits says, or None for any other text."""
    number = int(text) if text and re.fullmatch(r"[0-9]{1,20}", text) else None
    return number if number is not None and number < 2**64 else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``cpu2`` before ``cpu10``."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for character in name + "\0":
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, character))
    return parts


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the numbers of a kernel list such as ``0-3,8``; parts that make no sense are left out."""
    numbers: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        start, _, end = part.strip().partition("-")
        first, last = whole_number(start), whole_number(end or start)
        if first is not None and last is not None and last < MAX_CPUS:
            numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_cpu_list(numbers: Iterable[int]) -> str:
    """Return numbers in the kernel's notation, ``(0, 1, 2, 8)`` as ``0-2,8``."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_fields(text: str, separator: str = ":") -> dict[str, str]:
    """Return ``key : value`` lines as a dict; the first of equal keys wins."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(separator)
        if found:
            fields.setdefault(key.strip(), value.strip())
    return fields
