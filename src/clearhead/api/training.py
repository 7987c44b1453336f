"""A training run: a recipe in, a trained model in a folder out; stopped, killed or resumed at any instant.

RUN/run.json           the whole recipe, versions, data fingerprint, commit: what it takes to do it again
RUN/tokenizer/         the tokenizer
RUN/metrics.jsonl      what happened, a line a step
RUN/curve.png          the loss
RUN/step-…/            the newest checkpoints
RUN/model/             the trained model, as Hugging Face lays it out
"""

from __future__ import annotations

import json
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
from clearhead.api.building import Built, batches, built
from clearhead.api.recipe import Recipe
from clearhead.checkpoint.pretrained import export
from clearhead.errors import ClearheadError, MissingDependencyError, TrainingError
from clearhead.generate import generate_ids
from clearhead.model.recurrent import RecurrentLanguageModel
from clearhead.model.transformer import EncoderDecoder
from clearhead.text.tokenizer import Tokenizer
from clearhead.train import journal, state
from clearhead.train import recipe as recipes
from clearhead.train.adapters import adapt, merge
from clearhead.train.batch import Batch
from clearhead.train.distributed import Processes
from clearhead.train.journal import Journal
from clearhead.train.loop import Step, Trainer
from clearhead.train.optimiser import parts_of
from clearhead.train.precision import Peak, flops_per_token, peak_of


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

    say: is given the lines that a person should see once: which precision, how many parameters, what was passed over.
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
        if not resume and state.checkpoints(folder):
            raise TrainingError(f"{folder} holds a run already; go on with --resume, or name another folder.")
        torch.manual_seed(recipe.loop.seed)
        known = folder / "tokenizer"
        self.built: Built = built(recipe, Tokenizer.load(known) if resume and known.exists() else None)
        self.adapted = adapt(self.built.model, recipe.adapters)
        self.built.model.to(self.processes.device)
        self.batches = batches(recipe, self.built, self.processes)
        self.trainer = Trainer(self.built.model, self.batches.feed, recipe.loop, processes=self.processes)
        newest = state.newest(folder, self._say) if resume else None
        if newest is not None:
            self.trainer.resume(newest)
        self._tell_beginning(newest)
        self.journal = Journal(folder, self.trainer.done) if self.processes.first else None
        if self.processes.first and newest is None:
            self.built.tokenizer.save(known)
            (folder / "run.json").write_text(json.dumps(self.told(), indent=1, default=str) + "\n", "utf-8")

    @property
    def done(self) -> int:
        """Steps that were taken."""
        return self.trainer.done

    def told(self) -> dict[str, Any]:
        """What is written beside the run, so that it can be done again."""
        return {
            "recipe": recipes.told(self.recipe),
            "data": {"fingerprint": self.batches.fingerprint, "rows": self.batches.n_rows},
            "precision": self.trainer.precision.name,
            "processes": self.processes.size,
            "device": str(self.trainer.device),
            "versions": {"clearhead": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "commit": _commit(),
            "command": sys.argv,
        }

    def _tell_beginning(self, resumed: Path | None) -> None:
        model, trainer = self.built.model, self.trainer
        self._say(f"{type(model).__name__} of {model.n_parameters():,} parameters; {self.adapted}")
        self._say(f"{self.batches.n_rows:,} rows to learn from, {len(self.batches.validation)} batches held out")
        precision = trainer.precision
        peak = self.peak
        self._say(
            f"on {trainer.device} in {precision.name}: {precision.why}; "
            f"its peak is taken as {peak.flops / 1e12:.3g} TFLOP/s: {peak.source}"
        )
        if resumed is not None:
            self._say(f"going on from {resumed.name}")

    @cached_property
    def peak(self) -> Peak:
        """What the device could do in a second."""
        return peak_of(self.trainer.device, self.trainer.precision.dtype)

    @cached_property
    def _flops(self) -> float | None:
        """What a token of a step costs; not known of recurrent models."""
        model = self.built.model
        if isinstance(model, RecurrentLanguageModel):
            return None
        parts, config = parts_of(model), model.config
        multiplied = sum(p.numel() for p in parts["matrices"].values()) + config.vocab_size * config.d_model
        layers = sum(stack.n_layers for stack in config.stacks)
        length = self.recipe.data.packing.length if hasattr(self.recipe.data.packing, "length") else 0
        return flops_per_token(multiplied, layers, config.d_model, length, causal=config.encoder is None)

    def _mfu(self, step: Step) -> float | None:
        if self._flops is None:
            return None
        return self._flops * step.n_tokens / step.seconds / (self.peak.flops * self.processes.size)

    # ── training ─────────────────────────────────────────────────────────────────────────────────────────────────

    def go(self) -> Iterator[Event]:
        """Take the steps that are left, evaluating, sampling and saving on the way as the recipe says.

        Whatever ends it, an exception too, the newest checkpoint stays; `save()` makes one of this moment.
        """
        loop, evaluation, samples = self.recipe.loop, self.recipe.evaluation, self.recipe.samples
        began = time.perf_counter()
        for step in self.trainer.steps():
            last = self.done == loop.steps
            validation = saved = None
            written: tuple[str, ...] = ()
            if self.batches.validation and (last or _due(evaluation.every, self.done)):
                validation = self.evaluate()
            if samples.prompts and (last or _due(samples.every, self.done)):
                written = self.samples()
            if last or _due(loop.save_every, self.done):
                saved = self.save()
            mfu = self._mfu(step)
            if self.journal is not None:
                self.journal.write(
                    step.step,
                    loss=round(step.loss, 6),
                    norm=round(step.norm, 6),
                    rate=step.rate,
                    tokens=self.trainer.n_tokens,
                    tokens_per_s=round(step.n_tokens / step.seconds, 1),
                    seconds=round(time.perf_counter() - began, 3),
                    **({"mfu": round(mfu, 4)} if mfu is not None else {}),
                    **({"validation_loss": round(validation, 6)} if validation is not None else {}),
                    **({"spike": step.spike} if step.spike else {}),
                )
            yield Event(step, validation, written, saved, mfu)

    def evaluate(self, on: list[Batch] | None = None) -> float:
        """The mean loss of the validation batches, in nats a label."""
        return self.trainer.evaluate(on if on is not None else self.batches.validation)

    def samples(self) -> tuple[str, ...]:
        """What the model writes now, after each of the recipe's prompts; nothing where its weights are divided up."""
        model, tokenizer, samples = self.built.model, self.built.tokenizer, self.recipe.samples
        if self.processes.how == "fsdp" or not self.processes.first:
            return ()
        written = []
        for prompt in samples.prompts:
            ids = torch.tensor([tokenizer.encode(prompt).ids], device=self.trainer.device)
            room = getattr(model.config, "context", 10**9) - (0 if isinstance(model, EncoderDecoder) else ids.shape[1])
            eos = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
            new = max(1, min(samples.max_new_tokens, room))
            start = self.built.vocabulary.start if isinstance(model, EncoderDecoder) else None
            try:
                found = generate_ids(model, ids, max_new_tokens=new, eos=eos, pad=0, decoder_start=start)
            except ClearheadError as error:
                written.append(f"({error})")
                continue
            written.append(tokenizer.decode(found[0].tolist()))
        return tuple(written)

    def save(self) -> Path:
        """Write a checkpoint of this moment."""
        return self.trainer.save(self.folder)

    def finish(self) -> Path | None:
        """Draw the curve and write the model as a Hugging Face folder: RUN/model. None for what has no such layout."""
        if self.journal is not None:
            try:
                journal.draw(self.folder)
            except MissingDependencyError as error:
                self._say(str(error))
        pretrained = self.built.pretrained
        if pretrained is None or not self.processes.first or self.processes.how == "fsdp":
            return None
        merge(self.built.model)
        self.built.model.eval()
        return export(pretrained, self.folder / "model", overwrite=True)


def read_recipe(path: Path, changes: list[str]) -> Recipe:
    """The recipe of a TOML file, or of a run's run.json, with key=value changes."""
    if path.suffix == ".json":
        try:
            tables = json.loads(path.read_text("utf-8"))["recipe"]
        except (OSError, ValueError, KeyError):
            raise TrainingError(f"{path} is not what a run wrote; give its folder, or a recipe.") from None
        tables = {key: value for key, value in tables.items() if key != "kind"}
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
