"""mBART (Liu et al. 2020): BART in many languages, normalised before each branch and once more at the end."""

from __future__ import annotations

from dataclasses import replace

from clearhead.checkpoint.bart_like import (
    BY_EOS,
    PAIR_HEADS,
    SHARED,
    UNUSED,
    pair_classes,
    pair_keys,
    pair_template,
    pair_tensors,
)
from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.family import Family
from clearhead.model.config import Learned

TEMPLATE = pair_template(Learned(offset=2), norms="before", embedding_norm=True)

MBART = Family(
    model_type="mbart",
    template=TEMPLATE,
    prefix="model.",
    config=(
        *pair_keys(TEMPLATE, vocab_size=50_265),
        *special_tokens(pad=1, bos=0, eos=2),
        # A source ends with its language's token, behind which the decoder of a classifier reads it again.
        pair_classes("MBart", classifier=replace(BY_EOS, wrapped=True)),
        SHARED,
    ),
    weights=(*pair_tensors("before"), UNUSED),
    heads=PAIR_HEADS,
)

FAMILIES = (MBART,)
