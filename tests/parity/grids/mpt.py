"""MPT."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    MptConfig,
    MptForCausalLM,
    MptForSequenceClassification,
    MptForTokenClassification,
    MptModel,
)

from tests.parity.grids import Grid
from tests.parity.support import PAD


@st.composite
def configs(draw: st.DrawFn) -> MptConfig:
    heads = draw(st.sampled_from([1, 2, 3, 4, 6]))
    attention: dict[str, Any] = {
        "clip_qkv": draw(st.sampled_from([None, 0.2, 6.0])),
        "softmax_scale": draw(st.sampled_from([None, 0.7])),
        "attn_uses_sequence_id": draw(st.booleans()),
        "attn_impl": draw(st.sampled_from(["torch", "flash", "triton"])),
    }
    return MptConfig(
        vocab_size=draw(st.integers(11, 40)),
        d_model=heads * draw(st.sampled_from([4, 8])),
        n_heads=heads,
        n_layers=draw(st.integers(1, 3)),
        max_seq_len=draw(st.integers(9, 20)),
        layer_norm_epsilon=draw(st.sampled_from([1e-5, 1e-3])),
        attn_config=attention,
        resid_pdrop=draw(st.sampled_from([0.0, 0.2])),
        emb_pdrop=draw(st.sampled_from([0.0, 0.1])),
        norm_type=draw(st.sampled_from(["low_precision_layernorm", "layernorm"])),
        learned_pos_emb=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
        bos_token_id=draw(st.sampled_from([None, 1])),
        eos_token_id=draw(st.sampled_from([None, 2, [2, 3]])),
    )


def small() -> MptConfig:
    sizes = {"d_model": 12, "n_heads": 3, "n_layers": 2, "max_seq_len": 16}
    return MptConfig(vocab_size=20, attn_config={"clip_qkv": 0.5}, pad_token_id=PAD, **sizes)


GRIDS = (
    Grid(
        family="mpt",
        configs=configs(),
        classes={
            "lm": MptForCausalLM,
            "base": MptModel,
            "sequence": MptForSequenceClassification,
            "token": MptForTokenClassification,
        },
        small=small,
    ),
)
