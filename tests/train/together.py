"""What one of several processes runs: `torchrun … tests/train/together.py FOLDER HOW STEPS STOP [KIND [BY]]`. It stops
after STOP of the STEPS; KIND is of its checkpoints, whole or sharded; BY is who updates, adamw or muon. Another job may
follow after `and`: processes take long to start."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from clearhead.train import state
from clearhead.train.batch import Batch
from clearhead.train.data.order import share
from clearhead.train.distributed import Processes, processes
from clearhead.train.loop import Loop, Trainer
from clearhead.train.optimiser import AdamW, Muon
from clearhead.train.precision import Chosen
from clearhead.train.schedules import Constant
from clearhead.train.state import Sharded, Whole
from tests.train.support import Random, tiny


class Shared:
    """Each process's share of the rows of a step."""

    def __init__(self, together: Processes, parts: int) -> None:
        self.together, self.parts, self.whole = together, parts, Random(rows=12, ignored=0.3)

    def at(self, step: int) -> Sequence[Batch]:
        batch = self.whole.at(step)[0]
        rows = share(12, self.together.rank, self.together.size)
        size = len(rows) // self.parts
        return [
            Batch(inputs={"input_ids": batch.inputs["input_ids"][a : a + size]}, labels=batch.labels[a : a + size])
            for a in range(rows.start, rows.stop, size)
        ]

    def state(self) -> Mapping[str, Any]:
        return {}

    def load_state(self, told: Mapping[str, Any]) -> None:
        raise AssertionError("a step says it all")


def main(folder: Path, how: str, steps: int, stop: int, kind: str = "whole", by: str = "adamw") -> None:
    with processes(how) as together:  # type: ignore[arg-type]
        checkpoints = Sharded() if kind == "sharded" else Whole()
        optimiser = AdamW(rate=0.01) if by == "adamw" else Muon(rate=0.01)
        loop = Loop(steps=steps, schedule=Constant(), optimiser=optimiser, checkpoints=checkpoints)
        one = Trainer(tiny(), Shared(together, 2), loop, precision=Chosen(torch.float32, "a test"), processes=together)
        if (newest := state.newest(folder, processes=together)) is not None:
            one.resume(newest)
        for step in one.steps():
            if together.first:
                with (folder / "losses.jsonl").open("a") as file:
                    file.write(json.dumps([step.step, step.loss, step.norm, step.n_tokens]) + "\n")
            if one.done == stop - 1:
                one.save(folder)  # a sharded one is written while the next step changes the weights
            if one.done == stop:
                break
        one.save(folder)
        one.settle()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for between, words in groupby(sys.argv[1:], "and".__eq__):
        if not between:
            folder, how, steps, stop, *rest = words
            main(Path(folder), how, int(steps), int(stop), *rest)
