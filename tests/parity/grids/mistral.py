"""Mistral."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    MistralForSequenceClassification,
    MistralForTokenClassification,
    MistralModel,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import SMALL, by_length, cached, shared


@st.composite
def configs(draw: st.DrawFn) -> MistralConfig:
    keys = shared(draw)
    keys["num_key_value_heads"] = keys["num_key_value_heads"] or keys["num_attention_heads"]
    return MistralConfig(sliding_window=draw(st.sampled_from([None, 1, 3, 4096])), **keys)


def small(**more: Any) -> MistralConfig:
    return MistralConfig(**{**SMALL, "head_dim": 6, "sliding_window": 4, **more})


GRIDS = (
    Grid(
        family="mistral",
        configs=configs(),
        classes={
            "lm": MistralForCausalLM,
            "base": MistralModel,
            "sequence": MistralForSequenceClassification,
            "token": MistralForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=cached,
    ),
)
