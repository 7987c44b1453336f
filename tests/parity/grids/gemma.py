"""Gemma 1, 2 and 3 (its text)."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2ForSequenceClassification,
    Gemma2ForTokenClassification,
    Gemma2Model,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    Gemma3TextModel,
    GemmaConfig,
    GemmaForCausalLM,
    GemmaForSequenceClassification,
    GemmaForTokenClassification,
    GemmaModel,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import by_length, ropes
from tests.parity.support import PAD

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def _shared(draw: st.DrawFn) -> dict[str, Any]:
    kv_heads = draw(st.sampled_from([1, 2]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3]))
    return {
        "vocab_size": draw(st.integers(11, 40)),
        "hidden_size": heads * draw(st.sampled_from([4, 8])),
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from([kv_heads, heads])),
        "head_dim": draw(st.sampled_from([4, 8, 12])),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "intermediate_size": draw(st.sampled_from([12, 40])),
        "max_position_embeddings": draw(st.sampled_from([8, 24])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "attention_bias": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "num_labels": draw(st.integers(1, 4)),
        "pad_token_id": PAD,
        "eos_token_id": draw(st.sampled_from([1, [1, 3]])),
    }


def _rope(draw: st.DrawFn, head_dim: int) -> dict[str, Any]:
    return {"rope_theta": draw(st.sampled_from([100.0, 10_000.0])), **draw(ropes(head_dim // 2))}


def _whole(rope: dict[str, Any]) -> dict[str, Any]:
    """Without YaRN's `truncate`, which transformers looks for beside the kinds of layers, where no file has it."""
    return {key: value for key, value in rope.items() if key != "truncate"}


def _layer_types(draw: st.DrawFn, n_layers: int) -> list[str] | None:
    """None is the family's own rule. Some layer is local: of one that has none, local positions would be lost."""
    types = draw(st.none() | st.lists(st.sampled_from([LOCAL, GLOBAL]), min_size=n_layers, max_size=n_layers))
    return types if types is None or LOCAL in types else [*types[:-1], LOCAL]


@st.composite
def gemma(draw: st.DrawFn) -> GemmaConfig:
    shared = _shared(draw)
    return GemmaConfig(
        **shared,
        hidden_act=draw(st.sampled_from(["gelu", "gelu_pytorch_tanh", "silu"])),
        rope_parameters=_rope(draw, shared["head_dim"]),
    )


@st.composite
def gemma2(draw: st.DrawFn) -> Gemma2Config:
    shared = _shared(draw)
    return Gemma2Config(
        **shared,
        hidden_activation=draw(st.sampled_from(["gelu", "gelu_pytorch_tanh", "silu"])),
        rope_parameters=_rope(draw, shared["head_dim"]),
        query_pre_attn_scalar=draw(st.sampled_from([4, 7, 256])),
        attn_logit_softcapping=draw(st.sampled_from([None, 0.5, 50.0])),
        final_logit_softcapping=draw(st.sampled_from([None, 0.5, 30.0])),
        layer_types=_layer_types(draw, shared["num_hidden_layers"]),
        sliding_window=draw(st.integers(1, 12)),
    )


@st.composite
def gemma3(draw: st.DrawFn, **more: Any) -> Gemma3TextConfig:
    shared = _shared(draw)
    older = draw(st.sampled_from([{}, {"sliding_window_pattern": 2}, {"sliding_window_pattern": 3}]))
    return Gemma3TextConfig(
        **shared,
        **older,
        **more,
        hidden_activation=draw(st.sampled_from(["gelu", "gelu_pytorch_tanh", "silu"])),
        rope_parameters={kind: _whole(_rope(draw, shared["head_dim"])) for kind in (LOCAL, GLOBAL)},
        query_pre_attn_scalar=draw(st.sampled_from([4, 7, 256])),
        final_logit_softcapping=draw(st.sampled_from([None, 0.5, 30.0])),
        layer_types=_layer_types(draw, shared["num_hidden_layers"]),
        sliding_window=draw(st.integers(1, 12)),
    )


SMALL: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
}


def small(**more: Any) -> GemmaConfig:
    return GemmaConfig(**SMALL, **more)


def small2(**more: Any) -> Gemma2Config:
    return Gemma2Config(**{**SMALL, "sliding_window": 4, "query_pre_attn_scalar": 12, **more})


def small3(**more: Any) -> Gemma3TextConfig:
    layers = {"num_hidden_layers": 3, "layer_types": [LOCAL, LOCAL, GLOBAL]}
    return Gemma3TextConfig(**{**SMALL, **layers, "sliding_window": 4, "query_pre_attn_scalar": 12, **more})


def keeps_its_window(config: Any) -> bool:
    """transformers' cache of a window of 1 keeps the last −0 keys, which is all of them, and then reads them."""
    return config.sliding_window != 1


def by_length_somewhere(config: Any) -> bool:
    return any(one["rope_type"] in ("dynamic", "longrope") for one in config.rope_parameters.values())


GRIDS = (
    Grid(
        family="gemma",
        configs=gemma(),
        classes={
            "lm": GemmaForCausalLM,
            "base": GemmaModel,
            "sequence": GemmaForSequenceClassification,
            "token": GemmaForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=lambda config: not by_length(config),
    ),
    Grid(
        family="gemma2",
        configs=gemma2(),
        classes={
            "lm": Gemma2ForCausalLM,
            "base": Gemma2Model,
            "sequence": Gemma2ForSequenceClassification,
            "token": Gemma2ForTokenClassification,
        },
        small=small2,
        alone=by_length,
        cached=lambda config: not by_length(config) and keeps_its_window(config),
    ),
    Grid(
        family="gemma3_text",
        configs=gemma3(),
        classes={
            "lm": Gemma3ForCausalLM,
            "base": Gemma3TextModel,
            "sequence": Gemma3TextForSequenceClassification,
        },
        small=small3,
        alone=by_length_somewhere,
        older=lambda config: config.rope_parameters[LOCAL]["rope_type"] == "default",  # it has no other there
        cached=lambda config: not by_length_somewhere(config) and keeps_its_window(config),
    ),
)
