"""Classification: a label for a text or a pair of texts, or a tag for each word.

Rows bring their labels; nothing is drawn. A word of several pieces has its tag at the first, and nothing is learned at
the others, nor at special tokens and padding (Devlin et al. 2019, §5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clearhead.train.batch import Batch
from clearhead.train.objectives.common import Chance, Row, Vocabulary, inputs_of, labels_of, padded


@dataclass(frozen=True, kw_only=True)
class SequenceClassification:
    """Rows have `ids`, `types` for pairs, and a `label`: a class, or a float for each class where several may hold; or
    a `score`, a number to predict."""

    @property
    def ahead(self) -> int:
        """None."""
        return 0

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """Labels (B,), or floats (B,) or (B, L)."""
        inputs = inputs_of([row["ids"] for row in rows], vocabulary)
        if rows and "types" in rows[0]:
            inputs["token_type_ids"] = padded([row["types"] for row in rows], 0)[0]
        if rows and "score" in rows[0]:
            labels = torch.from_numpy(np.concatenate([row["score"] for row in rows]).astype(np.float32))
        else:
            stacked = np.stack([row["label"] for row in rows])
            if np.issubdtype(stacked.dtype, np.floating):
                labels = torch.from_numpy(stacked.astype(np.float32))
            else:
                labels = torch.from_numpy(stacked[:, 0].astype(np.int64))
        return Batch(inputs=inputs, labels=labels, rows=tuple(numbers))


@dataclass(frozen=True, kw_only=True)
class TokenClassification:
    """Rows have `ids` and `tags`, IGNORED where nothing is learned."""

    @property
    def ahead(self) -> int:
        """None."""
        return 0

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """Labels (B, T)."""
        inputs = inputs_of([row["ids"] for row in rows], vocabulary)
        labels = labels_of([row["tags"] for row in rows], inputs["input_ids"].shape[1])
        return Batch(inputs=inputs, labels=labels, rows=tuple(numbers))
