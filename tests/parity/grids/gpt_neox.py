"""GPT-NeoX and Pythia."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    GPTNeoXForTokenClassification,
    GPTNeoXModel,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import by_length, ropes
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> GPTNeoXConfig:
    heads, width = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([8, 16]))
    fraction = draw(st.sampled_from([0.25, 0.5, 1.0]))
    rope = draw(ropes(int(width * fraction) // 2))
    return GPTNeoXConfig(
        vocab_size=draw(st.integers(11, 40)),
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_hidden_layers=draw(st.integers(1, 3)),
        intermediate_size=draw(st.sampled_from([12, 40])),
        max_position_embeddings=draw(st.sampled_from([8, 24])),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_fast", "relu", "silu"])),
        layer_norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
        use_parallel_residual=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        rope_parameters={
            "rope_theta": draw(st.sampled_from([100.0, 10_000.0])),
            "partial_rotary_factor": fraction,
            **rope,
        },
        num_labels=draw(st.integers(1, 4)),
        eos_token_id=draw(st.sampled_from([2, [2, 3]])),
        pad_token_id=PAD,
    )


def small(**more: Any) -> GPTNeoXConfig:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 20, "max_position_embeddings": 24}
    return GPTNeoXConfig(vocab_size=20, num_hidden_layers=2, pad_token_id=PAD, **sizes, **more)


GRIDS = (
    Grid(
        family="gpt_neox",
        configs=configs(),
        classes={
            "lm": GPTNeoXForCausalLM,
            "base": GPTNeoXModel,
            "sequence": GPTNeoXForSequenceClassification,
            "token": GPTNeoXForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=lambda config: not by_length(config),
    ),
)
