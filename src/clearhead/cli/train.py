"""clearhead train. Train what a recipe describes; stop it whenever you like, and go on.

Progress is on stderr: one line that changes on a terminal, a line every ten seconds elsewhere. What was trained is
written to RUN/model; its path is the only line on stdout.
"""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from clearhead.api.training import Event, Run
    from clearhead.train.evaluate import Score


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="a TOML recipe; leave it out with --resume", show_default=False)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="changes to it, such as loop.steps=500", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="the run's folder; runs/NAME by itself")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="go on with the run in this folder")] = None,
) -> None:
    """Train a model, new or from a checkpoint, as RECIPE says.

    Several processes: torchrun --nproc-per-node=2 -m clearhead train RECIPE …
    """
    changes = list(changes or [])
    if resume is not None and recipe is not None and "=" in str(recipe):
        changes, recipe = [str(recipe), *changes], None
    if (recipe is None) == (resume is None):
        raise InputError("give a recipe to begin, or --resume RUN to go on; not both.")
    if resume is not None and out is not None:
        raise InputError("--resume goes on in the run's own folder; leave --out out.")

    from clearhead.api.training import Run, read_recipe
    from clearhead.train.distributed import processes

    if resume is not None:
        told, folder = read_recipe(resume / "run.json", changes), resume
    else:
        assert recipe is not None
        told, folder = read_recipe(recipe, changes), out if out is not None else Path("runs") / recipe.stem
    with processes(told.processes) as together:
        run = Run(told, folder, together, resume=resume is not None, say=_say)
        line = Line(run)
        with _asked_to_stop() as stop:
            for event in run.go():
                line.show(event)
                if stop and run.done < told.loop.steps:
                    saved = event.saved or run.save()
                    line.end()
                    _say(f"stopped after step {run.done} and saved {saved}; go on with:")
                    _say(f"  clearhead train --resume {shlex.quote(str(folder))}")
                    raise KeyboardInterrupt
        line.end()
        scores = _scores(run)
        model = run.finish()
    if together.first:
        for score in scores:
            _say(str(score))
        from clearhead.train.journal import curves, read, sketch

        _say(sketch(curves(read(folder)).get("training", [])))
        _say(f"the curve: {folder / 'curve.png'}; what happened: {folder / 'metrics.jsonl'}")
        print(model if model is not None else folder)


def _scores(run: Run) -> list[Score]:
    """The task's own measures, where they can be taken here."""
    from clearhead.api.scoring import scores

    if run.processes.how == "fsdp" or not run.processes.first:
        return []
    try:
        return scores(run)
    except MissingDependencyError as error:
        _say(str(error))
        return []


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that Ctrl-C, or a polite kill, puts its signal into; a second one stops at once."""
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        _say("\nstopping after this step, and saving; again to stop at once")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Line:
    """Where the run is: `step 120/2000  loss 2.310  held out 2.402  16,230 tokens/s  31% of peak  0:42 left`."""

    def __init__(self, run: Run) -> None:
        self._run, self._terminal = run, sys.stderr.isatty()
        self._begin = self._shown = time.monotonic()
        self._first = run.done
        self._loss: float | None = None
        self._validation: float | None = None

    def show(self, event: Event) -> None:
        """Tell of a step."""
        if not self._run.processes.first:
            return
        step = event.step
        self._loss = step.loss if self._loss is None else 0.95 * self._loss + 0.05 * step.loss
        if step.spike:
            self._say_above(step.spike)
        for text in event.samples:
            self._say_above(f"  │ {text!r}")
        if event.validation is not None:
            self._validation = event.validation
        now = time.monotonic()
        if now - self._shown < (0.1 if self._terminal else 10.0) and event.validation is None:
            return
        self._shown = now
        self._write(self._text(event, now), stays=event.validation is not None or not self._terminal)

    def _text(self, event: Event, now: float) -> str:
        steps, done = self._run.recipe.loop.steps, self._run.done
        left = (now - self._begin) / max(1, done - self._first) * (steps - done)
        parts = [f"step {done:,}/{steps:,}", f"loss {self._loss:.3f}"]
        if self._validation is not None:
            parts.append(f"held out {self._validation:.3f}")
        parts.append(f"{event.step.n_tokens / event.step.seconds:,.0f} tokens/s")
        if event.mfu is not None:
            parts.append(f"{event.mfu:.0%} of peak")
        parts.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        return "  ".join(parts)

    def _write(self, text: str, *, stays: bool) -> None:
        clear = "\r\x1b[K" if self._terminal else ""
        print(f"{clear}{text}", end="\n" if stays else "", file=sys.stderr, flush=True)

    def _say_above(self, text: str) -> None:
        self._write(text, stays=True)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._run.processes.first:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
