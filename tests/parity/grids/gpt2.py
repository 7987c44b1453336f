"""GPT-2."""

from __future__ import annotations

from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

from tests.parity.grids import Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> GPT2Config:
    heads = draw(st.sampled_from([1, 2, 4]))
    return GPT2Config(
        vocab_size=draw(st.integers(11, 40)),
        n_embd=heads * draw(st.sampled_from([4, 8])),
        n_head=heads,
        n_layer=draw(st.integers(1, 3)),
        n_positions=draw(st.integers(9, 20)),
        n_inner=draw(st.sampled_from([None, 12, 40])),
        activation_function=draw(st.sampled_from(["gelu_new", "gelu", "relu", "silu", "gelu_pytorch_tanh"])),
        layer_norm_epsilon=draw(st.sampled_from([1e-5, 1e-3])),
        scale_attn_weights=draw(st.booleans()),
        scale_attn_by_inverse_layer_idx=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=draw(st.sampled_from([2, [2, 3]])),
    )


def small() -> GPT2Config:
    return GPT2Config(vocab_size=20, n_embd=8, n_head=2, n_layer=2, n_positions=12, pad_token_id=PAD, bos_token_id=1)


GRIDS = (
    Grid(
        family="gpt2",
        configs=configs(),
        classes={
            "lm": GPT2LMHeadModel,
            "base": GPT2Model,
            "sequence": GPT2ForSequenceClassification,
            "token": GPT2ForTokenClassification,
        },
        small=small,
    ),
)
