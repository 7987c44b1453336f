"""Sequence to sequence: read the source, write the target (Sutskever et al. 2014; Vaswani et al. 2017).

The decoder is taught with the true target so far (teacher forcing): it reads the start id and the target but for its
last id, and should say the target, whose last id is eos. Label smoothing is the loss's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearhead.train.batch import Batch
from clearhead.train.objectives.common import Chance, Row, Vocabulary, decoder_side, inputs_of


@dataclass(frozen=True, kw_only=True)
class SequenceToSequence:
    """Rows have `ids`, the source, and `target`, which ends in eos."""

    @property
    def ahead(self) -> int:
        """None."""
        return 0

    def batch(self, rows: Sequence[Row], vocabulary: Vocabulary, chance: Chance, numbers: Sequence[int] = ()) -> Batch:
        """Both sides, padded."""
        inputs, labels = decoder_side([row["target"].astype(np.int64) for row in rows], vocabulary)
        source = inputs_of([row["ids"] for row in rows], vocabulary)
        return Batch(inputs={**source, **inputs}, labels=labels, rows=tuple(numbers))
