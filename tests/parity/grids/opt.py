"""OPT."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import OPTConfig, OPTForCausalLM, OPTForSequenceClassification, OPTModel

from tests.parity.grids import Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> OPTConfig:
    heads = draw(st.sampled_from([1, 2, 4]))
    width = heads * draw(st.sampled_from([4, 8]))
    return OPTConfig(
        vocab_size=draw(st.integers(11, 40)),
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=draw(st.integers(1, 3)),
        ffn_dim=draw(st.sampled_from([12, 40])),
        max_position_embeddings=draw(st.integers(9, 20)),
        activation_function=draw(st.sampled_from(["relu", "gelu", "silu"])),
        do_layer_norm_before=draw(st.booleans()),
        _remove_final_layer_norm=draw(st.booleans()),
        word_embed_proj_dim=draw(st.sampled_from([None, width, 6, 36])),
        enable_bias=draw(st.booleans()),
        layer_norm_elementwise_affine=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=draw(st.sampled_from([2, [2, 3]])),
    )


def small(**more: Any) -> OPTConfig:
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 2, "ffn_dim": 12, "word_embed_proj_dim": 6}
    return OPTConfig(num_hidden_layers=2, max_position_embeddings=12, pad_token_id=PAD, **sizes | more)


GRIDS = (
    Grid(
        family="opt",
        configs=configs(),
        classes={"lm": OPTForCausalLM, "base": OPTModel, "sequence": OPTForSequenceClassification},
        small=small,
    ),
)
