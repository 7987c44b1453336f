"""BLOOM."""

from __future__ import annotations

from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    BloomForSequenceClassification,
    BloomForTokenClassification,
    BloomModel,
)

from tests.parity.grids import Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> BloomConfig:
    heads = draw(st.sampled_from([1, 2, 3, 4, 6]))
    slices = draw(st.sampled_from([1, 2]))
    return BloomConfig(
        vocab_size=draw(st.integers(11, 40)),
        hidden_size=heads * draw(st.sampled_from([4, 8])),
        n_head=heads,
        n_layer=draw(st.integers(1, 3)),
        layer_norm_epsilon=draw(st.sampled_from([1e-5, 1e-3])),
        apply_residual_connection_post_layernorm=draw(st.booleans()),
        pretraining_tp=slices,
        slow_but_exact=slices == 1 and draw(st.booleans()),
        hidden_dropout=draw(st.sampled_from([0.0, 0.2])),
        attention_dropout=draw(st.sampled_from([0.0, 0.1])),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
        eos_token_id=draw(st.sampled_from([2, [2, 3]])),
    )


def small() -> BloomConfig:
    return BloomConfig(vocab_size=20, hidden_size=12, n_head=3, n_layer=2, pad_token_id=PAD)


GRIDS = (
    Grid(
        family="bloom",
        configs=configs(),
        classes={
            "lm": BloomForCausalLM,
            "base": BloomModel,
            "sequence": BloomForSequenceClassification,
            "token": BloomForTokenClassification,
        },
        small=small,
    ),
)
