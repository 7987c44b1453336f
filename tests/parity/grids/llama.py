"""Llama."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)

from tests.parity.grids import Grid
from tests.parity.support import PAD


def ropes(half: int) -> st.SearchStrategy[dict[str, Any]]:
    """Every scaling; the texts of the tests are 9 long, so that some pass the original context."""
    factors = st.lists(st.floats(1.0, 4.0), min_size=half, max_size=half)
    original = {"original_max_position_embeddings": st.integers(6, 16)}
    factor = {"factor": st.sampled_from([1.5, 2.0, 4.0])}
    kind = st.just
    dynamic = st.fixed_dictionaries({"rope_type": kind("dynamic"), **factor})
    return st.one_of(
        st.fixed_dictionaries({"rope_type": kind("default")}),
        st.fixed_dictionaries({"rope_type": kind("linear"), **factor}),
        *([dynamic] if half > 1 else []),  # of one pair transformers divides by zero
        st.fixed_dictionaries(
            {
                "rope_type": kind("llama3"),
                "low_freq_factor": kind(1.0),
                "high_freq_factor": st.sampled_from([2.0, 4.0]),
                **factor,
                **original,
            }
        ),
        st.fixed_dictionaries(
            {"rope_type": kind("yarn"), **factor, **original},
            optional={
                "beta_fast": kind(16.0),
                "attention_factor": kind(1.2),
                "mscale": kind(0.7),
                "mscale_all_dim": kind(0.9),
                "truncate": st.booleans(),
            },
        ),
        st.fixed_dictionaries(
            {"rope_type": kind("longrope"), "short_factor": factors, "long_factor": factors, **original},
            optional={"factor": kind(3.0), "attention_factor": kind(1.1)},
        ),
    )


def shared(
    draw: st.DrawFn, *, even: bool = False, head_dims: tuple[int | None, ...] = (None, 4, 8, 12)
) -> dict[str, Any]:
    """The keys that Llama and its kin spell alike. even: heads divide the width, though the head's own is given."""
    kv_heads = draw(st.sampled_from([1, 2]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3]))
    head_dim = draw(st.sampled_from(head_dims))
    width = heads * draw(st.sampled_from([4, 8])) if even or head_dim is None else draw(st.sampled_from([10, 16]))
    rope = draw(ropes((head_dim or width // heads) // 2))
    more = {"head_dim": head_dim} if head_dim is not None else {}
    return {
        "vocab_size": draw(st.integers(11, 40)),
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from([kv_heads, heads, None])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "intermediate_size": draw(st.sampled_from([12, 40])),
        "max_position_embeddings": draw(st.sampled_from([8, 24])),
        "hidden_act": draw(st.sampled_from(["silu", "gelu_pytorch_tanh", "relu"])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "attention_dropout": draw(st.sampled_from([0.0, 0.2])),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": {"rope_theta": draw(st.sampled_from([100.0, 10_000.0, 500_000.0])), **rope},
        "num_labels": draw(st.integers(1, 4)),
        "pad_token_id": PAD,
        "bos_token_id": draw(st.sampled_from([None, 1])),
        "eos_token_id": draw(st.sampled_from([None, 2, [2, 3]])),
        **more,
    }


@st.composite
def configs(draw: st.DrawFn) -> LlamaConfig:
    return LlamaConfig(attention_bias=draw(st.booleans()), mlp_bias=draw(st.booleans()), **shared(draw, even=True))


SMALL: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
}
"""The keys of a model small enough to be kept."""


def small(**more: Any) -> LlamaConfig:
    return LlamaConfig(**{**SMALL, **more})


def by_length(config: Any) -> bool:
    """With these two, angles depend on the text's length. transformers takes that of the longest text in the batch,
    and keeps keys as they were turned when the text was shorter; here a text reads the same in any company."""
    return config.rope_parameters["rope_type"] in ("dynamic", "longrope")


def cached(config: Any) -> bool:
    """Nor does the cache of a window of 1 give what is had without: it keeps the last 0 keys, and [-0:] is all."""
    return not by_length(config) and getattr(config, "sliding_window", None) != 1


GRIDS = (
    Grid(
        family="llama",
        configs=configs(),
        classes={
            "lm": LlamaForCausalLM,
            "base": LlamaModel,
            "sequence": LlamaForSequenceClassification,
            "token": LlamaForTokenClassification,
        },
        small=small,
        alone=by_length,
        cached=cached,
        examples=30,
    ),
)
