"""Bodies of requests, made ahead: making one takes longer than a request that is due should wait."""

from __future__ import annotations

from collections import deque
from typing import Final

from profiler.load.job import Job
from profiler.load.prompts import RequestBuilder

AHEAD_BYTES: Final = 32 * 2**20


class Bodies:
    """The bodies of a job's requests in the order they are sent.

    Args:
        job: what is sent.
        requests: makes bodies.
    """

    def __init__(self, job: Job, requests: RequestBuilder) -> None:
        self._job = job
        self._requests = requests
        self._ahead: deque[bytes] = deque()
        self._ahead_bytes = 0
        self._next_index = job.first

    def take(self, index: int, prompt_tokens: int, output_tokens: int) -> bytes:
        """Return the body of the next request, made now where none was made ahead."""
        if self._ahead:
            body = self._ahead.popleft()
            self._ahead_bytes -= len(body)
            return body
        self._next_index = index + self._job.step
        return self._requests.body(index, prompt_tokens, output_tokens)

    def fill(self, wanted: int) -> None:
        """Make bodies until ``wanted`` are ready, or as many as there is room or work for."""
        while self.make_one(wanted):
            pass

    def make_one(self, wanted: int) -> bool:
        """Make one body unless ``wanted`` are ready; return whether one was made."""
        job, index = self._job, self._next_index
        if len(self._ahead) >= wanted or self._ahead_bytes >= AHEAD_BYTES or index >= job.count:
            return False
        body = self._requests.body(index, *job.lengths(index))
        self._next_index += job.step
        self._ahead.append(body)
        self._ahead_bytes += len(body)
        return True
