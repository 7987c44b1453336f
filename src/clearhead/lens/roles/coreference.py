"""Coreference. Does a head read, at a pronoun, the name that it stands for, rather than another that it might?

From the pronoun attention is averaged over its tokens, to a name it is summed over the name's. A head is right where
the true name gets more than every other candidate. The baseline takes the candidate that stands nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearhead.lens.roles.detectors import TIMES_CHANCE
from clearhead.lens.roles.names import FirstToken
from clearhead.lens.roles.pairs import Pair, Span
from clearhead.lens.roles.probes import Probe
from clearhead.lens.roles.reading import Batch, without_first
from clearhead.lens.roles.relations import FEWEST, Blocks, needed
from clearhead.lens.seen import Call


@dataclass(frozen=True, eq=False)
class Coreference:
    """How often each head is right, over `pairs` mentions whose candidates the model could all read.

    weight: what it gives the true name, on average; alike: what reading everything alike would give it, which a head
    for coreference gives at least twice. nearest: how often the candidate that stands nearest is right; chance: how
    often one drawn blindly is. out_of_reach: mentions left out because a candidate stands behind them, where a decoder
    cannot read it.
    """

    pairs: int
    out_of_reach: int
    accuracy: Float[Tensor, "L H"]
    weight: Float[Tensor, "L H"]
    alike: float
    nearest: float
    chance: float

    @property
    def best(self) -> tuple[int, int]:
        """The head that is right most often."""
        return divmod(int(self.accuracy.argmax()), self.accuracy.shape[1])

    @property
    def needs(self) -> float:
        """The accuracy that makes a head one for coreference: clearly above both baselines."""
        return needed(max(self.nearest, self.chance), self.pairs)

    @property
    def found(self) -> Bool[Tensor, "L H"]:
        """Which heads are."""
        clear = self.weight >= TIMES_CHANCE * self.alike
        return (self.accuracy >= self.needs) & clear & (self.pairs >= FEWEST)


@dataclass(eq=False)
class CoreferenceTally:
    """What is counted while the pairs are read."""

    layers: int
    heads: int
    first: FirstToken
    pairs: int = 0
    out_of_reach: int = 0
    nearest: int = 0
    chance: float = 0.0
    alike: float = 0.0
    right: Float[Tensor, "L H"] = field(init=False)
    given: Float[Tensor, "L H"] = field(init=False)

    def __post_init__(self) -> None:
        self.right, self.given = torch.zeros(self.layers, self.heads), torch.zeros(self.layers, self.heads)

    def add(self, calls: Sequence[Call], batch: Batch, pairs: Sequence[Pair], blocks: Blocks) -> None:
        """Count a batch; `pairs` are those of its rows."""
        mentions = [tokens_of(one, pair.mention) for one, pair in zip(batch.probes, pairs, strict=True)]
        names = [
            [tokens_of(one, span) for span in (pair.name, *pair.others)]
            for one, pair in zip(batch.probes, pairs, strict=True)
        ]
        given = torch.zeros(self.layers, len(pairs), self.heads, max(map(len, names)))
        alike = torch.zeros(len(pairs), given.shape[-1])
        for layer, call in enumerate(calls):
            for block in blocks(call, batch):
                treated = without_first(block, self.first)
                for row, own in enumerate(mentions):
                    inside = [i - block.rows.start for i in own if i in block.rows]
                    for which, keys in enumerate(names[row] if inside else ()):
                        part = treated.weights[row][:, inside][:, :, keys].nan_to_num(0.0)
                        given[layer, row, :, which] += part.sum((1, 2)) / len(own)
                        if layer == 0:
                            readable = treated.readable[row][inside].float()
                            even = readable[:, keys].sum(1) / readable.sum(1).clamp(min=1)
                            alike[row, which] += float(even.sum()) / len(own)
        for row, candidates in enumerate(names):
            n = len(candidates)
            self._count(given[:, row, :, :n], alike[row, :n], mentions[row], candidates)

    def _count(
        self, given: Float[Tensor, "L H n"], alike: Float[Tensor, " n"], mention: list[int], names: list[list[int]]
    ) -> None:
        if not bool((alike > 0).all()):
            self.out_of_reach += 1
            return
        self.pairs += 1
        self.given += given[:, :, 0]
        self.alike += float(alike[0])
        self.right += given[:, :, 0] > given[:, :, 1:].amax(-1)
        gaps = [min(abs(i - j) for i in mention for j in name) for name in names]
        self.nearest += gaps[0] < min(gaps[1:])
        self.chance += 1 / len(names)

    def result(self) -> Coreference:
        """What was found."""
        n = max(1, self.pairs)
        return Coreference(
            pairs=self.pairs,
            out_of_reach=self.out_of_reach,
            accuracy=self.right / n,
            weight=self.given / n,
            alike=self.alike / n,
            nearest=self.nearest / n,
            chance=self.chance / n,
        )


def tokens_of(one: Probe, span: Span) -> list[int]:
    """The tokens that were read from these characters."""
    start, end = span
    return [at for at, (a, b) in enumerate(one.offsets) if a < end and b > start and b > a]
