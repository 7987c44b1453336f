"""Gemma (2024): Llama's block with tanh-GELU, norms that multiply by 1 + w, and embeddings times √d_model."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    ACTIVATIONS,
    ATTENTION_BIASES,
    LLAMA_HEADS,
    LLAMA_WEIGHTS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    special_tokens,
)
from clearhead.checkpoint.config_rules import Convert, Foreign, flag, shown
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.gemma_like import ONE_WAY, TEMPLATE, embedding_scale
from clearhead.checkpoint.places import Places
from clearhead.checkpoint.rotary import Rope
from clearhead.errors import UnknownKeyError

# The first releases said "gelu", and meant the tanh approximation that they were trained with.
_ACTIVATIONS = {**ACTIVATIONS, "gelu": ACTIVATIONS["gelu_pytorch_tanh"]}


def _read_other_spelling(foreign: Foreign) -> Places:
    """`hidden_activation`, which some versions of transformers read before `hidden_act` and others not at all."""
    if foreign.get("hidden_activation") is not None:
        one, other = foreign.text("hidden_act", "gelu_pytorch_tanh"), foreign.text("hidden_activation")
        if _ACTIVATIONS.get(one) != _ACTIVATIONS.get(other):
            says = f"hidden_act={shown(one)} and hidden_activation={shown(other)}"
            raise UnknownKeyError(f"{foreign.where}: {says} disagree; remove the wrong one.")
    return {}


GEMMA = Family(
    model_type="gemma",
    template=TEMPLATE,
    prefix="model.",
    config=(
        *decoder_sizes(
            vocab_size=256_000,
            d_model=3072,
            context=8192,
            n_layers=28,
            d_ff=24_576,
            activation="gelu_pytorch_tanh",
            activations=_ACTIVATIONS,
        ),
        Convert(("hidden_activation",), _read_other_spelling, lambda _: {}),
        embedding_scale(3072),
        grouped_heads("decoder.attention", default=16, kv_heads=16, head_dim=256),
        Rope("decoder.position"),
        flag("attention_bias", *ATTENTION_BIASES, default=False),
        *special_tokens(pad=0, bos=2, eos=1),
        decoder_classes("Gemma", tied=True),
        ONE_WAY,
    ),
    weights=LLAMA_WEIGHTS,
    heads=LLAMA_HEADS,
)

FAMILIES = (GEMMA,)
