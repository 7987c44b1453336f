"""Detectors. A role is a rule that says which keys a query reads if the head has that role.

The score of a head is the weight it gives to those keys, averaged over the queries that have any; chance is what a head
that reads everything alike would give them. A head has the role where the score is at least the detector's `needs`, and
twice chance. So one table holds them all, and a new role is a line in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearhead.lens.roles.names import FirstToken, Role
from clearhead.lens.roles.reading import Batch, Block, without_first

HALF = 0.5
"""More than half of what a head reads, on average, makes a habit (Clark et al. 2019, §3.1, of the previous token)."""

TIMES_CHANCE = 2.0

OFFSETS = 16
"""Positional heads are looked for at distances up to this."""

FEWEST = 20
"""A score from fewer queries than this says nothing, and gives no role."""


@runtime_checkable
class Aim(Protocol):
    """The rule of a role: which keys these rows read if the head has it. Readable or not is seen to elsewhere."""

    def __call__(self, batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]: ...


def _previous(batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]:
    return (j[None, :] == i[:, None] - 1)[None]


def _next(batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]:
    return (j[None, :] == i[:, None] + 1)[None]


def _first(batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]:
    return ((j[None, :] == 0) & (i[:, None] > 0))[None]


def _separators(batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]:
    """Those of others: a separator that reads itself does what any head that reads itself would."""
    return batch.separators[:, None, j] & ~batch.separators[:, i, None]


def _rare(batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]:
    return batch.rare[:, None, j] & (i[:, None] != j[None, :])[None]


def _duplicate(batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]:
    """The same token at another place."""
    words = ~batch.special
    same = batch.ids[:, i, None] == batch.ids[:, None, j]
    return same & words[:, i, None] & words[:, None, j] & (i[:, None] != j[None, :])[None]


def _induction(batch: Batch, i: Tensor, j: Tensor) -> Bool[Tensor, "#B q k"]:
    """What follows the same token at another place."""
    words = ~batch.special
    before = (j - 1).clamp(min=0)
    same = batch.ids[:, i, None] == batch.ids[:, None, before]
    follows = (j > 0)[None, None, :] & words[:, None, before] & words[:, None, j]
    return same & follows & words[:, i, None] & (i[:, None] != j[None, :] - 1)[None]


@dataclass(frozen=True)
class Detector:
    """A role, its rule, the texts it shows on, and the score that it takes."""

    role: Role
    aim: Aim
    on: Literal["sentences", "repeats"]
    needs: float = HALF
    as_it_is: bool = False
    """True where the treatment of the first token would remove what is looked for."""


DETECTORS = (
    Detector(Role.PREVIOUS, _previous, "sentences"),
    Detector(Role.NEXT, _next, "sentences"),
    Detector(Role.FIRST, _first, "sentences", as_it_is=True),
    Detector(Role.SEPARATOR, _separators, "sentences"),
    Detector(Role.RARE, _rare, "sentences"),
    Detector(Role.DUPLICATE, _duplicate, "repeats"),
    Detector(Role.INDUCTION, _induction, "repeats"),
)
POSITIONAL_NEEDS = 0.9


@dataclass(eq=False)
class Tally:
    """Sums over queries, of every head of every layer: the weight on the aim, how often, and chance."""

    layers: int
    heads: int
    needs: float = HALF
    weight: Float[Tensor, "L H"] = field(init=False)
    count: Float[Tensor, "L H"] = field(init=False)
    chance_sum: float = 0.0
    queries: int = 0

    def __post_init__(self) -> None:
        self.weight = torch.zeros(self.layers, self.heads, dtype=torch.float64)
        self.count = torch.zeros(self.layers, self.heads, dtype=torch.float64)

    def add(self, block: Block, aim: Bool[Tensor, "B q Tk"]) -> None:
        """Count a block. A row that is NaN (nothing was left of it) is not counted for its head."""
        has = aim.any(-1)
        if not bool(has.any()):
            return
        given = torch.einsum("bhqk,bqk->bhq", block.weights, aim.to(block.weights.dtype))
        counted = has[:, None] & given.isfinite()
        self.weight[block.layer] += torch.where(counted, given, 0.0).double().sum((0, 2))
        self.count[block.layer] += counted.sum((0, 2))
        if block.layer == 0:
            alike = aim.sum(-1) / block.readable.sum(-1).clamp(min=1)
            self.chance_sum += float(alike[has].double().sum())
            self.queries += int(has.sum())

    @property
    def scores(self) -> Float[Tensor, "L H"]:
        """The mean weight on the aim; 0 where nothing was counted."""
        return (self.weight / self.count.clamp(min=1)).float()

    @property
    def chance(self) -> float:
        """What reading everything alike would score."""
        return self.chance_sum / max(1, self.queries)

    @property
    def found(self) -> Bool[Tensor, "L H"]:
        """Which heads have the role."""
        enough = self.count >= FEWEST
        return enough & (self.scores >= self.needs) & (self.scores >= TIMES_CHANCE * self.chance)


class Tallies:
    """The tallies of all detectors that show on one sort of text, and of every distance for positional heads."""

    def __init__(self, on: Literal["sentences", "repeats"], layers: int, heads: int, first: FirstToken) -> None:
        self.first = first
        self.detectors = [each for each in DETECTORS if each.on == on]
        self.of = {each.role: Tally(layers, heads, each.needs) for each in self.detectors}
        steps = range(-OFFSETS, OFFSETS + 1) if on == "sentences" else ()
        self.at = {step: Tally(layers, heads, POSITIONAL_NEEDS) for step in steps}

    def add(self, block: Block, batch: Batch) -> None:
        """Count a block for every detector."""
        i = torch.arange(block.rows.start, block.rows.stop)
        j = torch.arange(block.weights.shape[-1])
        treated = without_first(block, self.first)
        for detector in self.detectors:
            chosen = block if detector.as_it_is else treated
            self.of[detector.role].add(chosen, detector.aim(batch, i, j) & chosen.readable)
        for step, tally in self.at.items():
            tally.add(treated, (j[None, :] == i[:, None] + step)[None] & treated.readable)
