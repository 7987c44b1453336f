"""clearhead train. Train what a recipe describes; stop it whenever you like, and go on.

Progress is on stderr: one line that changes on a terminal, a line every ten seconds elsewhere. What was trained is
written to RUN/model; its path is the only line on stdout. Of several processes the first one speaks.
"""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.progress import Line, spell
from clearhead.errors import ClearheadError, InputError, MissingDependencyError, TrainingError

if TYPE_CHECKING:
    from clearhead.api.recipe import Recipe
    from clearhead.api.training import Run
    from clearhead.train.distributed import Processes
    from clearhead.train.evaluate import Score


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="a TOML recipe; leave it out with --resume", show_default=False)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="changes to it, such as loop.steps=500", show_default=False),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="RUN", help="the run's folder; runs/NAME by itself")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="go on with the run in this folder")] = None,
) -> None:
    """Train a model, new or from a checkpoint, as RECIPE says.

    Paths in a recipe begin at the current folder. --resume RUN goes on where RUN was stopped, or further:
    --resume RUN loop.steps=5000. Several processes: torchrun --nproc-per-node=2 -m clearhead train RECIPE …
    """
    changes = list(changes or [])
    if resume is not None and recipe is not None and "=" in recipe:
        changes, recipe = [recipe, *changes], None
    if (recipe is None) == (resume is None):
        raise InputError("give a recipe to begin, or --resume RUN to go on; not both.")
    if resume is not None and out is not None:
        raise InputError("--resume goes on in the run's own folder; leave --out out.")
    for option, value in (("--out", out), ("--resume", resume)):
        if value is not None and not value.strip():
            raise InputError(f"{option} is empty; name the run's folder.")
    with _told_once():
        if resume is not None:
            _go_on(Path(resume), changes)
        else:
            from clearhead.api.training import read_recipe

            assert recipe is not None
            folder = Path(out) if out is not None else Path("runs") / Path(recipe).stem
            carry_out(read_recipe(Path(recipe), changes), folder)


def _go_on(folder: Path, changes: list[str]) -> None:
    """Train the steps that are left of a run; say so where there are none."""
    from clearhead.api import resuming
    from clearhead.api.training import read_recipe

    told = read_recipe(folder / resuming.RECORD, changes)
    written = resuming.finished(folder, told)
    if written is None:
        carry_out(told, folder, resume=True)
    elif _speaks():
        further = f"clearhead train --resume {shlex.quote(str(folder))} loop.steps={2 * told.loop.steps}"
        _say(f"{folder} is finished: all of its {told.loop.steps:,} steps are taken. To go further:\n  {further}")
        print(written)


def carry_out(told: Recipe, folder: Path, *, resume: bool = False, recipe: str | None = None) -> None:
    """Train what a recipe says, in a folder, with a line of progress; what `clearhead finetune` does, too. recipe: as
    it was written, to be kept beside the run."""
    from clearhead.api.training import Run
    from clearhead.train.distributed import processes

    with _told_once(), processes(told.processes) as together:
        say = _say if together.first else lambda _: None
        try:
            run = Run(told, folder, together, resume=resume, say=say)
        except KeyboardInterrupt:
            atexit.register(_deaf)
            say(f"\nstopped before the first step; {folder} is as it was")
            raise
        began = time.monotonic()
        _take_steps(run, say, recipe)
        run.gather()
        say(f"trained to step {run.done:,} in {spell(time.monotonic() - began)}")
        scores = _scores(run, say)
        model = run.finish()
        if together.first:
            _tell_end(run, scores, model)


def _take_steps(run: Run, say: Callable[[str], None], recipe: str | None) -> None:
    """Take the steps that are left. Asked to stop, save, say how to go on, and raise KeyboardInterrupt."""
    line = Line(run)
    with _asked_to_stop(run.processes.first) as stop, _named(run.processes):
        for event in run.go():
            if recipe is not None and run.processes.first:
                (run.folder / "recipe.toml").write_text(recipe, "utf-8")
                recipe = None
            line.show(event)
            if stop:
                run.trainer.ask_to_stop()
            if run.trainer.stopping and run.done < run.recipe.loop.steps:
                saved = event.saved or run.save()
                run.trainer.settle()
                line.end()
                say(f"stopped after step {run.done:,} and saved {saved}; go on with:")
                say(f"  clearhead train --resume {shlex.quote(str(run.folder))}")
                raise KeyboardInterrupt
    line.end()


def _scores(run: Run, say: Callable[[str], None]) -> list[Score]:
    """The task's own measures, where there is something to take them of, and they can be taken here."""
    from clearhead.api.scoring import scores

    if not run.processes.first or not run.batches.validation:
        return []
    say("measuring on the rows held out")
    try:
        return scores(run)
    except (MissingDependencyError, TrainingError) as error:  # the model is trained, and is written in any case
        _say(str(error))
        return []


def _tell_end(run: Run, scores: list[Score], model: Path | None) -> None:
    from clearhead.train.curve import curves, sketch
    from clearhead.train.journal import read

    for score in scores:
        _say(str(score))
    _say(sketch(curves(read(run.folder))))
    _say(f"the curve: {run.folder / 'curve.png'}; what happened: {run.folder / 'metrics.jsonl'}")
    print(model if model is not None else run.folder)


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────


def _speaks() -> bool:
    """Whether this is the only process, or the first one that torchrun has started on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def _told_once() -> Iterator[None]:
    """What cannot be begun is refused by all processes alike: one of a machine says it."""
    try:
        yield
    except ClearheadError as error:
        if _speaks() or getattr(error, "told_by_all", False):
            raise
        raise typer.Exit(2) from None


@contextmanager
def _named(together: Processes) -> Iterator[None]:
    """What goes wrong while training may be one process's alone: it says which it is."""
    try:
        yield
    except ClearheadError as error:
        if together.first:
            raise
        own = ClearheadError(f"process {together.rank}: {error}")
        own.told_by_all = True  # type: ignore[attr-defined]
        raise own from None


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _deaf() -> None:
    """Python takes a second to end, and what is interrupted there, torch's own last words, ends in a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _asked_to_stop(speaks: bool) -> Iterator[list[int]]:
    """A list that Ctrl-C, or a polite kill, puts its signal into; a second one stops at once."""
    from clearhead.train.distributed import job

    asked: list[int] = []
    last = 0.0

    def note(number: int, _: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if asked and job() is not None and last - before < 2:
            return  # the same one again: from the terminal, and passed on by torchrun
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if speaks:
            with suppress(OSError, ValueError):  # not by print, which this may have interrupted
                os.write(sys.stderr.fileno(), b"\nstopping after this step, and saving; again to stop at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        if asked:
            atexit.register(_deaf)
        for number, handler in before.items():
            signal.signal(number, handler)
