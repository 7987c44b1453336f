"""T5 and mT5."""

from __future__ import annotations

from typing import Any

import transformers
from hypothesis import strategies as st
from transformers import MT5Config, T5Config

from tests.parity.grids import Grid
from tests.parity.support import PAD

KINDS = {
    "seq2seq": "ForConditionalGeneration",
    "base": "Model",
    "encoder": "EncoderModel",
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
}


@st.composite
def configs(draw: st.DrawFn, cls: Any) -> Any:
    exact = draw(st.sampled_from([4, 8, 32]))
    activation = draw(st.sampled_from(["relu", "gelu", "gelu_new", "silu"]))
    return cls(
        vocab_size=draw(st.integers(11, 40)),
        d_model=draw(st.sampled_from([8, 13, 24])),
        d_kv=draw(st.sampled_from([3, 8])),
        num_heads=draw(st.sampled_from([1, 2, 3])),
        d_ff=draw(st.sampled_from([12, 40])),
        num_layers=draw(st.integers(1, 3)),
        num_decoder_layers=draw(st.sampled_from([None, 1, 2])),
        relative_attention_num_buckets=exact,
        relative_attention_max_distance=draw(st.sampled_from([exact, 128])),
        feed_forward_proj=draw(st.sampled_from(["", "gated-"])) + activation,
        layer_norm_epsilon=draw(st.sampled_from([1e-6, 1e-3])),
        dropout_rate=draw(st.sampled_from([0.0, 0.1])),
        classifier_dropout=draw(st.sampled_from([0.0, 0.2])),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=PAD,
        eos_token_id=draw(st.sampled_from([1, 2])),
        decoder_start_token_id=draw(st.sampled_from([PAD, 3])),
    )


def small(cls: Any) -> Any:
    sizes = {"d_model": 8, "d_kv": 3, "num_heads": 2, "d_ff": 12, "num_layers": 2, "num_decoder_layers": 1}
    return cls(vocab_size=20, decoder_start_token_id=PAD, relative_attention_num_buckets=8, **sizes)


def spare(config: Any, kind: str) -> tuple[str, ...]:
    """Tied and not scaled, as transformers 5 makes of tie_word_embeddings=False: version 4 wants the matrix twice."""
    scaled = getattr(config, "scale_decoder_outputs", False)
    return ("lm_head.weight",) if kind == "seq2seq" and not scaled else ()


def grid(family: str, name: str, cls: Any) -> Grid:
    return Grid(
        family=family,
        configs=configs(cls),
        classes={kind: getattr(transformers, name + ending) for kind, ending in KINDS.items()},
        small=lambda: small(cls),
        spare=spare,
    )


GRIDS = (grid("t5", "T5", T5Config), grid("mt5", "MT5", MT5Config))
