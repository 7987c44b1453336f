"""BART and mBART, and what the grids of the families after them share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BartModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartForSequenceClassification,
    MBartModel,
)

from tests.parity.grids import Grid
from tests.parity.support import PAD


@st.composite
def flags(draw: st.DrawFn) -> dict[str, Any]:
    """The keys that all five families have."""
    heads = st.sampled_from([1, 2, 4])
    probabilities = st.sampled_from([0.0, 0.2])
    return {
        "vocab_size": draw(st.integers(11, 40)),
        "d_model": draw(st.sampled_from([8, 16, 24])),
        "encoder_layers": draw(st.integers(1, 3)),
        "decoder_layers": draw(st.integers(1, 3)),
        "encoder_attention_heads": draw(heads),
        "decoder_attention_heads": draw(heads),
        "encoder_ffn_dim": draw(st.sampled_from([12, 40])),
        "decoder_ffn_dim": draw(st.sampled_from([12, 40])),
        "encoder_layerdrop": draw(probabilities),
        "decoder_layerdrop": draw(probabilities),
        "max_position_embeddings": draw(st.integers(9, 20)),
        "activation_function": draw(st.sampled_from(["gelu", "relu", "swish", "gelu_new", "tanh"])),
        "dropout": draw(probabilities),
        "attention_dropout": draw(probabilities),
        "activation_dropout": draw(probabilities),
        "init_std": draw(st.sampled_from([0.02, 0.1])),
        "scale_embedding": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": PAD,
        "eos_token_id": draw(st.sampled_from([1, 2, 3])),
        "decoder_start_token_id": draw(st.sampled_from([PAD, 2, 4])),
    }


@st.composite
def labelled(draw: st.DrawFn, counts: tuple[int, ...]) -> dict[str, Any]:
    """And those that only a family with a classifier has."""
    own = {"num_labels": draw(st.sampled_from(counts)), "classifier_dropout": draw(st.sampled_from([0.0, 0.3]))}
    return draw(flags()) | own


SMALL = {
    "vocab_size": 20,
    "d_model": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 12,
    "pad_token_id": PAD,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}


def by_column(config: Any) -> bool:
    """transformers counts positions by the column, padding or not; here a text reads the same in any company."""
    return True


def unused(config: Any, kind: str) -> tuple[str, ...]:
    """Untied, transformers has three tables of tokens, and reads the two that are not called so."""
    return () if config.tie_word_embeddings else ("shared.weight", "model.shared.weight")


GRIDS = (
    Grid(
        family="bart",
        # transformers 5.23 saves a BartConfig of two labels without them, and then reads it as one of three.
        configs=labelled((1, 3, 4)).map(lambda keys: BartConfig(**keys)),
        classes={
            "seq2seq": BartForConditionalGeneration,
            "base": BartModel,
            "sequence": BartForSequenceClassification,
        },
        small=lambda: BartConfig(**SMALL),
        alone=by_column,
        spare=unused,
    ),
    Grid(
        family="mbart",
        configs=labelled((1, 2, 3)).map(lambda keys: MBartConfig(**keys)),
        classes={
            "seq2seq": MBartForConditionalGeneration,
            "base": MBartModel,
            "sequence": MBartForSequenceClassification,
        },
        small=lambda: MBartConfig(**SMALL),
        alone=by_column,
        spare=unused,
    ),
)
