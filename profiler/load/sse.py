"""Server-sent events (WHATWG HTML, section 9.2) out of stamped pieces of content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Place:
    """Where the reader of events stands.

    Attributes:
        between: the piece that was taken last was one whole event, and nothing of it is left.
    """

    between = False


def events(
    pieces: Iterable[tuple[int, bytes]], place: Place | None = None
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield ``(stamp_ns, data, type)`` for each event; comments and fields without data are left out.

    Lines may end with LF, CRLF or CR and may be split anywhere, also within a character. An event is
    stamped with the receipt of the last line of its data. A rest without an end of line, and data
    that no empty line closes at the end of the stream, are yielded too: some servers close at once.

    Args:
        pieces: what came, with its stamps.
        place: kept up to date, for who takes further pieces past this reader.
    """
    place = place or Place()
    rest: list[bytes] = []
    data: list[bytes] = []
    kind = b""
    stamp = last = 0
    after_cr = False
    for piece_stamp, piece in pieces:
        if not rest and not data and not after_cr and piece.startswith(b"data: ") and piece.endswith(b"\n\n"):
            whole = piece[6:-2]
            if b"\n" not in whole and b"\r" not in whole:  # what nearly every piece is
                place.between = True
                yield piece_stamp, whole, kind
                kind = b""
                continue
        place.between = False
        if after_cr and piece.startswith(b"\n"):
            piece, after_cr = piece[1:], False
        if not piece:
            continue
        last = piece_stamp
        after_cr = piece.endswith(b"\r")
        rest.append(piece)
        if b"\n" not in piece and b"\r" not in piece:
            continue  # joined only when a line ends, or a long line in small pieces would take for ever
        lines = b"".join(rest).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest = [lines[-1]] if lines[-1] else []
        lines.pop()
        for line in lines:
            if not line:
                if data:
                    yield stamp, b"\n".join(data), kind
                data, kind = [], b""
                continue
            name, value = _field(line)
            if name == b"data":
                data.append(value)
                stamp = piece_stamp
            elif name == b"event":
                kind = value
    if rest:
        name, value = _field(b"".join(rest))
        if name == b"data":
            data.append(value)
            stamp = last
    if data:
        yield stamp, b"\n".join(data), kind


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
    return name, value.removeprefix(b" ")
