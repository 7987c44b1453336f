"""Gemma 2 (2024): Gemma with a norm on both sides of each branch, capped scores, and every other layer local."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    ATTENTION_BIASES,
    LLAMA_HEADS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    layer_windows,
    special_tokens,
)
from clearhead.checkpoint.config_rules import flag, optional_number
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.gemma_like import (
    ONE_WAY,
    OTHER_ACTIVATION,
    TEMPLATE,
    WEIGHTS,
    embedding_scale,
    query_scale,
)
from clearhead.checkpoint.places import fill
from clearhead.checkpoint.rotary import Rope

GEMMA2 = Family(
    model_type="gemma2",
    template=fill(TEMPLATE, {"decoder.norm_place": "both"}),
    prefix="model.",
    config=(
        *decoder_sizes(
            vocab_size=256_000,
            d_model=2304,
            context=8192,
            n_layers=26,
            d_ff=9216,
            activation="gelu_pytorch_tanh",
            activation_key="hidden_activation",
        ),
        embedding_scale(2304),
        grouped_heads("decoder.attention", default=8, kv_heads=4, head_dim=256, even=True),
        query_scale(),
        layer_windows(n_layers=26, window=4096, local=lambda foreign, layer: layer % 2 == 0),
        Rope("decoder.position"),
        flag("attention_bias", *ATTENTION_BIASES, default=False),
        optional_number("attn_logit_softcapping", "decoder.attention.softcap", default=50.0),
        optional_number("final_logit_softcapping", "head.softcap?", default=30.0),
        *special_tokens(pad=0, bos=2, eos=1),
        decoder_classes("Gemma2", tied=True),
        ONE_WAY,
        OTHER_ACTIVATION,
    ),
    weights=WEIGHTS,
    heads=LLAMA_HEADS,
)

FAMILIES = (GEMMA2,)
