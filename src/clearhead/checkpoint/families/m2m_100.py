"""M2M-100 (Fan et al. 2020) and NLLB: norms before each branch, and sinusoids that begin behind the padding's row."""

from __future__ import annotations

from typing import Any

from clearhead.checkpoint.bart_like import (
    PAIR_HEADS,
    SHARED,
    UNUSED,
    pair_classes,
    pair_keys,
    pair_template,
    pair_tensors,
)
from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.config_rules import Convert, Foreign
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places
from clearhead.checkpoint.rules import IgnoredTensor
from clearhead.model.config import ModelConfig, Sinusoidal

TEMPLATE = pair_template(Sinusoidal(layout="halves", offset=2, endpoint=True), norms="before")


def _read_offset(foreign: Foreign) -> Places:
    offset = foreign.whole("pad_token_id", 1) + 1
    return {"encoder.position.offset": offset, "decoder.position.offset": offset}


def _write_offset(config: ModelConfig) -> dict[str, Any]:
    return {}  # the row of the special tokens writes it


M2M_100 = Family(
    model_type="m2m_100",
    template=TEMPLATE,
    prefix="model.",
    config=(
        *pair_keys(TEMPLATE, vocab_size=128_112, activation="relu", scaled=True, attention_dropout=0.1),
        *special_tokens(pad=1, bos=0, eos=2, start=2),
        Convert(("pad_token_id",), _read_offset, _write_offset),
        pair_classes("M2M100", bias=False),
        SHARED,
    ),
    weights=(
        *pair_tensors("before"),
        UNUSED,
        IgnoredTensor("encoder.embed_positions.weights", "sinusoids, worked out from the config"),
        IgnoredTensor("decoder.embed_positions.weights", "sinusoids, worked out from the config"),
    ),
    heads=PAIR_HEADS,
)

FAMILIES = (M2M_100,)
