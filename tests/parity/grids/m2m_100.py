"""M2M-100."""

from __future__ import annotations

from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Model

from tests.parity.grids import Grid
from tests.parity.grids.bart import SMALL, flags, unused

GRIDS = (
    Grid(
        family="m2m_100",
        configs=flags().map(lambda keys: M2M100Config(**keys)),
        classes={"seq2seq": M2M100ForConditionalGeneration, "base": M2M100Model},
        small=lambda: M2M100Config(**SMALL),
        spare=unused,
    ),
)
