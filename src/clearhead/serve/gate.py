"""A gate. Work runs in threads, a few at a time; a few more wait their turn; the next one is sent away at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from clearhead.serve.refusals import Refusal

T = TypeVar("T")

CLIENT_LEFT = 499
"""The status in our log for a request that nobody waits for any more (nginx's number)."""


class Gate:
    """`await gate.run(work)` runs `work()` in a thread. With `workers=1` it is a lock with a bounded queue."""

    def __init__(self, workers: int, waiting: int) -> None:
        self.room = workers + waiting
        self.inside = 0
        self._workers = anyio.CapacityLimiter(workers)
        self._threads = anyio.CapacityLimiter(workers)

    async def run(self, work: Callable[[], T], gone: Callable[[], Awaitable[bool]]) -> T:
        """The work's result. Refused with 429 where the queue is full, skipped where `gone()` when its turn comes."""
        if self.inside >= self.room:
            raise Refusal(429, f"{self.room} requests are at work or waiting already; try again in a moment.")
        self.inside += 1
        try:
            async with self._workers:
                if await gone():
                    raise Refusal(CLIENT_LEFT, "the client left before its turn came.")
                return await anyio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self.inside -= 1
