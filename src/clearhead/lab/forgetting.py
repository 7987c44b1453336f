"""Forgetting: how far back does a model remember one letter that it was told to?

    c a f B d a … e ?  →  b

A text of random letters, one of them marked, and a question at its end: which one? A recurrent model must carry it
through every step between (Hochreiter & Schmidhuber 1997 set such tasks), and learns to by a gradient that shrinks on
its way back (Bengio et al. 1994). A Transformer reads the question, and looks.

All models are one layer of as many parameters, see the same texts in the same steps, and choose their learning rate in
the same way: a short run with each, and the one that has the least loss at its end.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from clearhead.model.config import AttentionConfig, FeedForwardConfig, LanguageModel, ModelConfig, Rotary, StackConfig
from clearhead.model.modes import without_dropout
from clearhead.model.recurrent import Cell, RecurrentConfig, RecurrentLanguageModel
from clearhead.model.transformer import Decoder
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.loop import Loop, Trainer
from clearhead.train.optimiser import AdamW
from clearhead.train.schedules import Cosine

LETTERS = 16
QUESTION = 2 * LETTERS
VOCABULARY = 2 * LETTERS + 1
"""Letters; the same letters, marked; and the question."""

CHANCE = 1 / LETTERS
RATES = (1e-3, 3e-3, 1e-2)
DISTANCES = (4, 8, 16, 32, 64, 128, 256, 512)
CELLS: dict[str, Cell] = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}


def marked(
    n: int, length: int, generator: torch.Generator, distance: int | None = None
) -> tuple[Int[Tensor, "n T"], Int[Tensor, " n"]]:
    """`n` texts of `length` letters and the question, and the answers. distance: from the mark to the question; without
    one each text's is drawn, by 1/distance: near and far are as frequent."""
    ids = torch.randint(LETTERS, (n, length), generator=generator)
    answers = torch.randint(LETTERS, (n,), generator=generator)
    if distance is None:
        far = 1 + (1 / torch.arange(1, length + 1)).multinomial(n, replacement=True, generator=generator)
    else:
        far = torch.full((n,), distance)
    ids[torch.arange(n), length - far] = LETTERS + answers
    return torch.cat((ids, torch.full((n, 1), QUESTION)), dim=1), answers


def asked(ids: Int[Tensor, "n T"], answers: Int[Tensor, " n"]) -> Batch:
    """The batch of these texts: nothing is learned but the answer."""
    labels = torch.full_like(ids, IGNORED)
    labels[:, -1] = answers
    return Batch(inputs={"input_ids": ids}, labels=labels)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What all models are trained on: texts of any length up to `longest`, drawn evenly in its logarithm, so that short
    ones are as frequent as long ones. A step's batch is a function of the step."""

    longest: int
    batch: int = 32
    shortest: int = 4

    def at(self, step: int) -> Sequence[Batch]:
        """The step's batch."""
        generator = torch.Generator().manual_seed(step)
        chance = float(torch.rand((), generator=generator))
        length = int(self.shortest * ((self.longest + 1) / self.shortest) ** chance)
        return [asked(*marked(self.batch, min(length, self.longest), generator))]

    def state(self) -> Mapping[str, Any]:
        """Nothing: the step says it all."""
        return {}

    def load_state(self, told: Mapping[str, Any]) -> None:
        """Nothing to load."""


@dataclass(frozen=True, kw_only=True)
class Same:
    """One batch, again and again: to time a step."""

    batch: Batch

    def at(self, step: int) -> Sequence[Batch]:
        """The batch."""
        return [self.batch]

    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def load_state(self, told: Mapping[str, Any]) -> None:
        """Nothing to load."""


# ── the models ───────────────────────────────────────────────────────────────────────────────────────────────────────


def models(d_model: int = 48) -> dict[str, nn.Module]:
    """An RNN, an LSTM, a GRU and a Transformer, a layer each. The Transformer is as wide as asked, the others so that
    they come nearest to its number of parameters."""
    stack = StackConfig(
        n_layers=1,
        attention=AttentionConfig(n_heads=4),
        feedforward=FeedForwardConfig(d_ff=4 * d_model),
        position=Rotary(),
    )
    transformer = Decoder(
        ModelConfig(
            vocab_size=VOCABULARY, d_model=d_model, context=DISTANCES[-1] + 1, decoder=stack, head=LanguageModel()
        )
    )
    size = transformer.n_parameters()
    recurrent = {name: RecurrentLanguageModel(_nearest(cell, size)) for name, cell in CELLS.items()}
    return {**recurrent, "Transformer": transformer}


def _nearest(cell: Cell, size: int) -> RecurrentConfig:
    """One layer of `cell`, as wide as comes nearest to so many parameters: V·C for the table, and 2C² + 2C a gate."""
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    a, b = 2 * gates, VOCABULARY + 2 * gates  # a·C² + b·C = size
    width = round((math.sqrt(b * b + 4 * a * size) - b) / (2 * a))
    return RecurrentConfig(vocab_size=VOCABULARY, d_model=width, cell=cell)


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(kw_only=True)
class Memory:
    """What became of one model. accuracy: by distance. seconds: of a training step, by the text's length."""

    name: str
    n_parameters: int
    rate: float
    accuracy: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    training_s: float = 0.0


def measure(
    name: str,
    model: nn.Module,
    *,
    steps: int,
    trial: int,
    distances: Sequence[int] = DISTANCES,
    batch: int = 32,
    say: Callable[[str], None] = print,
) -> Memory:
    """Choose the rate by `trial` steps with each, train for `steps`, and measure at these distances."""
    began, texts = time.perf_counter(), Texts(longest=max(distances), batch=batch)
    ends = {rate: train(copy.deepcopy(model), texts, rate, trial) for rate in RATES}
    rate = min(ends, key=lambda rate: ends[rate])
    train(model, texts, rate, steps)
    memory = Memory(name=name, n_parameters=sum(p.numel() for p in model.parameters()), rate=rate)
    memory.training_s = time.perf_counter() - began
    memory.accuracy = {distance: accuracy(model, distance, max(distances)) for distance in distances}
    memory.seconds = {length: seconds_of_step(model, length) for length in distances}
    right = ", ".join(f"{distance}: {share:.0%}" for distance, share in memory.accuracy.items())
    say(f"{name}: {memory.n_parameters:,} parameters, rate {rate:g}, {memory.training_s:.0f} s; right at {right}")
    return memory


def train(model: nn.Module, texts: Texts, rate: float, steps: int) -> float:
    """Train for so many steps, as `clearhead train` does; the mean loss of the last quarter, or ∞."""
    torch.manual_seed(0)
    loop = Loop(
        steps=steps,
        optimiser=AdamW(rate=rate, weight_decay=0.0),
        schedule=Cosine(warmup=max(1, steps // 10)),
        precision="float32",
    )
    losses = [step.loss for step in Trainer(model, texts, loop).steps()]
    last = losses[-max(1, steps // 4) :]
    mean = sum(last) / len(last)
    return mean if math.isfinite(mean) else math.inf


@torch.inference_mode()
def accuracy(model: nn.Module, distance: int, length: int, n: int = 512) -> float:
    """The share of right answers at this distance, in texts of one length for all distances."""
    generator, right = torch.Generator().manual_seed(distance), 0
    with without_dropout(model):
        for _ in range(n // 64):
            ids, answers = marked(64, length, generator, distance)
            said = model(ids, last_only=True).logits[:, -1].argmax(-1)
            right += int((said == answers).sum())
    return right / (n // 64 * 64)


def seconds_of_step(model: nn.Module, length: int, *, batch: int = 16, times: int = 4) -> float:
    """The least of a few steps on texts of one length; the weights are left as they were."""
    same = Same(batch=asked(*marked(batch, length, torch.Generator().manual_seed(0))))
    trainer = Trainer(copy.deepcopy(model), same, Loop(steps=times + 1, precision="float32"))
    return min(step.seconds for step in trainer.steps())


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


def told(memories: Sequence[Memory], at: int = 128) -> list[str]:
    """The finding in sentences, made of the figures: whatever they are."""
    by_name, said = {memory.name: memory for memory in memories}, []
    for memory in memories:
        reach = reach_of(memory)
        sure = f"it is sure (99%) up to {reach}" if reach else "it is sure (99%) of none of the distances"
        said.append(
            f"{memory.name}: {_percent(memory.accuracy[at])} at distance {at}, {_word(memory.accuracy[at])}; {sure}."
        )
    if {"RNN", "Transformer"} <= by_name.keys():
        said.append(_expected(by_name["RNN"].accuracy[at], by_name["Transformer"].accuracy[at], at))
        length = max(by_name["RNN"].seconds)
        slow = {
            name: memory.seconds[length] / by_name["Transformer"].seconds[length] for name, memory in by_name.items()
        }
        times = ", ".join(f"{name} {ratio:.2g}" for name, ratio in slow.items() if name != "Transformer")
        said.append(f"A training step on texts of {length} takes, where the Transformer's is 1: {times}.")
    return said


def _percent(share: float) -> str:
    """Near the whole, with a digit more: 98.6% is not 99%."""
    return f"{share:.1%}" if 0.95 < share < 0.9995 else f"{share:.0%}"


def _word(share: float) -> str:
    """A word for a share of right answers."""
    if share < 2 * CHANCE:
        return f"as good as guessing ({CHANCE:.0%})"
    if share < 4 * CHANCE:
        return f"little better than guessing ({CHANCE:.0%})"
    return "sure" if share >= 0.99 else "unsure"


def _expected(rnn: float, transformer: float, at: int) -> str:
    """What lectures expect of these two, and whether it is so."""
    wrong = [f"the RNN is right {_percent(rnn)} of the time, and guessing {CHANCE:.0%}"] if rnn >= 2 * CHANCE else []
    wrong += [f"the Transformer is right {_percent(transformer)} of the time"] if transformer < 0.99 else []
    verdict = f"here {', and '.join(wrong)}" if wrong else "so it is"
    return f"The lectures say that at {at} the plain RNN guesses and the Transformer knows: {verdict}."


def headline(memories: Sequence[Memory], at: int = 128) -> str:
    """The finding in a line."""
    right = ", ".join(f"{memory.name} {_percent(memory.accuracy[at])}" for memory in memories)
    return f"Which letter was marked {at} tokens ago?  {right}"


def reach_of(memory: Memory, sure: float = 0.99) -> int:
    """The farthest distance up to which all are answered with this accuracy; 0 where not even the nearest is."""
    reach = 0
    for distance, share in sorted(memory.accuracy.items()):
        if share < sure:
            break
        reach = distance
    return reach
