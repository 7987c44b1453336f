"""ELECTRA."""

from __future__ import annotations

from hypothesis import strategies as st
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
)

from tests.parity.grids import PADS, Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> ElectraConfig:
    heads = draw(st.sampled_from([1, 2, 4]))
    return ElectraConfig(
        vocab_size=draw(st.integers(11, 40)),
        embedding_size=draw(st.sampled_from([4, 6, 8])),
        hidden_size=heads * draw(st.sampled_from([4, 8])),
        num_attention_heads=heads,
        num_hidden_layers=draw(st.integers(1, 3)),
        intermediate_size=draw(st.sampled_from([12, 40])),
        max_position_embeddings=draw(st.integers(9, 20)),
        type_vocab_size=draw(st.integers(1, 3)),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5, 1e-3])),
        hidden_dropout_prob=draw(st.sampled_from([0.0, 0.2])),
        attention_probs_dropout_prob=draw(st.sampled_from([0.0, 0.2])),
        initializer_range=draw(st.sampled_from([0.02, 0.1])),
        classifier_dropout=draw(st.sampled_from([None, 0.3])),
        summary_type=draw(st.sampled_from(["first", "last", "mean"])),
        summary_use_proj=draw(st.booleans()),
        summary_last_dropout=draw(st.sampled_from([0.0, 0.1])),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
    )


def small() -> ElectraConfig:
    return ElectraConfig(
        vocab_size=20,
        embedding_size=6,
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=12,
        max_position_embeddings=12,
    )


GRIDS = (
    Grid(
        family="electra",
        configs=configs(),
        classes={
            "masked": ElectraForMaskedLM,
            "base": ElectraModel,
            "sequence": ElectraForSequenceClassification,
            "token": ElectraForTokenClassification,
        },
        small=small,
        # A text that is padded on the left is labelled by its first real token here, by its padding there.
        pads=lambda kind: ("none", "right") if kind == "sequence" else PADS,
    ),
)
