"""GPT-NeoX (Black et al. 2022), Pythia: a parallel residual, a quarter of each head turning, LayerNorm, untied."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    ATTENTION_BIASES,
    BLOCK,
    LAYER,
    decoder_classes,
    decoder_heads,
    decoder_sizes,
    fused_qkv,
    rotary_buffers,
    special_tokens,
    with_decoder,
)
from clearhead.checkpoint.config_rules import Ignored, Value, flag, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.rules import IgnoredTensor, Same, both
from clearhead.model import presets
from clearhead.model.config import Parallel, Rotary, Sequential

OLD_ROPE = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}

GPT_NEOX = Family(
    model_type="gpt_neox",
    template=with_decoder(presets.gpt2(), position=Rotary(fraction=0.25)),
    prefix="gpt_neox.",
    config=(
        *decoder_sizes(
            vocab_size=50_432,
            d_model=6144,
            context=2048,
            n_layers=44,
            d_ff=24_576,
            activation="gelu",
            eps=1e-5,
            eps_key="layer_norm_eps",
        ),
        whole("num_attention_heads", "decoder.attention.n_heads", default=64),
        Rope("decoder.position", fraction=0.25, old=OLD_ROPE),
        flag("attention_bias", *ATTENTION_BIASES, default=True),
        Value(
            ("use_parallel_residual",),
            ("decoder.residual",),
            lambda foreign, key: Parallel() if foreign.flag(key, True) else Sequential(),
            lambda residual: residual == Parallel(),
        ),
        number("hidden_dropout", "decoder.dropout", "embedding.dropout", default=0.0),
        *special_tokens(bos=0, eos=2),
        decoder_classes("GPTNeoX", tied=False, output="embed_out.weight", table="embed_in.weight"),
        Ignored("attention_probs_dropout_prob", "what transformers once called a dropout; only training drops"),
        Ignored("hidden_dropout_prob", "what transformers once called a dropout; only training drops"),
    ),
    weights=(
        Same("embed_in.weight", "decoder.embedding.tokens.weight"),
        *both(f"{LAYER}.input_layernorm", f"{BLOCK}.attention_norm.before"),
        *fused_qkv(f"{LAYER}.attention.query_key_value"),
        *both(f"{LAYER}.attention.dense", f"{BLOCK}.attention.o_proj"),
        *both(f"{LAYER}.post_attention_layernorm", f"{BLOCK}.feedforward_norm.before"),
        *both(f"{LAYER}.mlp.dense_h_to_4h", f"{BLOCK}.feedforward.up"),
        *both(f"{LAYER}.mlp.dense_4h_to_h", f"{BLOCK}.feedforward.down"),
        *both("final_layer_norm", "decoder.norm"),
        *rotary_buffers(f"{LAYER}.attention"),
        IgnoredTensor(f"{LAYER}.attention.bias", "the causal mask, which is a rule here"),
        IgnoredTensor(f"{LAYER}.attention.masked_bias", "the number that stands for −∞ in the mask"),
    ),
    heads=decoder_heads("embed_in.weight", output="embed_out.weight"),
)

FAMILIES = (GPT_NEOX,)
