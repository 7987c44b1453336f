"""OLMo 2."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo2ForSequenceClassification,
    Olmo2Model,
)

from tests.parity.grids import Grid
from tests.parity.grids.llama import SMALL, by_length, cached, shared
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> Olmo2Config:
    return Olmo2Config(attention_bias=draw(st.booleans()), **shared(draw))


def small(**more: Any) -> Olmo2Config:
    return Olmo2Config(**{**SMALL, "pad_token_id": PAD, "eos_token_id": 2, **more})


GRIDS = (
    Grid(
        family="olmo2",
        configs=configs(),
        classes={
            "lm": Olmo2ForCausalLM,
            "base": Olmo2Model,
            "sequence": Olmo2ForSequenceClassification,
        },
        small=small,
        alone=by_length,
        cached=cached,
        older=lambda config: config.rope_parameters["rope_type"] in ("default", "linear", "dynamic"),
    ),
)
