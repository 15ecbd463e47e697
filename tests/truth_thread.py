"""A server of known truth in a thread, for commands that have a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator

from truth_server import TruthServer


@contextlib.contextmanager
def serving(
    ttft_ms: float = 5, gap_ms: float = 1, tls: ssl.SSLContext | None = None
) -> Iterator[TruthServer]:
    """Run a server until the end of the context; its ``port`` is known at once."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = TruthServer(ttft_ms=ttft_ms, gap_ms=gap_ms)
    try:
        asyncio.run_coroutine_threadsafe(made.start(tls=tls), loop).result(60)
        yield made
        asyncio.run_coroutine_threadsafe(made.stop(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
