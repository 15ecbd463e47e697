"""A known-truth server in a thread, and the command line, for tests of served cases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from truth_server import TruthServer

from profiler.__main__ import main


@contextmanager
def truth_server(**times: Any) -> Iterator[str]:
    """Yield the URL of a server in a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = TruthServer(**times)
    asyncio.run_coroutine_threadsafe(made.start(), loop).result(60)
    try:
        yield f"http://127.0.0.1:{made.port}"
    finally:
        asyncio.run_coroutine_threadsafe(made.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def aiprof(*arguments: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code
