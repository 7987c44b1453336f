"""ALBERT."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    AlbertModel,
)

from tests.parity.grids import PADS, Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> AlbertConfig:
    heads = draw(st.sampled_from([1, 2, 4]))
    groups = draw(st.integers(1, 3))
    return AlbertConfig(
        vocab_size=draw(st.integers(11, 40)),
        embedding_size=draw(st.sampled_from([4, 6, 8])),
        hidden_size=heads * draw(st.sampled_from([4, 8])),
        num_attention_heads=heads,
        num_hidden_layers=groups * draw(st.integers(1, 2)),
        num_hidden_groups=groups,
        intermediate_size=draw(st.sampled_from([12, 40])),
        max_position_embeddings=draw(st.integers(9, 20)),
        type_vocab_size=draw(st.integers(1, 3)),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5, 1e-3])),
        hidden_dropout_prob=draw(st.sampled_from([0.0, 0.2])),
        attention_probs_dropout_prob=draw(st.sampled_from([0.0, 0.2])),
        initializer_range=draw(st.sampled_from([0.02, 0.1])),
        classifier_dropout_prob=draw(st.sampled_from([0.0, 0.3])),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
    )


def small() -> AlbertConfig:
    return AlbertConfig(
        vocab_size=20,
        embedding_size=6,
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=12,
        max_position_embeddings=12,
    )


def spare(config: Any, kind: str) -> tuple[str, ...]:
    return ("predictions.bias",) if kind == "masked" and not config.tie_word_embeddings else ()


GRIDS = (
    Grid(
        family="albert",
        configs=configs(),
        classes={
            "masked": AlbertForMaskedLM,
            "base": AlbertModel,
            "no pooler": AlbertModel,
            "sequence": AlbertForSequenceClassification,
            "token": AlbertForTokenClassification,
        },
        options={"no pooler": {"add_pooling_layer": False}},
        small=small,
        # The pooled token of a text that is padded on the left is another here: its first real one.
        pads=lambda kind: ("none", "right") if kind == "sequence" else PADS,
        spare=spare,
    ),
)
