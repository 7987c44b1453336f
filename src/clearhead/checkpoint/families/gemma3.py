"""Gemma 3, its text (2025): Gemma 2 with normed queries and keys; of six layers five are local, and turn faster."""

from __future__ import annotations

from dataclasses import replace

from clearhead.checkpoint.common import (
    ATTENTION_BIASES,
    LLAMA_HEADS,
    decoder_sizes,
    grouped_heads,
    layer_windows,
    qk_norms,
    special_tokens,
)
from clearhead.checkpoint.config_rules import ConfigRow, Convert, Ignored, Only, flag, optional_number
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.gemma_like import (
    OTHER_ACTIVATION,
    TEMPLATE,
    WEIGHTS,
    InEncoder,
    RopeByKind,
    also_in_encoder,
    embedding_scale,
    in_encoder,
    is_local,
    query_scale,
)
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.places import fill
from clearhead.model.config import LanguageModel, QKNorm, RMSNorm, SequenceClassification

N_LAYERS = 26
BOTH_WAYS = "use_bidirectional_attention"
PATTERN = ("sliding_window_pattern",)

TEXT = fill(TEMPLATE, {"decoder.norm_place": "both", "decoder.attention.qk_norm": QKNorm(norm=RMSNorm(plus_one=True))})

ROWS: tuple[ConfigRow, ...] = (
    *decoder_sizes(
        vocab_size=262_208,
        d_model=2304,
        context=131_072,
        n_layers=N_LAYERS,
        d_ff=9216,
        activation="gelu_pytorch_tanh",
        activation_key="hidden_activation",
        norms=("decoder.norm", "decoder.attention.qk_norm.norm"),
    ),
    embedding_scale(2304),
    grouped_heads("decoder.attention", default=8, kv_heads=4, head_dim=256, even=True),
    query_scale(),
    RopeByKind(N_LAYERS),
    flag("attention_bias", *ATTENTION_BIASES, default=False),
    optional_number("final_logit_softcapping", "head.softcap?"),
    *special_tokens(pad=0, bos=2, eos=1),
    Only("attn_logit_softcapping", (None,), "queries and keys are normed instead, and transformers caps no scores"),
    Ignored("_sliding_window_pattern", "layer_types says which layers are global"),
    OTHER_ACTIVATION,
)

CLASSES = {
    "Gemma3TextModel": Architecture(),
    "Gemma3TextForSequenceClassification": Architecture(
        head=SequenceClassification(labels=UNNAMED, pooling="last", bias=False), dropout=False
    ),
}
WRITER = {"Gemma3ForCausalLM": Architecture(head=LanguageModel())}

ENCODER = Family(
    model_type="gemma3_text",
    template=replace(TEXT, encoder=TEXT.decoder, decoder=None, head=None),
    prefix="model.",
    config=(
        *in_encoder(ROWS),
        InEncoder(layer_windows(n_layers=N_LAYERS, window=4096, local=is_local, keys=PATTERN, sides=2)),
        Convert((BOTH_WAYS,), lambda _: {}, lambda _: {BOTH_WAYS: True}),
        Heads(architectures=CLASSES, default="Gemma3TextModel", tied=True, table="embed_tokens.weight"),
    ),
    weights=also_in_encoder((*WEIGHTS, *qk_norms())),
    heads=LLAMA_HEADS,
)

GEMMA3_TEXT = Family(
    model_type="gemma3_text",
    template=TEXT,
    prefix="model.",
    config=(
        *ROWS,
        layer_windows(n_layers=N_LAYERS, window=4096, local=is_local, keys=PATTERN),
        Only(BOTH_WAYS, (False, None), "it is true or false"),
        Heads(architectures=WRITER | CLASSES, default="Gemma3ForCausalLM", tied=True, table="embed_tokens.weight"),
    ),
    weights=ENCODER.weights,
    heads=LLAMA_HEADS,
    instead=(BOTH_WAYS, ENCODER),
)

FAMILIES = (GEMMA3_TEXT,)
