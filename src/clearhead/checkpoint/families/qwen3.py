"""Qwen 3 (Yang et al. 2025): Qwen 2 with a norm of q and k within each head, and biases only where a flag asks."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    ATTENTION_BIASES,
    LLAMA_HEADS,
    LLAMA_WEIGHTS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    qk_norms,
    special_tokens,
)
from clearhead.checkpoint.config_rules import flag
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import fill
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.windows import from_layer, switched_windows
from clearhead.model import presets
from clearhead.model.config import QKNorm, RMSNorm

QWEN3 = Family(
    model_type="qwen3",
    template=fill(presets.llama(), {"decoder.attention.qk_norm": QKNorm(norm=RMSNorm())}),
    prefix="model.",
    config=(
        *decoder_sizes(
            vocab_size=151_936,
            d_model=4096,
            context=32_768,
            n_layers=32,
            d_ff=22_016,
            norms=("decoder.norm", "decoder.attention.qk_norm.norm"),
        ),
        grouped_heads("decoder.attention", default=32, kv_heads=32, head_dim=128),
        Rope("decoder.position"),
        flag("attention_bias", *ATTENTION_BIASES, default=False),
        switched_windows(n_layers=32, window=4096, local=from_layer(28), counted=True),
        *special_tokens(),
        decoder_classes("Qwen3", tied=False),
    ),
    weights=(*LLAMA_WEIGHTS, *qk_norms()),
    heads=LLAMA_HEADS,
)

FAMILIES = (QWEN3,)
