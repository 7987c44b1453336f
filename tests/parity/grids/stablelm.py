"""StableLM."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    StableLmConfig,
    StableLmForCausalLM,
    StableLmForSequenceClassification,
    StableLmForTokenClassification,
    StableLmModel,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import by_length, ropes
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> StableLmConfig:
    kv_heads, width = draw(st.sampled_from([1, 2])), draw(st.sampled_from([8, 16]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3]))
    fraction = draw(st.sampled_from([0.25, 0.5, 1.0]))
    rope = draw(ropes(int(width * fraction) // 2))
    return StableLmConfig(
        vocab_size=draw(st.integers(11, 40)),
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=draw(st.integers(1, 3)),
        intermediate_size=draw(st.sampled_from([12, 40])),
        max_position_embeddings=draw(st.sampled_from([8, 24])),
        hidden_act=draw(st.sampled_from(["silu", "gelu", "relu"])),
        layer_norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
        use_qkv_bias=draw(st.booleans()),
        qk_layernorm=draw(st.booleans()),
        use_parallel_residual=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        rope_parameters={
            "rope_theta": draw(st.sampled_from([100.0, 10_000.0])),
            "partial_rotary_factor": fraction,
            **rope,
        },
        num_labels=draw(st.integers(1, 4)),
        eos_token_id=draw(st.sampled_from([0, [2, 3]])),
        pad_token_id=PAD,
    )


def small(**more: Any) -> StableLmConfig:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 20}
    sizes |= {"num_hidden_layers": 2, "max_position_embeddings": 24}
    return StableLmConfig(
        **{"vocab_size": 20, "qk_layernorm": True, "use_parallel_residual": True, "pad_token_id": PAD, **sizes, **more}
    )


GRIDS = (
    Grid(
        family="stablelm",
        configs=configs(),
        classes={
            "lm": StableLmForCausalLM,
            "base": StableLmModel,
            "sequence": StableLmForSequenceClassification,
            "token": StableLmForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=lambda config: not by_length(config),
    ),
)
