"""Opening connections: every way that can fail has a name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from profiler.load.connection import Connection, Owner
from profiler.load.endpoint import Endpoint
from profiler.load.sockets import SocketSet

FAILURES = ("refused", "unreachable", "tls", "connect_timeout")


class Connector:
    """Opens connections of one owner.

    Args:
        owner: who is told what happens on them.
        endpoints: where they lead.
        ca_file: certificates to trust instead of the system's.
        timeout_s: time to connect, TLS included.
    """

    def __init__(
        self, owner: Owner, endpoints: Sequence[Endpoint], ca_file: str | None, timeout_s: float
    ) -> None:
        self._owner = owner
        self._endpoints = endpoints
        self._tls = [endpoint.tls(ca_file) for endpoint in endpoints]
        self._timeout_s = timeout_s
        self._sockets = SocketSet(lambda: owner.streams)

    async def open(self, endpoint: int) -> Connection | tuple[str, str]:
        """Return an open connection, or the name of the failure and what is behind it."""
        url, tls = self._endpoints[endpoint], self._tls[endpoint]
        loop = asyncio.get_running_loop()

        def made() -> Connection:
            return Connection(self._owner, endpoint)

        try:
            async with asyncio.timeout(self._timeout_s):
                if tls is None:
                    return await self._sockets.connect(url.host, url.port, made)
                _, connection = await loop.create_connection(made, url.host, url.port, ssl=tls)
                return connection
        except TimeoutError:
            return "connect_timeout", f"no connection within {self._timeout_s:g} s"
        except ConnectionRefusedError:
            return "refused", "nothing listens there"
        except ssl.SSLError as error:
            return "tls", error.reason or "the certificate or the protocol was not accepted"
        except OSError as error:
            return "unreachable", error.strerror or type(error).__name__

    @property
    def kernel_stamped(self) -> float | None:
        """Share of the receipts over plain connections so far that the kernel has stamped, or None."""
        sockets = self._sockets
        return 1 - sockets.stamped_here / sockets.receipts if sockets.receipts else None

    def close(self) -> None:
        """Close all plain connections."""
        self._sockets.close()
