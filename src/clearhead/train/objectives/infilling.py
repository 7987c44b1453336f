"""Text infilling: spans are hidden, each behind one mask, and the decoder writes the whole text (Lewis et al. 2020).

    text      A B C . D E .
    encoder   A <mask> . D <mask> E .        B C hidden; and a span of no tokens before E
    decoder   A B C . D E .

30% of the tokens are hidden, in spans whose lengths are drawn from a Poisson distribution of λ = 3; so the model must
also find out how many tokens are missing, and it may be none. Sentences may change places first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

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
class TextInfilling:
    """rate: the share of tokens that is hidden. mean_span: λ. permute: sentences come in any order in the encoder's
    text. Special tokens (BART's `<s>`, `</s>` around a text) are neither hidden nor moved."""

    rate: float = 0.3
    mean_span: float = 3.0
    permute: bool = False

    def __post_init__(self) -> None:
        check_share("rate", self.rate)
        if not self.mean_span > 0:
            raise ConfigError(f"mean_span={self.mean_span} should be above 0.")

    @property
    def ahead(self) -> int:
        """None."""
        return 0

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """The corrupted texts, and the decoder's side: the texts themselves, each ended by eos."""
        mask = needed(vocabulary.mask, "mask", "text infilling")
        eos = needed(vocabulary.eos, "eos", "text infilling")
        sources, targets = [], []
        for at, row in enumerate(rows):
            ids, random = row["ids"].astype(np.int64), chance.of(at)
            text = np.flatnonzero(vocabulary.are_text(ids))
            first, last = (int(text[0]), int(text[-1]) + 1) if len(text) else (0, 0)
            middle = ids[first:last]
            if self.permute:
                middle = permuted(middle, vocabulary.stops, random)
            hidden = self.hide(middle, mask, random)
            sources.append(np.concatenate([ids[:first], hidden, ids[last:]]))
            targets.append(ids if len(ids) and ids[-1] == eos else np.append(ids, eos))
        inputs, labels = decoder_side(targets, vocabulary)
        return Batch(inputs={**inputs_of(sources, vocabulary), **inputs}, labels=labels, rows=tuple(numbers))

    def hide(self, ids: Ids, mask: int, random: np.random.Generator) -> Int[np.ndarray, " Ts"]:
        """The text with a mask in the place of each span."""
        before, lengths = self.spans(len(ids), random)
        kept, starts = np.ones(len(ids), dtype=bool), before + np.concatenate([[0], np.cumsum(lengths)[:-1]])
        for start, length in zip(starts, lengths, strict=True):
            kept[start : start + length] = False
        # `before` counts tokens that stay, which is where a mask goes among those that stay.
        return np.insert(ids[kept], before, mask)

    def spans(self, n: int, random: np.random.Generator) -> tuple[Int[np.ndarray, " spans"], Int[np.ndarray, " spans"]]:
        """Spans in order: how many tokens that stay come before each, and how many each hides; ⌈rate · n⌉ in all.

        No two spans meet: each lies in a gap of its own among the tokens that stay.
        """
        wanted = min(int(np.ceil(self.rate * n)), n)
        if not wanted:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        lengths = list(self._lengths(wanted, random))
        gaps = n - wanted + 1
        while len(lengths) > gaps:  # too many spans for what stays between them: join two
            last = lengths.pop()
            lengths[-1] += last
        before = np.sort(random.choice(gaps, len(lengths), replace=False))
        return before.astype(np.int64), random.permutation(np.array(lengths, dtype=np.int64))

    def _lengths(self, wanted: int, random: np.random.Generator) -> Int[np.ndarray, " spans"]:
        """Poisson lengths until there are enough; the last one is cut."""
        drawn = np.zeros(0, dtype=np.int64)
        while drawn.sum() < wanted:
            drawn = np.append(drawn, random.poisson(self.mean_span, max(8, int(2 * wanted / self.mean_span))))
        ends = np.cumsum(drawn)
        count = int(np.searchsorted(ends, wanted)) + 1
        drawn = drawn[:count]
        drawn[-1] -= ends[count - 1] - wanted
        return drawn


def permuted(ids: Ids, stops: frozenset[int], random: np.random.Generator) -> Ids:
    """The sentences of a text in any order; a sentence ends with a stop."""
    ends = np.flatnonzero(np.isin(ids, sorted(stops))) + 1
    sentences = [each for each in np.split(ids, ends) if len(each)]
    if len(sentences) < 2:
        return ids
    return np.concatenate([sentences[at] for at in random.permutation(len(sentences))])
