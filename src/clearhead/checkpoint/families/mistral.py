"""Mistral (Jiang et al. 2023): Llama with a window, the same in every layer, and heads of any width."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    LLAMA_HEADS,
    LLAMA_WEIGHTS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    special_tokens,
)
from clearhead.checkpoint.config_rules import Only, optional_whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.rotary import Rope
from clearhead.model import presets

MISTRAL = Family(
    model_type="mistral",
    template=presets.llama(),
    prefix="model.",
    config=(
        *decoder_sizes(vocab_size=32_000, d_model=4096, context=131_072, n_layers=32, d_ff=14_336),
        grouped_heads("decoder.attention", default=32, kv_heads=8),
        Rope("decoder.position"),
        optional_whole("sliding_window", "decoder.attention.window", default=4096),
        *special_tokens(bos=1, eos=2),
        decoder_classes("Mistral", tied=False),
        Only("layer_types", (None,), "Mistral's layers all have the one window; where layers differ it is Ministral"),
    ),
    weights=LLAMA_WEIGHTS,
    heads=LLAMA_HEADS,
)

FAMILIES = (MISTRAL,)
