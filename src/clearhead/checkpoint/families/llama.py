"""Llama (Touvron et al. 2023): rotary positions, RMSNorm before each branch, gated SiLU, grouped queries."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    ATTENTION_BIASES,
    LLAMA_HEADS,
    LLAMA_WEIGHTS,
    decoder_classes,
    decoder_sizes,
    grouped_heads,
    special_tokens,
)
from clearhead.checkpoint.config_rules import Ignored, Only, flag
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.rotary import Rope
from clearhead.model import presets

LLAMA = Family(
    model_type="llama",
    template=presets.llama(),
    prefix="model.",
    config=(
        *decoder_sizes(vocab_size=32_000, d_model=4096, context=2048, n_layers=32, d_ff=11_008),
        grouped_heads("decoder.attention", default=32, even=True),
        Rope("decoder.position"),
        flag("attention_bias", *ATTENTION_BIASES, default=False),
        flag("mlp_bias", "decoder.feedforward.bias", default=False),
        *special_tokens(bos=1, eos=2),
        decoder_classes("Llama", tied=False),
        Only(
            "rope_interleaved",
            (False, None),
            "its files were converted so that a pair of widths lies half a head apart",
        ),
        Ignored("is_llama_config", "it says what model_type says"),
        Ignored("max_sequence_length", "max_position_embeddings is the context"),
        Ignored("pretraining_tp", "it cuts the matrices into pieces, and the products are the same"),
    ),
    weights=LLAMA_WEIGHTS,
    heads=LLAMA_HEADS,
)

FAMILIES = (LLAMA,)
