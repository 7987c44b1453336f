"""Llama (Touvron et al. 2023): rotary positions, RMSNorm before each branch, gated SiLU, grouped queries."""

from __future__ import annotations

from clearhead.checkpoint.common import ACTIVATIONS, grouped_heads, layers, one_stack, special_tokens
from clearhead.checkpoint.config_rules import Ignored, choice, flag, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.rules import Copy, Same, both, with_head
from clearhead.checkpoint.rules import Ignored as IgnoredTensor
from clearhead.model import presets
from clearhead.model.config import LanguageModel, SequenceClassification, TokenClassification

BIASES = tuple(f"decoder.attention.bias.{name}" for name in ("q", "k", "v", "out"))
BLOCK = "decoder.blocks.{layer}"
LAYER = "layers.{layer}"

LLAMA = Family(
    model_type="llama",
    template=presets.llama(),
    prefix="model.",
    config=(
        whole("vocab_size", "vocab_size", default=32_000),
        whole("hidden_size", "d_model", default=4096),
        whole("max_position_embeddings", "context", default=2048),
        layers("num_hidden_layers", 32, "decoder"),
        grouped_heads("decoder.attention", default=32, even=True),
        whole("intermediate_size", "decoder.feedforward.d_ff", default=11_008),
        choice("hidden_act", ACTIVATIONS, "decoder.feedforward.activation", default="silu"),
        number("rms_norm_eps", "decoder.norm.eps", default=1e-6),
        Rope("decoder.position"),
        flag("attention_bias", *BIASES, default=False),
        flag("mlp_bias", "decoder.feedforward.bias", default=False),
        number("attention_dropout", "decoder.attention.dropout", default=0.0),
        number("initializer_range", "init.std", default=0.02),
        *special_tokens(bos=1, eos=2),
        *one_stack(decoder=True),
        Heads(
            architectures={
                "LlamaForCausalLM": Architecture(head=LanguageModel()),
                "LlamaModel": Architecture(),
                "LlamaForSequenceClassification": Architecture(
                    head=SequenceClassification(labels=UNNAMED, pooling="last", bias=False), dropout=False
                ),
                "LlamaForTokenClassification": Architecture(head=TokenClassification(labels=UNNAMED)),
            },
            default="LlamaForCausalLM",
            tied=False,
            table="embed_tokens.weight",
        ),
        Ignored("pretraining_tp", "it cuts the matrices into pieces, and the products are the same"),
    ),
    weights=(
        Same("embed_tokens.weight", "decoder.embedding.tokens.weight"),
        *both(f"{LAYER}.input_layernorm", f"{BLOCK}.attention_norm.before"),
        *(row for name in "qkvo" for row in both(f"{LAYER}.self_attn.{name}_proj", f"{BLOCK}.attention.{name}_proj")),
        *both(f"{LAYER}.post_attention_layernorm", f"{BLOCK}.feedforward_norm.before"),
        *(
            row
            for name in ("gate", "up", "down")
            for row in both(f"{LAYER}.mlp.{name}_proj", f"{BLOCK}.feedforward.{name}")
        ),
        Same("norm.weight", "decoder.norm.weight"),
        IgnoredTensor(f"{LAYER}.self_attn.rotary_emb.inv_freq", "rotary frequencies, worked out from the config"),
        IgnoredTensor("rotary_emb.inv_freq", "rotary frequencies, worked out from the config"),
    ),
    heads=(
        Same("lm_head.weight", "head.weight"),
        Copy("lm_head.weight", of="embed_tokens.weight"),
        with_head(SequenceClassification, Same("score.weight", "head.classify.weight")),
        with_head(TokenClassification, *both("score", "head.classify")),
    ),
)

FAMILIES = (LLAMA,)
