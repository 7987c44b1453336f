"""Causal language modelling: at each token, say the next one (Bengio et al. 2003). Chat is the same, answers only.

    loss = − Σ_t log p(x_{t+1} | x_1 … x_t)

Labels are shifted here: the label at place t is the id at t + 1. In a row of several documents the last token of one
says nothing about the first of the next, so nothing is learned there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearhead.train.batch import IGNORED, Batch
from clearhead.train.objectives.common import Chance, Row, Vocabulary, document_inputs, inputs_of, labels_of


@dataclass(frozen=True, kw_only=True)
class CausalLanguageModel:
    """Learn the next token, everywhere; or, where rows say which tokens are `learned` (conversations), only these."""

    @property
    def ahead(self) -> int:
        """The label of a row's last input."""
        return 1

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """Inputs are all ids but the last, labels all but the first."""
        n = [max(len(row["ids"]) - 1, 0) for row in rows]
        inputs = inputs_of([row["ids"][:-1] for row in rows], vocabulary)
        labels = [_labels(row) for row in rows]
        width = inputs["input_ids"].shape[1]
        return Batch(
            inputs={**inputs, **document_inputs(rows, n)}, labels=labels_of(labels, width), rows=tuple(numbers)
        )


def _labels(row: Row) -> np.ndarray:
    labels = row["ids"][1:].astype(np.int64)
    if "documents" in row:
        documents = row["documents"]
        labels[documents[1:] != documents[:-1]] = IGNORED
    if "learned" in row:
        labels[row["learned"][1:] == 0] = IGNORED
    return labels
