"""The line that a training run shows of itself: where it is, how it goes, how long it takes yet.

    step 120/2,000  loss 2.310  held out 2.402  16,230 tokens/s  31% of peak  0:42 left

On a terminal it changes ten times a second, elsewhere a new one is written every ten seconds; what was evaluated stays.
"""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearhead.api.training import Event, Run


class Line:
    """The line of one run; of several processes, the first one's."""

    def __init__(self, run: Run) -> None:
        self._run, self._terminal = run, sys.stderr.isatty()
        self._begin: float | None = None
        self._first = 0
        self._shown = time.monotonic()
        self._loss: float | None = None
        self._validation: float | None = None
        if self._terminal and run.processes.first:
            self._write(f"step {run.done:,}/{run.recipe.loop.steps:,}  the first step takes longest", stays=False)

    def show(self, event: Event) -> None:
        """Tell of a step."""
        if not self._run.processes.first:
            return
        now, step, done = time.monotonic(), event.step, self._run.done
        if self._begin is None:
            self._begin, self._first = now, done  # the first step makes ready what the others have
        if math.isfinite(step.loss):
            self._loss = step.loss if self._loss is None else 0.95 * self._loss + 0.05 * step.loss
        if step.spike:
            self._write(step.spike, stays=True)
        for text in event.samples:
            self._write(f"  │ {text!r}", stays=True)
        if event.validation is not None:
            self._validation = event.validation
        stays = event.validation is not None or done == self._run.recipe.loop.steps
        if now - self._shown < (0.1 if self._terminal else 10.0) and not stays:
            return
        self._shown = now
        self._write(self._text(event, now), stays=stays or not self._terminal)

    def _text(self, event: Event, now: float) -> str:
        steps, done = self._run.recipe.loop.steps, self._run.done
        parts = [f"step {done:,}/{steps:,}", "no loss yet" if self._loss is None else f"loss {self._loss:.3f}"]
        if self._validation is not None:
            parts.append(f"held out {self._validation:.3f}")
        parts.append(f"{event.step.n_tokens / event.step.seconds:,.0f} tokens/s")
        if event.mfu is not None:
            parts.append(f"{event.mfu:.0%} of peak")
        if self._begin is not None and self._first < done < steps:
            parts.append(f"{spell((now - self._begin) / (done - self._first) * (steps - done))} left")
        return "  ".join(parts)

    def _write(self, text: str, *, stays: bool) -> None:
        clear = "\r\x1b[K" if self._terminal else ""
        print(f"{clear}{text}", end="\n" if stays else "", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._run.processes.first:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def spell(seconds: float) -> str:
    """A time as clocks show it: 0:42, 12:05, 3:07:00, 2 d 3:07:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    day = f"{days} d " if days else ""
    return f"{day}{hour}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
