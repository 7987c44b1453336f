"""Marian (Junczys-Dowmunt et al. 2018): OPUS-MT's translators, normalised after each branch, with sinusoids."""

from __future__ import annotations

from typing import Any

from clearhead.checkpoint.bart_like import (
    PAIR_HEADS,
    pair_classes,
    pair_keys,
    pair_template,
    pair_tensors,
    sinusoid_tables,
    tables_differ,
    tied,
)
from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.config_rules import Convert, Foreign
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places
from clearhead.checkpoint.rules import IgnoredTensor, When
from clearhead.model.config import ModelConfig, Sinusoidal

TEMPLATE = pair_template(Sinusoidal(layout="halves"), norms="after")


def _read_tables(foreign: Foreign) -> Places:
    shared = foreign.flag("share_encoder_decoder_embeddings", True)
    if shared and not foreign.flag("tie_word_embeddings", True):  # transformers 5 then ties nothing
        shared = not tables_differ(foreign)
    size = foreign.optional_whole("decoder_vocab_size")
    same = shared or not size or size == foreign.whole("vocab_size", 58_101)
    return {"shared_embedding": shared, "decoder_vocab_size": None if same else size}


def _write_tables(config: ModelConfig) -> dict[str, Any]:
    return {
        "share_encoder_decoder_embeddings": config.shared_embedding,
        "decoder_vocab_size": config.target_vocab_size,
        "tie_word_embeddings": tied(config),
    }


MARIAN = Family(
    model_type="marian",
    template=TEMPLATE,
    prefix="model.",
    config=(
        *pair_keys(TEMPLATE, vocab_size=58_101),
        *special_tokens(pad=58_100, eos=0, start=58_100),
        pair_classes("Marian", writer="MTModel"),
        Convert(
            ("share_encoder_decoder_embeddings", "decoder_vocab_size", "tie_word_embeddings"),
            _read_tables,
            _write_tables,
            verbatim=False,
        ),
    ),
    weights=(
        *pair_tensors("after"),
        When(
            lambda config: not config.shared_embedding,
            IgnoredTensor("shared.weight", "never read where each stack has a table of its own"),
        ),
        When(lambda config: config.head is None, *sinusoid_tables(written=True)),
        When(lambda config: config.head is not None, *sinusoid_tables(written=False)),
    ),
    heads=PAIR_HEADS,
)

FAMILIES = (MARIAN,)
