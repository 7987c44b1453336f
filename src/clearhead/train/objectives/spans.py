"""Span corruption: spans are cut out of the text, and the decoder writes them (Raffel et al. 2020, §3.1.4).

    text      Thank you for inviting me to your party last week .
    encoder   Thank you <X> me to your party <Y> week .
    decoder   <X> for inviting <Y> last <Z>

15% of the tokens in spans of 3 on average. Each span has a sentinel of its own, in order, and one more ends the target;
each side then ends with eos. As in T5's own code, spans and what lies between them are random partitions of the two
counts, and alternate beginning with text that stays: so a text's first token is never cut out, and its last always is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int

from clearhead.errors import ConfigError
from clearhead.train.batch import Batch
from clearhead.train.objectives.common import (
    Chance,
    Ids,
    Row,
    Vocabulary,
    check_share,
    decoder_side,
    inputs_of,
    needed,
)


@dataclass(frozen=True, kw_only=True)
class SpanCorruption:
    """density: the share of tokens that is cut out; mean_span: their mean length. Rows should be text without special
    tokens; those that there are at the two ends stay (in the encoder's text)."""

    density: float = 0.15
    mean_span: float = 3.0

    def __post_init__(self) -> None:
        check_share("density", self.density)
        if not self.mean_span >= 1:
            raise ConfigError(f"mean_span={self.mean_span} should be a number of tokens, 1 or more.")

    @property
    def ahead(self) -> int:
        """None."""
        return 0

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """The texts with their holes, and the decoder's side."""
        eos = needed(vocabulary.eos, "eos", "span corruption")
        sources, targets = [], []
        for at, row in enumerate(rows):
            ids = row["ids"].astype(np.int64)
            if len(ids) and ids[-1] == eos:
                ids = ids[:-1]
            source, target = cut_out(ids, self.noise(len(ids), chance.of(at)), vocabulary.sentinels)
            sources.append(np.append(source, eos))
            targets.append(np.append(target, eos))
        inputs, labels = decoder_side(targets, vocabulary)
        return Batch(inputs={**inputs_of(sources, vocabulary), **inputs}, labels=labels, rows=tuple(numbers))

    def noise(self, n: int, random: np.random.Generator) -> Bool[np.ndarray, " T"]:
        """Which of `n` tokens are cut out: round(density · n) of them, in round(that / mean_span) spans."""
        if n < 2:
            return np.zeros(n, dtype=bool)
        noise = min(max(round(n * self.density), 1), n - 1)
        spans = min(max(round(noise / self.mean_span), 1), noise, n - noise)
        lengths = np.stack([partition(n - noise, spans, random), partition(noise, spans, random)], axis=1).reshape(-1)
        return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def partition(total: int, parts: int, random: np.random.Generator) -> Int[np.ndarray, " parts"]:
    """`total` in so many numbers of 1 or more, every way as likely as any other."""
    cuts = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)


def cut_out(
    ids: Ids, noise: Bool[np.ndarray, " T"], sentinels: tuple[int, ...]
) -> tuple[Int[np.ndarray, " Ts"], Int[np.ndarray, " Tt"]]:
    """The text with a sentinel for each span of noise; and the sentinels, each with what it stands for, and one more.

    Raises ConfigError where there are more spans than sentinels.
    """
    begins = noise & ~np.concatenate([[False], noise[:-1]])
    spans = int(begins.sum())
    if spans + 1 > len(sentinels):
        raise ConfigError(
            f"a text of {len(ids)} tokens has {spans} spans, and the tokenizer has {len(sentinels)} sentinels "
            "(<extra_id_0> …), of which one ends the target; train it with more, or give shorter rows."
        )
    marks = np.array(sentinels, dtype=np.int64)
    number = np.cumsum(begins) - 1  # which span a token of noise belongs to
    source = np.where(begins, marks[np.maximum(number, 0)], ids)[~noise | begins]
    target = np.insert(ids[noise], np.flatnonzero(begins[noise]), marks[:spans])
    return source, np.append(target, marks[spans])


def put_back(source: Int[np.ndarray, " Ts"], target: Int[np.ndarray, " Tt"], sentinels: tuple[int, ...]) -> Ids:
    """The text again: the inverse of `cut_out`."""
    where = np.flatnonzero(np.isin(target, sentinels))
    spans = {int(target[a]): target[a + 1 : b] for a, b in pairwise(where)}
    pieces = [spans.get(int(id), np.array([id])) for id in source]
    return np.concatenate([np.zeros(0, dtype=np.int64), *pieces]).astype(np.int64)
