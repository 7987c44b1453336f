"""Pegasus (Zhang et al. 2019): norms before each branch and once more at the end, sines first and cosines after."""

from __future__ import annotations

from clearhead.checkpoint.bart_like import (
    PAIR_HEADS,
    SHARED,
    UNUSED,
    pair_classes,
    pair_keys,
    pair_template,
    pair_tensors,
    sinusoid_tables,
)
from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.family import Family
from clearhead.model.config import Sinusoidal

TEMPLATE = pair_template(Sinusoidal(layout="halves"), norms="before")

PEGASUS = Family(
    model_type="pegasus",
    template=TEMPLATE,
    prefix="model.",
    config=(
        *pair_keys(TEMPLATE, vocab_size=50_265),
        *special_tokens(pad=0, eos=1, start=0),
        pair_classes("Pegasus"),
        SHARED,
    ),
    weights=(*pair_tensors("before"), UNUSED, *sinusoid_tables(written=True)),
    heads=PAIR_HEADS,
)

FAMILIES = (PEGASUS,)
