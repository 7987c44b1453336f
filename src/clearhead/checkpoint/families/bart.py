"""BART (Lewis et al. 2019): an encoder-decoder that normalises after each branch, with learned positions."""

from __future__ import annotations

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

TEMPLATE = pair_template(Learned(offset=2), norms="after", embedding_norm=True)

BART = Family(
    model_type="bart",
    template=TEMPLATE,
    prefix="model.",
    config=(
        *pair_keys(TEMPLATE, vocab_size=50_265),
        *special_tokens(pad=1, bos=0, eos=2, start=2),
        pair_classes("Bart", classifier=BY_EOS, unnamed=3),
        SHARED,
    ),
    weights=(*pair_tensors("after"), UNUSED),
    heads=PAIR_HEADS,
)

FAMILIES = (BART,)
