"""The loop. One step: read a batch, be surprised by it, follow the gradient, once.

`Trainer.steps()` takes the steps one by one and reports each, so whoever trains writes a plain `for` around it: to draw
a progress line, to evaluate, to save, to stop. What a step does depends on the step alone, the seed and the state; so a
run that is saved, killed and resumed goes on bit for bit (on a CPU) as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clearhead.errors import CheckpointError, ConfigError, TrainingError
from clearhead.model.block import Block
from clearhead.model.config.checks import brief
from clearhead.model.modes import without_dropout
from clearhead.train import state
from clearhead.train.batch import Batch
from clearhead.train.distributed import Processes, filled_in, outline
from clearhead.train.loss import total_loss
from clearhead.train.optimiser import AdamW, Muon, Optimisers, clip, usual
from clearhead.train.precision import Chosen, Precision, choose
from clearhead.train.schedules import Constant, Cosine, InverseSquareRoot, WarmupStableDecay, straight_down
from clearhead.train.spikes import IN_A_ROW, LOST, OnSpike, Spikes, rows_of
from clearhead.train.state import Sharded, Whole

if TYPE_CHECKING:
    from clearhead.train.sharded import Saving

MOST_STEPS = 10**12
"""More than anybody can take: rows are numbered in 64 bits, and a step reads many."""


@runtime_checkable
class Batches(Protocol):
    """Where the loop's batches come from."""

    def at(self, step: int) -> Sequence[Batch]:
        """The parts of this step, in order: their gradients are added up, and then one update is made."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What a stream needs to go on from here, as JSON; empty where a step says it all."""
        ...

    def load_state(self, told: Mapping[str, Any]) -> None:
        """Go on from there."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How to train. steps: how many updates. clip: the largest norm of the gradients, as one vector.

    optimiser: None takes Muon, and for a recipe that goes on from trained weights a gentle AdamW. smoothing: label
    smoothing. precision: of the products; weights stay float32. on_spike: what to do with a step whose loss or gradient
    is no number, or whose gradient's norm is `spike` times the median of the last 100: leave the update out (`skip`),
    make it nevertheless (`keep`: only where it is a number), or `stop`; the 20th in a row that is no number stops it
    anyhow. recompute: forget what a block computed and compute it again on the way back: less memory, a third more time
    (Chen et al. 2016). compile: through torch.compile. save_every: steps between checkpoints; keep: how many stay;
    checkpoints: who writes them.
    """

    steps: int
    optimiser: AdamW | Muon | None = None
    schedule: Constant | Cosine | WarmupStableDecay | InverseSquareRoot = field(default_factory=straight_down)
    clip: float | None = 1.0
    smoothing: float = 0.0
    precision: Precision = "auto"
    on_spike: OnSpike = "skip"
    spike: float = 20.0
    recompute: bool = False
    compile: bool = False
    save_every: int = 500
    keep: int = 2
    checkpoints: Whole | Sharded = field(default_factory=Whole)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "keep"):
            if not 1 <= getattr(self, name) <= MOST_STEPS:
                raise ConfigError(f"{name}={brief(getattr(self, name))} should be 1 or more (10^12 at most).")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={brief(self.seed)} should be 0 or more, and below 2^63.")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip={self.clip} should be above 0, or 'none' for no clipping.")
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"smoothing={self.smoothing} should be a share, 0 or more and below 1.")
        if not self.spike > 1:
            raise ConfigError(f"spike={self.spike} should be above 1: how often the usual norm is too much.")
        if self.on_spike not in ("skip", "keep", "stop"):
            raise ConfigError(f"on_spike={self.on_spike!r} is not a choice; choose 'skip', 'keep' or 'stop'.")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step did. step: its number, from 0. loss: mean over its labels, in nats, before the update; nan where it
    has none."""

    step: int
    loss: float
    norm: float
    rate: float
    n_tokens: int
    seconds: float
    spike: str | None = None
    """Why the update was left out, or what was odd about it; None for a step like any other."""
    n_texts: int = 0
    """How many texts the tokens are of, over all processes."""


class Trainer:
    """A model, its batches and how to train it; `steps()` trains, `save()` and `resume()` keep a run on disk.

    processes: who else trains it (`distributed.py`); each is given its own share of the batches.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        loop: Loop,
        *,
        precision: Chosen | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.model, self.batches, self.loop = model, batches, loop
        self.processes = processes if processes is not None else Processes("alone")
        self.done = 0
        self.n_tokens = 0
        self._asked = self._agreed_to_stop = False
        self._spikes = Spikes(loop.on_spike, loop.spike)
        self._unlabelled = 0
        self._saving: Saving | None = None
        self._outline = outline(model) if self.processes.how == "fsdp" else None
        torch.manual_seed(loop.seed + self.processes.rank)
        if loop.recompute:
            recompute(model)
        self._shared = self.processes.shared(model)
        self.device = next(model.parameters()).device
        self.precision = precision if precision is not None else choose(loop.precision, self.device)
        width = getattr(getattr(model, "config", None), "d_model", 128)
        self._choice = loop.optimiser if loop.optimiser is not None else usual(width)
        self.optimisers = Optimisers(model, self._choice)
        if loop.compile:
            model.compile()

    def steps(self) -> Iterator[Step]:
        """Take the steps that are left, reporting each. Raises TrainingError where a spike is to stop the run, or where
        it has diverged."""
        while self.done < self.loop.steps:
            yield self.step()

    def step(self) -> Step:
        """Take one step: Σ over its parts of the loss of their labels, divided by how many labels all parts have."""
        start = time.perf_counter()
        if not (self._shared.training and self.model.training):  # to tell every module so takes a while
            self._shared.train()
        number = self.done
        parts = self.batches.at(number)
        counts = [(part.n_labels, part.n_tokens, part.n_texts) for part in parts]
        totals = torch.tensor([*map(sum, zip((0, 0, 0), *counts, strict=True)), int(self._asked)])
        n_labels, n_tokens, n_texts, asked = self.processes.add_up(totals).tolist()
        self._agreed_to_stop = asked > 0
        if n_labels == 0:
            return self._passed_over(number, parts, start)
        parts = [part.to(self.device) for part in parts]  # counted above, where no device is waited for
        self._unlabelled = 0
        loss = torch.zeros((), dtype=torch.float64)
        for place, part in enumerate(parts, start=1):
            with self.processes.part(self._shared, last=place == len(parts)):
                with self.precision(self.device):
                    output = self._shared(**part.inputs)
                part_loss = total_loss(output, part, smoothing=self.loop.smoothing) / n_labels
                (part_loss * self.processes.size).backward()  # which are averaged over the processes, and so added up
            loss += part_loss.detach().double().cpu()
        self.processes.add_up(loss)
        norm = float(clip(self.optimisers.parameters, self.loop.clip))
        try:
            spike, update = self._spikes.judge(number, float(loss), norm, parts)
        except TrainingError:
            self.optimisers.forget()
            raise
        factor = self.loop.schedule.factor(number, self.loop.steps)
        if update:
            self.optimisers.step(factor)
        else:
            self.optimisers.forget()
        self._spikes.took(norm)
        self.done += 1
        self.n_tokens += n_tokens
        rate = self._choice.rate * factor
        seconds = time.perf_counter() - start
        return Step(
            step=number,
            loss=float(loss),
            norm=norm,
            rate=rate,
            n_tokens=n_tokens,
            seconds=seconds,
            spike=spike,
            n_texts=n_texts,
        )

    def _passed_over(self, step: int, parts: Sequence[Batch], start: float) -> Step:
        """A step none of whose tokens has a label, in no process: there is no update, and every other step is what it
        would have been. Raises TrainingError where so many follow one another that it is no chance."""
        self._unlabelled += 1
        if self._unlabelled >= IN_A_ROW:
            raise TrainingError(
                f"steps {step + 1 - self._unlabelled} to {step} had nothing to learn from: none of their tokens has a "
                "label. Are there any in the data?"
            )
        self.done += 1
        rate = self._choice.rate * self.loop.schedule.factor(step, self.loop.steps)
        seconds = time.perf_counter() - start
        told = f"step {step}{rows_of(parts)}: none of its tokens has a label; it is passed over"
        return Step(step=step, loss=math.nan, norm=math.nan, rate=rate, n_tokens=0, seconds=seconds, spike=told)

    def ask_to_stop(self) -> None:
        """Have `stopping` be true: of several processes, which a signal reaches at odd times, after a step more."""
        self._asked = True

    @property
    def stopping(self) -> bool:
        """Whether to stop here, in all processes alike."""
        return self._asked if self.processes.size == 1 else self._agreed_to_stop

    @property
    def sound(self) -> bool:
        """Whether the last step had a number as its loss and as its gradient's norm."""
        return not self._spikes.unsound

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """The mean loss over all labels of these batches, in nats; every process must ask."""
        return mean_loss(self._shared, batches, self.precision, self.device)

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, run: Path) -> Path:
        """Write a checkpoint of this moment; see `state.save`. Every process must ask; the first one writes.

        Sharded ones are begun, and stand once `settle` says so, or the next one begins. Raises TrainingError, in all
        processes alike, where this one, or the sharded one before, cannot be written, and where the run has diverged:
        what is left of it would take the place of what was good.
        """
        self.settle()
        model, optimiser = self.model.state_dict(), self.optimisers.state()
        strange = self.processes.all_told(state.not_finite(model))
        if (name := next(filter(None, strange), None)) is not None:
            raise TrainingError(f"step {self.done} is not saved, for its {name} is not all numbers: {LOST}")
        if (n := self._spikes.unsound) > 1:
            raise TrainingError(f"step {self.done} is not saved, for the last {n} had no loss: {LOST}")
        mine = {**state.random_state(), "norms": self._spikes.state()}
        data = self.processes.gathered(self.batches.state())
        folder = run / state.name_of(self.done)
        moment = state.State(
            step=self.done, tokens=self.n_tokens, model=model, optimiser=optimiser, random=[mine], data=data
        )
        if isinstance(self.loop.checkpoints, Sharded):
            from clearhead.train import sharded

            self._saving = sharded.begin(run, moment, self.processes, keep=self.loop.keep)
            return folder
        whole, gathered = self.processes.whole, self.processes.gathered
        moment = replace(moment, model=whole(model), optimiser=whole(optimiser), random=gathered(mine))
        flaw = None
        if self.processes.first:
            try:
                state.save(run, moment, keep=self.loop.keep)
            except TrainingError as error:
                flaw = str(error)
        if (flaw := self.processes.agreed(flaw)) is not None:
            raise TrainingError(flaw)
        return folder

    def settle(self) -> None:
        """Wait until a checkpoint that was begun stands. Raises TrainingError where it could not be written."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.wait()

    def whole(self) -> nn.Module | None:
        """The model with all of its weights, in the first process; None elsewhere. Every process must ask."""
        if self._outline is None:
            return self.model if self.processes.first else None
        tensors = self.processes.whole(self.model.state_dict())
        return filled_in(self._outline, tensors) if self.processes.first else None

    def gather(self) -> None:
        """When all is trained: give the first process the whole model, to measure and to write. Every one must ask."""
        whole = self.whole()
        self._outline = None
        if whole is not None and whole is not self.model:
            self.model = self._shared = whole
            self.device = torch.device("cpu")

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint, whoever wrote it. Every process must ask.

        Raises CheckpointError where it is not whole, or of another model.
        """
        if state.is_sharded(folder):
            from clearhead.train import sharded

            told = sharded.load(folder, self.model, self.processes)
        else:
            told = state.load(folder)
        try:
            self.processes.load(self.model, told.model)
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise CheckpointError(f"{folder} is of another model: {first[0].strip()}") from None
        self.optimisers.load_state(told.optimiser)
        mine = self.processes.rank
        if told.data[0]:  # a stream, which every process reads alike
            self.batches.load_state(told.data[0])
        self._spikes.load_state(told.random[0]["norms"])
        self.done, self.n_tokens = told.step, told.tokens
        if mine < len(told.random):
            state.set_random_state(told.random[mine])
        else:
            torch.manual_seed(self.loop.seed + mine + 7919 * told.step)  # a process that was not there before


def recompute(model: nn.Module) -> None:
    """Have every block forget what it computed, and compute it again on the way back; nothing else changes."""
    for block in model.modules():
        if isinstance(block, Block):
            block.forward = partial(_again, block.forward)  # type: ignore[method-assign]


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Sequence[Batch], precision: Chosen, device: torch.device) -> float:
    """The mean loss over all labels of these batches, without dropout."""
    total, count = 0.0, 0
    with without_dropout(model):
        for batch in batches:
            part = batch.to(device)
            with precision(device):
                output = model(**part.inputs)
            total += float(total_loss(output, part))
            count += part.n_labels
    if count == 0:
        raise TrainingError("there is nothing to evaluate on: no token of it has a label.")
    return total / count
