"""Spikes. A step whose loss is no number, or whose gradient is far above the usual: said, and left out or stopped on.

What is usual is the median norm of the last 100 steps. One bad row is a chance; so many steps in a row without a number
are a model that is lost, and what is left of it is not saved.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import TrainingError
from clearhead.train.batch import Batch

OnSpike = Literal["skip", "keep", "stop"]
IN_A_ROW = 20
"""Steps without a number as their loss: one is a bad row, so many are a model that is lost; or data without labels."""
LOST = (
    "the run has diverged. Go on from its last checkpoint, or the one before, at a lower loop.optimiser.rate; or begin "
    "again at one."
)


class Spikes:
    """What is usual in a run. on_spike: what becomes of a step that is not; at_most: times the usual norm."""

    def __init__(self, on_spike: OnSpike, at_most: float) -> None:
        self.on_spike, self.at_most = on_spike, at_most
        self.norms: deque[float] = deque(maxlen=100)
        self.unsound = 0
        """The last so many steps had no number as their loss or their gradient's norm."""

    def judge(self, step: int, loss: float, norm: float, parts: Sequence[Batch]) -> tuple[str | None, bool]:
        """Whether the step is odd, said in words, and whether its update may be made. Raises TrainingError where it is
        to stop the run."""
        sound = math.isfinite(loss) and math.isfinite(norm)
        self.unsound = 0 if sound else self.unsound + 1
        usual = sorted(self.norms)[len(self.norms) // 2] if len(self.norms) >= 20 else math.inf
        if sound and norm <= self.at_most * usual:
            return None, True
        what = f"its gradient's norm is {norm:.3g}, usually {usual:.3g}" if sound else f"its loss is {loss}"
        if not sound and math.isfinite(loss):
            what = f"its gradient's norm is {norm}"
        told = f"step {step}{rows_of(parts)}: {what}"
        if self.on_spike == "stop" or (not sound and self.on_spike == "keep"):
            raise TrainingError(f"{told}; look at these rows, or choose a lower rate or on_spike = 'skip'.")
        if self.on_spike == "keep":
            return told, True
        if self.unsound >= IN_A_ROW:
            raise TrainingError(f"{told}, and so it was in the {self.unsound - 1} steps before: {LOST}")
        return f"{told}; the update is left out", False

    def took(self, norm: float) -> None:
        """A step was taken, or left out: where all gradients are large from here on, that is what is usual."""
        if math.isfinite(norm):
            self.norms.append(norm)

    def state(self) -> Float[Tensor, " n"]:
        """The norms, as a checkpoint has them."""
        return torch.tensor(list(self.norms), dtype=torch.float64)

    def load_state(self, norms: Float[Tensor, " n"]) -> None:
        """Go on from there."""
        self.norms = deque(norms.tolist(), maxlen=100)


def rows_of(parts: Sequence[Batch]) -> str:
    """Which rows a step reads, for what is said of it."""
    rows = [row for part in parts for row in part.rows]
    return f" (rows {', '.join(map(str, rows[:8]))}{' …' if len(rows) > 8 else ''})" if rows else ""
