"""Qwen 2."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import SMALL, by_length, cached, shared


def switched(draw: st.DrawFn, count: int) -> dict[str, Any]:
    """Windows off, from a layer on, or in the layers that are named."""
    window = draw(st.sampled_from([None, 1, 3]))
    kinds = ["full_attention"] + ["sliding_attention"] * (window is not None)
    types = draw(st.none() | st.lists(st.sampled_from(kinds), min_size=count, max_size=count))
    return {
        "num_hidden_layers": count,
        "use_sliding_window": window is not None or draw(st.booleans()),
        "sliding_window": window if window is not None else draw(st.sampled_from([None, 3])),
        "layer_types": types,
    }


@st.composite
def configs(draw: st.DrawFn) -> Qwen2Config:
    return Qwen2Config(
        **{
            **shared(draw),
            **switched(draw, draw(st.integers(1, 3))),
            "max_window_layers": draw(st.integers(0, 4)),
        }
    )


def small(**more: Any) -> Qwen2Config:
    windows = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    return Qwen2Config(**{**SMALL, **windows, **more})


GRIDS = (
    Grid(
        family="qwen2",
        configs=configs(),
        classes={
            "lm": Qwen2ForCausalLM,
            "base": Qwen2Model,
            "sequence": Qwen2ForSequenceClassification,
            "token": Qwen2ForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=cached,
    ),
)
