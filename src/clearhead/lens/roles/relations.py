"""Relations. Does a head read, from a word, the word that grammar ties to it? (Clark et al. 2019, §4.2.)

Attention between words, not tokens: to a word it is summed over the word's pieces, from a word averaged over them.
Special tokens and the word itself are left out, and the word that is read most is the head's answer. For each relation
both directions are tried, and beside the best head stands the best fixed distance ("the word after"), which knows no
grammar.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.lens.roles.detectors import TIMES_CHANCE
from clearhead.lens.roles.names import FirstToken
from clearhead.lens.roles.reading import Batch, Block, without_first
from clearhead.lens.roles.treebank import Sentence
from clearhead.lens.seen import Call

Direction = Literal["to head", "to dependent"]
"""Which of the two reads: the dependent its head, or the head its dependent."""

Blocks = Callable[[Call, Batch], Iterator[Block]]

FEWEST = 50
"""A relation with fewer pairs than this says nothing, and is not listed."""

MARGIN = 0.1
ERRORS = 4.0


@dataclass(frozen=True, eq=False)
class Relation:
    """How often each head finds the other end of a relation, over `pairs` pairs of words that the model could read.

    weight: how much it gives to the other end, on average; alike: what reading everything alike would give it.
    distance: the fixed distance, in words, that finds most of them; baseline: how many. A head has found the relation
    where it is right at least half of the time, and above the baseline by 10 points and by 4 standard errors, for so
    many heads are tried that the best of them is always somewhat above; and where it gives twice what `alike` does, so
    that none is found for what a rounding puts first.
    """

    name: str
    direction: Direction
    pairs: int
    accuracy: Float[Tensor, "L H"]
    weight: Float[Tensor, "L H"]
    alike: float
    distance: int
    baseline: float

    @property
    def best(self) -> tuple[int, int]:
        """The head that is right most often."""
        return divmod(int(self.accuracy.argmax()), self.accuracy.shape[1])

    @property
    def needs(self) -> float:
        """The accuracy at which a head has found the relation."""
        return needed(self.baseline, self.pairs)

    @property
    def found(self) -> Bool[Tensor, "L H"]:
        """Which heads have found it."""
        return (self.accuracy >= self.needs) & (self.weight >= TIMES_CHANCE * self.alike)


def needed(baseline: float, pairs: int) -> float:
    """What beats a baseline: half of the pairs, and 10 points and 4 standard errors more than it."""
    error = math.sqrt(max(baseline * (1 - baseline), 0.0) / max(1, pairs))
    return max(0.5, baseline + max(MARGIN, ERRORS * error))


@dataclass(eq=False)
class RelationTally:
    """What is counted while the treebank is read."""

    layers: int
    heads: int
    first: FirstToken
    pairs: Counter[tuple[str, Direction]] = field(default_factory=Counter)
    distances: dict[tuple[str, Direction], Counter[int]] = field(default_factory=dict)
    right: dict[tuple[str, Direction], Tensor] = field(default_factory=dict)
    given: dict[tuple[str, Direction], Tensor] = field(default_factory=dict)
    alike: dict[tuple[str, Direction], float] = field(default_factory=dict)

    def add(self, calls: Sequence[Call], batch: Batch, sentences: Sequence[Sentence], blocks: Blocks) -> None:
        """Count a batch; `sentences` are those of its rows."""
        tokens = [word_of_token(one.offsets, s.spans) for one, s in zip(batch.probes, sentences, strict=True)]
        widths = [len(s.spans) for s in sentences]
        words = [torch.zeros(self.layers, self.heads, n, n) for n in widths]
        alike = [torch.zeros(1, n, n) for n in widths]
        for number, call in enumerate(calls):
            for block in blocks(call, batch):
                treated = without_first(block, self.first)
                for row, of in enumerate(tokens):
                    add_words(words[row][number], treated.weights[row], treated.rows, of)
                    if number == 0:
                        readable = treated.readable[row].float()
                        even = readable / readable.sum(-1, keepdim=True).clamp(min=1)
                        add_words(alike[row], even[None], treated.rows, of)
        for row, sentence in enumerate(sentences):
            self._count(sentence, words[row], alike[row][0])

    def _count(self, sentence: Sentence, words: Float[Tensor, "L H n n"], alike: Float[Tensor, "n n"]) -> None:
        answers = torch.stack([answer(layer) for layer in words])
        for word, (head, name) in enumerate(zip(sentence.heads, sentence.relations, strict=True)):
            if head < 0:
                continue
            ways: tuple[tuple[Direction, int, int], ...] = (("to head", word, head), ("to dependent", head, word))
            for direction, query, key in ways:
                if float(alike[query, key]) == 0:  # it may not be read, or has no token of its own
                    continue
                way = (name, direction)
                self.pairs[way] += 1
                self.distances.setdefault(way, Counter())[key - query] += 1
                for sums, values in (
                    (self.right, answers[:, :, query] == key),
                    (self.given, words[:, :, query, key]),
                ):
                    sums[way] = sums.get(way, torch.zeros(self.layers, self.heads)) + values
                self.alike[way] = self.alike.get(way, 0.0) + float(alike[query, key])

    def relations(self, fewest: int = FEWEST) -> list[Relation]:
        """What was found, the relations with most pairs first."""
        found = []
        for way, pairs in self.pairs.most_common():
            if pairs >= fewest:
                distance, hits = self.distances[way].most_common(1)[0]
                found.append(
                    Relation(
                        *way,
                        pairs=pairs,
                        accuracy=self.right[way] / pairs,
                        weight=self.given[way] / pairs,
                        alike=self.alike[way] / pairs,
                        distance=distance,
                        baseline=hits / pairs,
                    )
                )
        return found


# ── from tokens to words ─────────────────────────────────────────────────────────────────────────────────────────


def word_of_token(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> Int[Tensor, " T"]:
    """The word that each token is part of, the one it shares most characters with; −1 for none, as special tokens."""
    found, first = [], 0
    for start, end in offsets:
        best, most = -1, 0
        while first < len(spans) and spans[first][1] <= start:
            first += 1
        for word in range(first, len(spans)):
            if spans[word][0] >= end:
                break
            shared = min(end, spans[word][1]) - max(start, spans[word][0])
            if shared > most:
                best, most = word, shared
        found.append(best)
    return torch.tensor(found, dtype=torch.long)


def add_words(
    words: Float[Tensor, "H n n"], weights: Float[Tensor, "H q Tk"], rows: range, of: Int[Tensor, " T"]
) -> None:
    """Add a block of token weights to the word weights: summed over the pieces of what is read, averaged over those of
    what reads."""
    n = words.shape[1]
    keys = of[: weights.shape[2]]
    own = of[rows.start : rows.stop]
    queries = (own >= 0).nonzero()[:, 0]
    columns = (keys >= 0).nonzero()[:, 0]
    if n == 0 or not len(queries) or not len(columns):
        return
    pieces = torch.bincount(of[of >= 0], minlength=n).clamp(min=1)
    part = weights[:, queries][:, :, columns].nan_to_num(0.0)
    summed = torch.zeros(*part.shape[:2], n).index_add_(2, keys[columns], part)
    words.index_add_(1, own[queries], summed / pieces[own[queries]][None, :, None])


def answer(words: Float[Tensor, "H n n"]) -> Int[Tensor, "H n"]:
    """The word that each word reads most, itself left out; −1 where it reads none."""
    if words.shape[1] == 0:
        return torch.zeros(words.shape[:2], dtype=torch.long)
    others = words.masked_fill(torch.eye(words.shape[1], dtype=torch.bool), 0.0)
    most, which = others.max(-1)
    return torch.where(most > 0, which, -1)
