"""SmolLM 3."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    SmolLM3Config,
    SmolLM3ForCausalLM,
    SmolLM3ForSequenceClassification,
    SmolLM3ForTokenClassification,
    SmolLM3Model,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import SMALL, by_length, cached, shared
from tests.parity.grids.qwen2 import switched
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> SmolLM3Config:
    count = draw(st.integers(1, 5))
    turned = draw(st.none() | st.lists(st.sampled_from([0, 1]), min_size=count, max_size=count))
    return SmolLM3Config(
        **{
            **shared(draw),
            **switched(draw, count),
            "no_rope_layers": turned,
            "no_rope_layer_interval": draw(st.integers(1, 4)),
            "attention_bias": draw(st.booleans()),
            "mlp_bias": draw(st.booleans()),
        }
    )


def small(**more: Any) -> SmolLM3Config:
    tokens = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2}
    windows = {"use_sliding_window": True, "sliding_window": 4, "no_rope_layer_interval": 2}
    return SmolLM3Config(**{**SMALL, **tokens, **windows, **more})


GRIDS = (
    Grid(
        family="smollm3",
        configs=configs(),
        classes={
            "lm": SmolLM3ForCausalLM,
            "base": SmolLM3Model,
            "sequence": SmolLM3ForSequenceClassification,
            "token": SmolLM3ForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=cached,
    ),
)
