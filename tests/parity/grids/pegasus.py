"""Pegasus."""

from __future__ import annotations

from transformers import PegasusConfig, PegasusForConditionalGeneration, PegasusModel

from tests.parity.grids import Grid
from tests.parity.grids.bart import SMALL, by_column, flags, unused

GRIDS = (
    Grid(
        family="pegasus",
        configs=flags().map(lambda keys: PegasusConfig(**keys)),
        classes={"seq2seq": PegasusForConditionalGeneration, "base": PegasusModel},
        small=lambda: PegasusConfig(**SMALL),
        alone=by_column,
        spare=unused,
        older=lambda config: config.tie_word_embeddings,  # it has no word for tables of their own
    ),
)
