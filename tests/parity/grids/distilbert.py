"""DistilBERT."""

from __future__ import annotations

from hypothesis import strategies as st
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
)

from tests.parity.grids import PADS, Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> DistilBertConfig:
    heads = draw(st.sampled_from([1, 2, 4]))
    return DistilBertConfig(
        vocab_size=draw(st.integers(11, 40)),
        dim=heads * draw(st.sampled_from([4, 8])),
        n_heads=heads,
        n_layers=draw(st.integers(1, 3)),
        hidden_dim=draw(st.sampled_from([12, 40])),
        max_position_embeddings=draw(st.integers(9, 20)),
        sinusoidal_pos_embds=draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
        dropout=draw(st.sampled_from([0.0, 0.2])),
        attention_dropout=draw(st.sampled_from([0.0, 0.2])),
        initializer_range=draw(st.sampled_from([0.02, 0.1])),
        qa_dropout=draw(st.sampled_from([0.1, 0.3])),
        seq_classif_dropout=draw(st.sampled_from([0.0, 0.3])),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
    )


def small() -> DistilBertConfig:
    return DistilBertConfig(vocab_size=20, dim=8, n_heads=2, n_layers=2, hidden_dim=12, max_position_embeddings=12)


GRIDS = (
    Grid(
        family="distilbert",
        configs=configs(),
        classes={
            "masked": DistilBertForMaskedLM,
            "base": DistilBertModel,
            "sequence": DistilBertForSequenceClassification,
            "token": DistilBertForTokenClassification,
        },
        small=small,
        # A text that is padded on the left is labelled by its first real token here, by its padding there.
        pads=lambda kind: ("none", "right") if kind == "sequence" else PADS,
    ),
)
