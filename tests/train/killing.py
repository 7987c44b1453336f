"""Kill a process in the middle of its writing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path


def killed_while_writing(write: Callable[[Path, int, Connection], None], run: Path, first: int, seconds: float) -> int:
    """Start it, kill it so many seconds after it has begun to write, and return the last step it said it had saved."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.train.writer"])
    ours, its = processes.Pipe(duplex=False)
    process = processes.Process(target=write, args=(run, first, its), daemon=True)
    process.start()
    its.close()
    promised: int = ours.recv()  # it has begun to write
    process.join(seconds)
    process.kill()
    process.join()
    with suppress(EOFError):
        while True:
            promised = ours.recv()
    return promised
