"""RoBERTa, XLM-RoBERTa and CamemBERT."""

from __future__ import annotations

from typing import Any

import transformers
from hypothesis import strategies as st
from torch import Tensor

from clearhead.model.cache import count_positions
from tests.parity.grids import PADS, Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn, kind: Any) -> Any:
    heads = draw(st.sampled_from([1, 2, 4]))
    pad = draw(st.sampled_from([0, 1, 3]))
    return kind(
        vocab_size=draw(st.integers(11, 40)),
        hidden_size=heads * draw(st.sampled_from([4, 8])),
        num_attention_heads=heads,
        num_hidden_layers=draw(st.integers(1, 3)),
        intermediate_size=draw(st.sampled_from([12, 40])),
        max_position_embeddings=pad + 1 + draw(st.integers(9, 20)),
        type_vocab_size=draw(st.integers(1, 3)),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5, 1e-3])),
        hidden_dropout_prob=draw(st.sampled_from([0.0, 0.2])),
        attention_probs_dropout_prob=draw(st.sampled_from([0.0, 0.2])),
        initializer_range=draw(st.sampled_from([0.02, 0.1])),
        classifier_dropout=draw(st.sampled_from([None, 0.3])),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=pad,
    )


def small(kind: Any) -> Any:
    return kind(
        vocab_size=20,
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=12,
        max_position_embeddings=12,
        type_vocab_size=1,
        pad_token_id=PAD,
    )


def after_the_pad(config: Any, real: Tensor) -> dict[str, Tensor]:
    """The positions that transformers counts from the ids, where no id of a token happens to be the padding's."""
    return {"position_ids": count_positions(real.bool()) + config.pad_token_id + 1}


def spare(config: Any, kind: str) -> tuple[str, ...]:
    return ("lm_head.bias",) if kind == "masked" and not config.tie_word_embeddings else ()


def grid(family: str, name: str) -> Grid:
    kind = getattr(transformers, f"{name}Config")
    return Grid(
        family=family,
        configs=configs(kind),
        classes={
            "masked": getattr(transformers, f"{name}ForMaskedLM"),
            "base": getattr(transformers, f"{name}Model"),
            "no pooler": getattr(transformers, f"{name}Model"),
            "sequence": getattr(transformers, f"{name}ForSequenceClassification"),
            "token": getattr(transformers, f"{name}ForTokenClassification"),
        },
        options={"no pooler": {"add_pooling_layer": False}},
        small=lambda: small(kind),
        # A text that is padded on the left is labelled by its first real token here, by its padding there.
        pads=lambda kind: ("none", "right") if kind == "sequence" else PADS,
        spare=spare,
        inputs=after_the_pad,
    )


GRIDS = (grid("roberta", "Roberta"), grid("xlm-roberta", "XLMRoberta"), grid("camembert", "Camembert"))
