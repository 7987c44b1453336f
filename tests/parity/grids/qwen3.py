"""Qwen 3."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
    Qwen3Model,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import SMALL, by_length, cached, shared
from tests.parity.grids.qwen2 import switched


@st.composite
def configs(draw: st.DrawFn) -> Qwen3Config:
    return Qwen3Config(
        **{
            **shared(draw, head_dims=(4, 8, 12)),
            **switched(draw, draw(st.integers(1, 3))),
            "attention_bias": draw(st.booleans()),
            "max_window_layers": draw(st.integers(0, 4)),
        }
    )


def small(**more: Any) -> Qwen3Config:
    windows = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    return Qwen3Config(**{**SMALL, **windows, "head_dim": 6, **more})


GRIDS = (
    Grid(
        family="qwen3",
        configs=configs(),
        classes={
            "lm": Qwen3ForCausalLM,
            "base": Qwen3Model,
            "sequence": Qwen3ForSequenceClassification,
            "token": Qwen3ForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=cached,
    ),
)
