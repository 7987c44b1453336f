"""Masked language modelling: hide some tokens, say what they were (Devlin et al. 2019, §3.1).

Of the tokens that are text, 15% are chosen. Of these 80% are replaced by the mask, 10% by any other token, and 10% stay
as they are, so that the model cannot know which tokens it will be asked about. Special tokens are never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from clearhead.errors import ConfigError
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.objectives.common import (
    Chance,
    Ids,
    Row,
    Vocabulary,
    check_share,
    document_inputs,
    inputs_of,
    labels_of,
    needed,
)


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel:
    """rate: the share of tokens that are chosen; masked, random: what becomes of them (the rest stays). whole_words:
    choose words, with all their pieces (BERT's later models); rows then say where words begin (`starts`)."""

    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    whole_words: bool = False

    def __post_init__(self) -> None:
        for name in ("rate", "masked", "random"):
            check_share(name, getattr(self, name))
        if self.masked + self.random > 1 + 1e-9:
            raise ConfigError(f"masked={self.masked} and random={self.random} are more than all; at most 1 together.")

    @property
    def ahead(self) -> int:
        """None: a token's label stands where the token stood."""
        return 0

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """Inputs with tokens hidden; labels are the tokens that were chosen, IGNORED elsewhere."""
        read, labels = [], []
        for at, row in enumerate(rows):
            ids = row["ids"].astype(np.int64)
            chosen, corrupted = self.corrupt(row, ids, vocabulary, chance.of(at))
            read.append(corrupted)
            labels.append(np.where(chosen, ids, IGNORED))
        inputs = {**inputs_of(read, vocabulary), **document_inputs(rows, [len(ids) for ids in read])}
        return Batch(inputs=inputs, labels=labels_of(labels, inputs["input_ids"].shape[1]), rows=tuple(numbers))

    def corrupt(
        self, row: Row, ids: Ids, vocabulary: Vocabulary, random: np.random.Generator
    ) -> tuple[Bool[np.ndarray, " T"], Ids]:
        """Which tokens are chosen, and the ids with them hidden."""
        mask = needed(vocabulary.mask, "mask", "masked language modelling")
        text = vocabulary.are_text(ids)
        chosen = self._words(row, text, random) if self.whole_words else self._tokens(text, random)
        fate = random.random(len(ids))
        corrupted = np.where(chosen & (fate < self.masked), mask, ids)
        swapped = chosen & (fate >= self.masked) & (fate < self.masked + self.random)
        any_token = vocabulary.ordinary[random.integers(0, len(vocabulary.ordinary), len(ids))]
        return chosen, np.where(swapped, any_token, corrupted)

    def _wanted(self, n: int) -> int:
        return min(n, max(1, round(self.rate * n)))

    def _tokens(self, text: Bool[np.ndarray, " T"], random: np.random.Generator) -> Bool[np.ndarray, " T"]:
        places = np.flatnonzero(text)
        chosen = np.zeros(len(text), dtype=bool)
        chosen[random.permutation(places)[: self._wanted(len(places))]] = True
        return chosen

    def _words(self, row: Row, text: Bool[np.ndarray, " T"], random: np.random.Generator) -> Bool[np.ndarray, " T"]:
        """Words in any order, each taken whole if it still fits; the first in any case, so that something is."""
        if "starts" not in row:
            raise ConfigError("whole words need to know where words begin; encode with Text(words=True).")
        chosen = np.zeros(len(text), dtype=bool)
        word = np.cumsum(row["starts"] != 0)
        places = np.flatnonzero(text)
        if not len(places):
            return chosen
        _, begins, sizes = np.unique(word[places], return_index=True, return_counts=True)
        left = self._wanted(len(places))
        for at in random.permutation(len(begins)):
            if sizes[at] <= left or not chosen.any():
                chosen[places[begins[at] : begins[at] + sizes[at]]] = True
                left -= int(sizes[at])
            if left <= 0:
                break
        return chosen
