"""A process that writes checkpoint after checkpoint until it is killed, and says of each that it stands."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import torch

from clearhead.train import sharded, state
from clearhead.train.distributed import Processes


def write(run: Path, first: int, said: Connection) -> None:
    big = {"w": torch.zeros(50_000)}
    for step in range(first, first + 10_000):
        big["w"][:] = step
        state.save(
            run, state.State(step=step, tokens=step, model=big, optimiser=big, random=[state.random_state()], data=[{}])
        )
        said.send(step)


def write_sharded(run: Path, first: int, said: Connection) -> None:
    """The same, in a thread of DCP's."""
    big = {"w": torch.zeros(50_000)}
    for step in range(first, first + 10_000):
        big["w"][:] = step
        moment = state.State(step=step, tokens=step, model=big, optimiser=big, random=[state.random_state()], data=[{}])
        sharded.begin(run, moment, Processes("alone")).wait()
        said.send(step)
