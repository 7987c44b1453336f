"""A training run: a recipe in, a trained model in a folder out; stopped, killed or resumed at any instant.

RUN/run.json           the whole recipe, versions, data fingerprint, commit: what it takes to do it again; and changes
RUN/tokenizer/         the tokenizer
RUN/metrics.jsonl      what happened, a line a step
RUN/curve.png          the loss
RUN/step-…/            the newest checkpoints
RUN/model/             the trained model, as Hugging Face lays it out
"""

from __future__ import annotations

import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from clearhead import __version__
from clearhead.api import fitting, resuming, samples
from clearhead.api.building import Built, built
from clearhead.api.feeding import batches
from clearhead.api.recipe import NewTokenizer, Recipe
from clearhead.checkpoint.pretrained import export
from clearhead.errors import MissingDependencyError, TrainingError
from clearhead.text.tokenizer import Tokenizer
from clearhead.train import curve, memory, state, trackers
from clearhead.train import recipe as recipes
from clearhead.train.adapters import adapt, merge
from clearhead.train.distributed import Processes, job
from clearhead.train.flops import Cost, cost_of
from clearhead.train.journal import Journal
from clearhead.train.loop import Step, Trainer
from clearhead.train.precision import Chosen, Peak, choose, peak_of
from clearhead.train.spikes import LOST


@dataclass(frozen=True)
class Event:
    """What is told while a run goes on. step: the one that was taken; validation: the loss on the rows held out."""

    step: Step
    validation: float | None = None
    samples: tuple[str, ...] = ()
    saved: Path | None = None
    mfu: float | None = None
    """The share of the device's peak that the step's floating-point operations came to."""


class Run:
    """A run in its folder. `go()` trains and tells of each step; `finish()` writes the model.

    processes: who trains it; one alone unless given, on a GPU where there is one. say: is given the lines that a person
    should see once: which precision, on what device, how many parameters, what was passed over.
    Raises TrainingError for a folder that holds another run, and whatever the recipe's parts raise.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        processes: Processes | None = None,
        *,
        resume: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.recipe, self.folder = recipe, folder
        self.processes = processes if processes is not None else Processes("alone")
        self._say = say if self.processes.first else lambda _: None
        self.journal: Journal | None = None
        fitting.check_folder(folder)
        self._newest, self.changes = resuming.going_on(folder, recipe, self.processes, resume=resume, say=self._say)
        fitting.check(recipe)
        trackers.check(recipe.tracker)
        if self.processes.device.type == "cpu":
            memory.keep_freed()
        torch.manual_seed(recipe.loop.seed)
        self.built: Built = self._build()
        fitting.check_built(recipe, self.built)
        self.adapted = adapt(self.built.model, recipe.adapters)
        if self.processes.how != "fsdp":  # which brings each block to its device when it has been divided up
            self.built.model.to(self.processes.device)
        self.batches = batches(recipe, self.built, self.processes)
        self.trainer = Trainer(
            self.built.model, self.batches.feed, recipe.loop, precision=self._precision(), processes=self.processes
        )
        if self._newest is not None:
            self.trainer.resume(self._newest)
        self._tell_beginning()

    def _build(self) -> Built:
        """The model and its tokenizer: the run's own where it goes on, and else as the recipe says."""
        known, choice = self.folder / "tokenizer", self.recipe.tokenizer
        if self._newest is not None and known.exists():
            return built(self.recipe, Tokenizer.load(known))
        if not isinstance(choice, NewTokenizer) or choice.learn == "byte":
            return built(self.recipe)
        began = time.perf_counter()
        most = "" if choice.vocab_size is None else f" of {choice.vocab_size:,} tokens"
        self._say(f"learning a {choice.learn} tokenizer{most} from the data")
        made = built(self.recipe)
        self._say(f"learned {made.tokenizer.vocab_size:,} tokens in {time.perf_counter() - began:.1f} s")
        return made

    def _precision(self) -> Chosen:
        """The precision of the products, the same in every process, and in a run that goes on on a device like before:
        what was quicker is measured once."""
        device, chosen = self.processes.device, None
        if self.processes.first:
            told = resuming.record(self.folder) if self._newest is not None else {}
            alike = str(told.get("device")).split(":")[0] == device.type
            if self.recipe.loop.precision == "auto" and alike and told.get("precision") in ("float32", "bfloat16"):
                chosen = Chosen(getattr(torch, told["precision"]), "as the run began")
            else:
                chosen = choose(self.recipe.loop.precision, device)
        agreed = self.processes.agreed(chosen)
        assert agreed is not None
        return agreed

    def _begin(self) -> Journal | None:
        """Write down what is trained, and open the journal; after the first step, so that a run that cannot take one
        leaves nothing behind. The first process does."""
        if not self.processes.first:
            return None
        told, done = self.told(), 0 if self._newest is None else resuming.step_of(self._newest)
        if self._newest is None:
            resuming.write(self.folder, told)
            self.built.tokenizer.save(self.folder / "tokenizer")
        elif self.changes:
            resuming.write(self.folder, resuming.changed(self.folder, self.recipe, self.changes, done))
        return Journal(self.folder, done, self.recipe.tracker, told)

    @property
    def done(self) -> int:
        """Steps that were taken."""
        return self.trainer.done

    def told(self) -> dict[str, Any]:
        """What is written beside the run, so that it can be done again."""
        return {
            "recipe": recipes.told(resuming.settled(self.recipe)),
            "data": {"fingerprint": self.batches.fingerprint, "rows": self.batches.n_rows},
            "precision": self.trainer.precision.name,
            "processes": self.processes.size,
            "job": job(),
            "device": str(self.trainer.device),
            "versions": {"clearhead": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "commit": _commit(),
            "command": sys.argv,
        }

    def _tell_beginning(self) -> None:
        model, trainer = self.built.model, self.trainer
        self._say(f"{type(model).__name__} of {model.n_parameters():,} parameters; {self.adapted}")
        self._say(str(self.batches))
        precision = trainer.precision
        peak = self.peak
        self._say(
            f"on {trainer.device} in {precision.name}: {precision.why}; "
            f"its peak is taken as {peak.flops / 1e12:.3g} TFLOP/s: {peak.source}"
        )
        self._say(f"updates by {trainer.optimisers}")
        if self._newest is not None:
            self._say(f"going on from {self._newest.name}")
            began = resuming.record(self.folder).get("data", {}) if self.processes.first else {}
            if began.get("fingerprint", self.batches.fingerprint) != self.batches.fingerprint:
                self._say("the data is not what the run began with; from here on it is read as it is now")
        for key, (before, after) in self.changes.items():
            self._say(f"from here on {key} = {resuming.shown(after)}; it was {resuming.shown(before)}")

    @cached_property
    def peak(self) -> Peak:
        """What the device could do in a second."""
        return peak_of(self.trainer.device, self.trainer.precision.dtype)

    @cached_property
    def _cost(self) -> Cost | None:
        """What a token of a step costs; not known of recurrent models."""
        return cost_of(self.built.model)

    def _mfu(self, step: Step) -> float | None:
        """The share of the peak: what `flops.py` counts, a second; of texts of many lengths, at their mean."""
        if self._cost is None:
            return None
        length = step.n_tokens / max(1, step.n_texts)
        return self._cost.of(length) * step.n_tokens / step.seconds / (self.peak.flops * self.processes.size)

    # ── training ─────────────────────────────────────────────────────────────────────────────────────────────────

    def go(self) -> Iterator[Event]:
        """Take the steps that are left, evaluating, sampling and saving on the way as the recipe says.

        Whatever ends it, an exception too, the newest checkpoint stays; `save()` makes one of this moment.
        """
        with self.batches.flowing():
            try:
                yield from self._events()
            finally:
                self.trainer.settle()

    def _events(self) -> Iterator[Event]:
        loop, evaluation, asked = self.recipe.loop, self.recipe.evaluation, self.recipe.samples
        began, due = time.perf_counter(), False
        for step in self.trainer.steps():
            if self.journal is None:
                self.journal = self._begin()
            last = self.done == loop.steps
            validation = saved = None
            written: tuple[str, ...] = ()
            if self.batches.validation and (last or _due(evaluation.every, self.done)):
                validation = self.evaluate()
            if asked.prompts and (last or _due(asked.every, self.done)):
                written = self.samples()
            mfu = self._mfu(step)
            if self.journal is not None:
                self.journal.write(
                    step.step,
                    loss=round(step.loss, 6),
                    norm=round(step.norm, 6),
                    rate=step.rate,
                    tokens=self.trainer.n_tokens,
                    tokens_per_s=round(step.n_tokens / step.seconds, 1),
                    seconds=round(self.journal.seconds + time.perf_counter() - began, 3),
                    **({"mfu": round(mfu, 4)} if mfu is not None else {}),
                    **({"validation_loss": round(validation, 6)} if validation is not None else {}),
                    **({"spike": step.spike} if step.spike else {}),
                )
            lost = validation is not None and self.processes.agreed(not math.isfinite(validation))
            if last and lost:
                raise TrainingError(f"the loss of what was held out is {validation} after step {step.step}: {LOST}")
            due = due or _due(loop.save_every, self.done)
            if last or (due and self.trainer.sound and not lost):  # else once a step is sound again
                saved, due = self._save(), False
            yield Event(step, validation, written, saved, mfu)

    def evaluate(self) -> float:
        """The mean loss of the validation batches, in nats a label."""
        return self.trainer.evaluate(self.batches.validation)

    def samples(self) -> tuple[str, ...]:
        """What the model writes now, after each of the recipe's prompts, in the first process. Every one must ask."""
        model = self.trainer.whole()
        return () if model is None else tuple(samples.written(model, self.built, self.recipe.samples))

    def save(self) -> Path:
        """Write a checkpoint of this moment; it stands when this returns. Raises TrainingError where it cannot be
        written, or the run has diverged."""
        folder = self._save()
        self.trainer.settle()
        return folder

    def _save(self) -> Path:
        """The same, perhaps standing later. The journal goes first: whoever goes on from it has its lines, too."""
        if self.journal is not None:
            self.journal.sync()
        return self.trainer.save(self.folder)

    def gather(self) -> None:
        """When all is trained, and weights are divided up: give the first process all of them. Every one must ask."""
        self.trainer.gather()
        if self.processes.first:
            self.built.model = self.trainer.model  # type: ignore[assignment]
            if self.built.pretrained is not None:
                self.built.pretrained.model = self.trainer.model  # type: ignore[assignment]

    def finish(self) -> Path | None:
        """Draw the curve and write the model as a Hugging Face folder: RUN/model. None for what has no such layout.
        Raises TrainingError for weights that are not all numbers."""
        if self.journal is not None:
            self.journal.close()
        if self.processes.first and self.done:
            try:
                curve.draw(self.folder)
            except MissingDependencyError as error:
                self._say(str(error))
        self.gather()
        pretrained = self.built.pretrained
        if pretrained is None or not self.processes.first:
            return None
        merge(self.built.model)
        self.built.model.eval()
        if (name := state.not_finite(self.built.model.state_dict())) is not None:
            raise TrainingError(f"{self.folder / 'model'} is not written, for its {name} is not all numbers: {LOST}")
        made = export(pretrained, self.folder / "model", overwrite=True)
        if self.done:
            resuming.write(self.folder, {**resuming.record(self.folder), "exported": self.done})
        return made


def read_recipe(path: Path, changes: list[str]) -> Recipe:
    """The recipe of a TOML file, or of a run's run.json, with key=value changes."""
    if path.name == resuming.RECORD:
        tables = {key: value for key, value in resuming.record(path.parent)["recipe"].items() if key != "kind"}
    else:
        tables = recipes.read_toml(path)
    return recipes.filled(Recipe, recipes.with_changes(tables, changes))


def _due(every: int, done: int) -> bool:
    return bool(every) and done % every == 0


def _commit() -> str | None:
    """The commit of the checkout that runs, with a + where it has changes; None where there is none."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None
