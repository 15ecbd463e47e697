"""HTTP/1.1 responses, from bytes as they come (RFC 9112): head, framing, and the content in pieces.

The client keeps raw pieces with their stamps while a stream runs and feeds them here later, so that
nothing but a stamp stands between two receipts.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
_MAX_SIZE_LINE = 1024


class MalformedError(Exception):
    """What came is not what the protocol says; the message says where."""


@dataclass(frozen=True)
class Head:
    """Status line and the headers that matter.

    Attributes:
        status: HTTP status.
        chunked: whether the content comes in chunks.
        length: ``Content-Length``, or None.
        keep_alive: whether the connection can be used again.
        content_type: media type in lower case, without parameters.
        end: bytes of the head.
    """

    status: int
    chunked: bool
    length: int | None
    keep_alive: bool
    content_type: str
    end: int


def parse_head(data: bytes) -> Head | None:
    """Return the head at the start of ``data``, or None while it is incomplete.

    Raises:
        MalformedError: it is not an HTTP/1.x response.
    """
    end = data.find(b"\r\n\r\n")
    if not b"HTTP/1.".startswith(data[:7]):
        raise MalformedError("the answer is not HTTP/1.1")
    if end < 0:
        if len(data) > MAX_HEAD_BYTES:
            raise MalformedError(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes")
        return None
    lines = data[:end].split(b"\r\n")
    parts = lines[0].split(b" ", 2)
    if len(parts) < 2 or not parts[1].isdigit() or len(parts[1]) != 3:
        raise MalformedError("the status line is not HTTP/1.1")
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise MalformedError("a header line has no colon")
        headers[name.strip().lower()] = value.strip()
    length: int | None = None
    chunked = headers.get(b"transfer-encoding", b"").lower().rpartition(b",")[2].strip() == b"chunked"
    if not chunked and (given := headers.get(b"content-length")) is not None:
        if not given.isdigit():
            raise MalformedError("Content-Length is not a number")
        length = int(given)
    connection = headers.get(b"connection", b"").lower()
    keep_alive = b"close" not in connection and (parts[0] != b"HTTP/1.0" or b"keep-alive" in connection)
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    return Head(int(parts[1]), chunked, length, keep_alive, kind, end + 4)


def split_head(data: bytes) -> tuple[Head | None, bytes]:
    """Return the final head at the start of ``data``, after any 1xx ones, and what follows it.

    Raises:
        MalformedError: it is not an HTTP/1.x response.
    """
    head = parse_head(data)
    while head is not None and 100 <= head.status < 200:
        data = data[head.end :]
        head = parse_head(data) if data else None
    return head, data[head.end :] if head is not None else b""


class Content:
    """Takes the framing off the content of one response.

    Feed the bytes that follow the head; :attr:`pieces` fills with ``(stamp_ns, content)``.

    Attributes:
        pieces: content with the stamp of the receipt that it came in.
        done: whether the content is complete.
        excess: bytes that follow the end of the response.
    """

    def __init__(self, head: Head) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.done = head.length == 0 or head.status in (204, 304)
        self.excess = b""
        self._chunked = head.chunked
        self._left = -1 if head.chunked else head.length or 0
        self._until_close = not head.chunked and head.length is None
        self._rest = b""
        self._trailers = False

    def whole_chunk(self, data: bytes) -> bytes | None:
        """Return the content of ``data`` where it is exactly one chunk, which nearly every receipt is.

        Otherwise, None: nothing is taken then, and :meth:`feed` has to.
        """
        if self._left != -1 or self._rest or self._trailers:
            return None
        head = size_line(len(data))
        return data[len(head) : -2] if head and data.startswith(head) and data.endswith(b"\r\n") else None

    def feed(self, stamp_ns: int, data: bytes) -> bool:
        """Take bytes and return whether the response is complete.

        Raises:
            MalformedError: the chunk framing is broken.
        """
        if self.done:
            self.excess += data
        elif self._chunked:
            self._feed_chunks(stamp_ns, data)
        elif self._until_close:
            self.pieces.append((stamp_ns, data))
        else:
            self.excess = data[self._left :]
            data = data[: self._left]
            self.pieces.append((stamp_ns, data))
            self._left -= len(data)
            self.done = self._left == 0
        return self.done

    def _feed_chunks(self, stamp_ns: int, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        while at < size:
            if self._left > 0:
                taken = data[at : at + self._left]
                self.pieces.append((stamp_ns, taken))
                self._left -= len(taken)
                at += len(taken)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > _MAX_SIZE_LINE:
                    raise MalformedError("a chunk has no size")
                self._rest = data[at:]
                return
            line, at = data[at:end], end + 2
            if self._left == 0 and not self._trailers:
                if line:
                    raise MalformedError("a chunk is longer than its size")
                self._left = -1
            elif self._trailers:
                if not line:
                    self.done, self.excess = True, data[at:]
                    return
            else:
                self._left = _size(line)
                if self._left == 0:
                    self._trailers = True


_HEADS: dict[int, bytes] = {}
"""For lengths of a whole chunk its size line, as nearly all servers write it; filled as they come."""


def size_line(length: int) -> bytes:
    """Return the size line of a chunk of ``length`` bytes in all; of some lengths there is none."""
    known = _HEADS.get(length)
    if known is not None:
        return known
    found = next(
        (
            b"%x\r\n" % size
            for size in range(max(1, length - 20), length - 4)
            if len(b"%x\r\n" % size) + size + 2 == length
        ),
        b"",
    )
    if len(_HEADS) < 10_000:
        _HEADS[length] = found
    return found


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    # int() alone would accept signs and underscores.
    if digits.isalnum() and len(digits) <= 15:
        try:
            return int(digits, 16)
        except ValueError:
            pass
    raise MalformedError("a chunk has no size")
