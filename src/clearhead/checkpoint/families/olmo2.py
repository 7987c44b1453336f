"""OLMo 2 (2025): Llama with each branch normalised as it leaves, and q and k over all their heads at once."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    ATTENTION_BIASES,
    BLOCK,
    LAYER,
    LLAMA_HEADS,
    decoder_classes,
    decoder_sizes,
    gated,
    grouped_heads,
    projections,
    qk_norms,
    rotary_buffers,
    special_tokens,
)
from clearhead.checkpoint.config_rules import Only, flag
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import fill
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.rules import Same
from clearhead.model import presets
from clearhead.model.config import QKNorm, RMSNorm

NORM = RMSNorm(round_last=True)

OLMO2 = Family(
    model_type="olmo2",
    template=fill(
        presets.llama(),
        {
            "decoder.norm": NORM,
            "decoder.norm_place": "output",
            "decoder.attention.qk_norm": QKNorm(norm=NORM, over="width"),
        },
    ),
    prefix="model.",
    config=(
        *decoder_sizes(
            vocab_size=50_304,
            d_model=4096,
            context=2048,
            n_layers=32,
            d_ff=11_008,
            eps=1e-5,
            norms=("decoder.norm", "decoder.attention.qk_norm.norm"),
        ),
        grouped_heads("decoder.attention", default=32),
        Rope("decoder.position", kind="type"),
        flag("attention_bias", *ATTENTION_BIASES, default=False),
        *special_tokens(pad=1, eos=50_279),
        decoder_classes("Olmo2", tied=False, tokens=False),
        Only("clip_qkv", (None,), "OLMo 2 clips nothing; OLMo 1 is another model"),
    ),
    weights=(
        Same("embed_tokens.weight", "decoder.embedding.tokens.weight"),
        *projections(),
        *qk_norms(),
        Same(f"{LAYER}.post_attention_layernorm.weight", f"{BLOCK}.attention_norm.after.weight"),
        *gated(),
        Same(f"{LAYER}.post_feedforward_layernorm.weight", f"{BLOCK}.feedforward_norm.after.weight"),
        Same("norm.weight", "decoder.norm.weight"),
        *rotary_buffers(),
    ),
    heads=LLAMA_HEADS,
)

FAMILIES = (OLMO2,)
