"""Phi and Phi-3."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    Phi3Config,
    Phi3ForCausalLM,
    Phi3ForSequenceClassification,
    Phi3ForTokenClassification,
    Phi3Model,
    PhiConfig,
    PhiForCausalLM,
    PhiForSequenceClassification,
    PhiForTokenClassification,
    PhiModel,
)

from tests.parity.grids import Grid
from tests.parity.grids.gemma import keeps_its_window
from tests.parity.grids.llama import by_length, ropes
from tests.parity.support import PAD


def _shared(draw: st.DrawFn) -> dict[str, Any]:
    kv_heads = draw(st.sampled_from([1, 2]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3]))
    return {
        "vocab_size": draw(st.integers(11, 40)),
        "hidden_size": heads * draw(st.sampled_from([8, 16])),
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from([kv_heads, heads, None])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "intermediate_size": draw(st.sampled_from([12, 40])),
        "max_position_embeddings": draw(st.sampled_from([8, 24])),
        "hidden_act": draw(st.sampled_from(["silu", "gelu_new", "relu"])),
        "tie_word_embeddings": draw(st.booleans()),
        "num_labels": draw(st.integers(1, 4)),
        "pad_token_id": PAD,
    }


@st.composite
def phi(draw: st.DrawFn) -> PhiConfig:
    shared = _shared(draw)
    width = shared["hidden_size"] // shared["num_attention_heads"]
    fraction = draw(st.sampled_from([4 / width, 0.5, 0.75, 1.0]))  # of 2 widths, transformers divides by zero
    rope = {"rope_theta": draw(st.sampled_from([100.0, 10_000.0])), **draw(ropes(int(width * fraction) // 2))}
    return PhiConfig(
        **shared,
        layer_norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
        qk_layernorm=draw(st.booleans()),
        rope_parameters={**rope, "partial_rotary_factor": fraction},
    )


@st.composite
def phi3(draw: st.DrawFn) -> Phi3Config:
    shared = _shared(draw)
    fraction = draw(st.sampled_from([0.25, 0.5, 0.75, 1.0]))
    half = int(shared["hidden_size"] // shared["num_attention_heads"] * fraction) // 2
    factors = st.lists(st.floats(1.0, 4.0), min_size=half, max_size=half)
    rope = draw(
        st.just({"rope_type": "default"})
        | st.fixed_dictionaries(
            {"rope_type": st.just("longrope"), "short_factor": factors, "long_factor": factors},
            optional={"factor": st.just(5.0), "attention_factor": st.just(1.1)},
        )
    )
    theta = draw(st.sampled_from([100.0, 10_000.0]))
    return Phi3Config(
        **shared,
        rms_norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
        original_max_position_embeddings=draw(st.integers(6, 16)),
        sliding_window=draw(st.none() | st.integers(1, 12)),
        rope_parameters={**rope, "rope_theta": theta, "partial_rotary_factor": fraction},
    )


SMALL: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
}


def small(**more: Any) -> PhiConfig:
    return PhiConfig(**{**SMALL, "qk_layernorm": True, **more})


def small3(**more: Any) -> Phi3Config:
    """Its original context holds the texts that are recorded: past it, transformers turns a whole batch alike."""
    rope = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [1.0, 2.0, 3.0, 4.0]}
    says = {"rope_parameters": rope, "original_max_position_embeddings": 16, "sliding_window": 6}
    return Phi3Config(**{**SMALL, **says, **more})


GRIDS = (
    Grid(
        family="phi",
        configs=phi(),
        classes={
            "lm": PhiForCausalLM,
            "base": PhiModel,
            "sequence": PhiForSequenceClassification,
            "token": PhiForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=lambda config: not by_length(config),
    ),
    Grid(
        family="phi3",
        configs=phi3(),
        classes={
            "lm": Phi3ForCausalLM,
            "base": Phi3Model,
            "sequence": Phi3ForSequenceClassification,
            "token": Phi3ForTokenClassification,
        },
        small=small3,
        alone=by_length,
        cached=lambda config: not by_length(config) and keeps_its_window(config),
        older=lambda config: not {"factor", "attention_factor"} & config.rope_parameters.keys(),
    ),
)
