"""Falcon, of every architecture it had."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    FalconForSequenceClassification,
    FalconForTokenClassification,
    FalconModel,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import by_length, ropes
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> FalconConfig:
    new, multi, alibi = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    kv_heads, width = draw(st.sampled_from([1, 2])), draw(st.sampled_from([4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3]))
    rope = {"rope_theta": draw(st.sampled_from([100.0, 10_000.0])), **draw(ropes(width // 2))}
    return FalconConfig(
        vocab_size=draw(st.integers(11, 40)),
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_kv_heads=kv_heads if new else None,
        num_hidden_layers=draw(st.integers(1, 3)),
        ffn_hidden_size=draw(st.sampled_from([None, 12])),
        max_position_embeddings=draw(st.sampled_from([8, 24])),
        new_decoder_architecture=new,
        multi_query=multi,
        parallel_attn=new or draw(st.booleans()),
        num_ln_in_parallel_attn=draw(st.sampled_from([None, 1, 2] if new else [None, 1])),
        bias=draw(st.booleans()),
        alibi=alibi,
        activation=draw(st.sampled_from(["gelu", "relu", "gelu_new"])),
        layer_norm_epsilon=draw(st.sampled_from([1e-5, 1e-3])),
        tie_word_embeddings=draw(st.booleans()),
        rope_parameters=None if alibi else rope,
        num_labels=draw(st.integers(1, 4)),
        eos_token_id=draw(st.sampled_from([11, [2, 3]])),
        pad_token_id=PAD,
    )


def small(**more: Any) -> FalconConfig:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_kv_heads": 2, "ffn_hidden_size": 20}
    sizes |= {"vocab_size": 20, "num_hidden_layers": 2, "max_position_embeddings": 24}
    return FalconConfig(**{"new_decoder_architecture": True, "pad_token_id": PAD, **sizes, **more})


CLASSES = {
    "lm": FalconForCausalLM,
    "base": FalconModel,
    "sequence": FalconForSequenceClassification,
    "token": FalconForTokenClassification,
}
SDPA = {"attn_implementation": "sdpa"}
"""What a user of transformers gets; its eager attention adds ALiBi twice, once by itself and once in the mask."""

GRIDS = (
    Grid(
        family="falcon",
        configs=configs(),
        classes=CLASSES,
        small=small,
        options=dict.fromkeys(CLASSES, SDPA),
        alone=by_length,
        cached=lambda config: not by_length(config),
        examples=30,
    ),
)
