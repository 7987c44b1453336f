"""Qwen 2 (Yang et al. 2024), and 1.5 and 2.5: Llama with biases on q, k and v, and a window in the upper layers."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    LLAMA_HEADS,
    LLAMA_WEIGHTS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    special_tokens,
)
from clearhead.checkpoint.config_rules import Only
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import fill
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.windows import from_layer, switched_windows
from clearhead.model import presets
from clearhead.model.config import Biases

QWEN2 = Family(
    model_type="qwen2",
    template=fill(presets.llama(), {"decoder.attention.bias": Biases(out=False)}),
    prefix="model.",
    config=(
        *decoder_sizes(vocab_size=151_936, d_model=4096, context=32_768, n_layers=32, d_ff=22_016),
        grouped_heads("decoder.attention", default=32, kv_heads=32),
        Rope("decoder.position"),
        switched_windows(n_layers=32, window=4096, local=from_layer(28), counted=True),
        *special_tokens(),
        decoder_classes("Qwen2", tied=False),
        Only("use_mrope", (False, None), "positions of images and video are not had"),
    ),
    weights=LLAMA_WEIGHTS,
    heads=LLAMA_HEADS,
)

FAMILIES = (QWEN2,)
