"""Where requests go: a URL taken apart, its identity without its name, and what the client may know of it."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from profiler.errors import UsageError

Reach = Literal["loopback", "private", "public"]
Api = Literal["completions", "chat"]

PATHS: dict[Api, str] = {"completions": "/completions", "chat": "/chat/completions"}


@dataclass(frozen=True)
class Endpoint:
    """A server's base URL.

    Attributes:
        scheme: ``http`` or ``https``.
        host: name or address, without brackets.
        port: TCP port.
        base: path up to and including ``/v1``.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    base: str

    @property
    def key(self) -> str:
        """Device key that stands for the server in a record: ``endpoint-`` and 12 hex digits.

        The digits are of the SHA-256 of scheme, host, port and path, so that runs of one server match and
        its name does not stand in the record. Whoever can guess the URL can check the guess.
        """
        text = f"{self.scheme}://{self.host}:{self.port}{self.base}"
        return f"endpoint-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def reach(self) -> Reach:
        """``loopback``, ``private`` (an address of a private network) or ``public`` (all else)."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return "loopback"
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return "public"
        return "loopback" if address.is_loopback else "private" if address.is_private else "public"

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == default else f"{host}:{self.port}"

    def tls(self, ca_file: str | None = None) -> ssl.SSLContext | None:
        """Return the context that verifies the server's certificate, or None for plain HTTP.

        Args:
            ca_file: certificates to trust instead of the system's.

        Raises:
            UsageError: ``ca_file`` cannot be used.
        """
        if self.scheme == "http":
            return None
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{ca_file}: no certificates can be read from it: {error}") from error
        context.set_alpn_protocols(["http/1.1"])
        return context


def parse_endpoint(text: str) -> Endpoint:
    """Take a URL apart; ``host:port`` alone means plain HTTP, and ``/v1`` is added where it is missing.

    Raises:
        UsageError: it is not a URL that can be used, with what is wrong.
    """
    given = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"'{_shown(text)}' is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"'{_shown(text)}': write http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "a URL with a name or password would show in process lists; set AIPROF_API_KEY instead"
        )
    if parts.query or parts.fragment:
        raise UsageError(f"'{_shown(text)}': leave out what follows ? or #; keys go into AIPROF_API_KEY")
    if not parts.hostname or not all("!" <= letter <= "~" for letter in parts.hostname + parts.path):
        raise UsageError(f"'{_shown(text)}' names no host; write http://HOST:PORT")
    base = parts.path.rstrip("/")
    for suffix in ("/chat/completions", "/completions"):
        base = base.removesuffix(suffix)
    if not base.rsplit("/", 1)[-1].startswith("v") or base == "":
        base += "/v1"
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Endpoint(scheme, parts.hostname, port or (443 if scheme == "https" else 80), base)


def _shown(text: str) -> str:
    """The URL without what may be a secret."""
    bare = text.split("?", 1)[0].split("#", 1)[0]
    return bare.rsplit("@", 1)[-1]
