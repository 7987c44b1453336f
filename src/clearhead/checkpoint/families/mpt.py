"""MPT (MosaicML 2023): ALiBi, q, k and v fused and clipped, and not one bias, not even in the norms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearhead.checkpoint.common import (
    BLOCK,
    COMMON,
    decoder_classes,
    decoder_heads,
    layers,
    one_stack,
    special_tokens,
    width,
)
from clearhead.checkpoint.config_rules import Convert, Foreign, Ignored, Nested, Only, number, optional_number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rules import Same, Split, both
from clearhead.model.config import (
    ALiBi,
    AttentionConfig,
    Biases,
    FeedForwardConfig,
    LayerNorm,
    ModelConfig,
    StackConfig,
)

EIGHT = 8
"""The power of two that slopes go down to in transformers, whatever the file says."""
CLIP, DROPOUT = "decoder.attention.clip", "decoder.attention.dropout"


def _read_slopes(foreign: Foreign) -> Places:
    power = foreign.whole("alibi_bias_max", EIGHT)
    if power != EIGHT:
        foreign.notes.append(
            f"{foreign.where}: alibi_bias_max={power} is run as the file says; transformers runs {EIGHT} all the same"
        )
    return {"decoder.position": ALiBi(max_bias=float(power))}


def _clip(foreign: Foreign, key: str) -> float | None:
    return foreign.optional_number(key) or None  # 0 means none


def _write_slopes(config: ModelConfig) -> dict[str, Any]:
    position = get(config, "decoder.position")
    return {"alibi_bias_max": int(position.max_bias)} if isinstance(position, ALiBi) else {}


_ATTENTION = (
    # Written as floats, or not at all: transformers 5 refuses MosaicML's `"clip_qkv": 6`, and `"attn_pdrop": 0.1`.
    replace(optional_number("softmax_scale", "decoder.attention.scale"), verbatim=False),
    replace(optional_number("clip_qkv", CLIP), reader=_clip, verbatim=False),
    Convert(("alibi_bias_max",), _read_slopes, _write_slopes),
    Convert(
        ("attn_pdrop",), lambda foreign: {DROPOUT: foreign.number("attn_pdrop", 0.0)}, lambda _: {}, verbatim=False
    ),
    Only("alibi", (True,), "transformers and every published MPT tell order by ALiBi"),
    Only("attn_type", ("multihead_attention",), "transformers and every published MPT have keys for each head"),
    Only("qk_ln", (False,), "transformers does not run it, and no published MPT has it"),
    Only("prefix_lm", (False,), "transformers does not run it, and no published MPT has it"),
    Ignored("attn_impl", "it chooses a kernel, not what is computed"),
    Ignored("attn_uses_sequence_id", "it speaks of packed texts; give `documents`, which are always kept apart"),
    *(Ignored(key, "the model's own stands outside") for key in ("architectures", "id2label")),
    Only("is_encoder_decoder", (False,), "the model would be half of an encoder-decoder"),
    *COMMON,
)

MPT = Family(
    model_type="mpt",
    template=ModelConfig(
        vocab_size=50_368,
        d_model=2048,
        context=2048,
        decoder=StackConfig(
            n_layers=24,
            attention=AttentionConfig(n_heads=16, bias=Biases.none()),
            feedforward=FeedForwardConfig(d_ff=8192, activation="gelu", bias=False),
            position=ALiBi(),
            norm=LayerNorm(bias=False),
        ),
    ),
    prefix="transformer.",
    config=(
        whole("vocab_size", "vocab_size", default=50_368),
        width("d_model", 2048),
        whole("max_seq_len", "context", default=2048),
        layers("n_layers", 24, "decoder"),
        whole("n_heads", "decoder.attention.n_heads", default=16),
        number("layer_norm_epsilon", "decoder.norm.eps", default=1e-5),
        Nested("attn_config", _ATTENTION),
        number("resid_pdrop", "decoder.dropout", default=0.0),
        number("emb_pdrop", "embedding.dropout", default=0.0),
        number("initializer_range", "init.std", default=0.02),
        *special_tokens(),
        *one_stack(decoder=True),
        decoder_classes("Mpt", tied=True, table="wte.weight", also=("MPTForCausalLM",)),  # MosaicML's own name
        Only("expansion_ratio", (4,), "the feed-forward of transformers' MPT is four times as wide as the model"),
        Only("no_bias", (True,), "transformers and every published MPT do without"),
        Only("logit_scale", (None,), "transformers does not run it, and no published MPT has it"),
        Only("norm_type", ("low_precision_layernorm", "layernorm"), "transformers and every published MPT have these"),
        Ignored("learned_pos_emb", "no table is made beside ALiBi"),
        Ignored("embedding_fraction", "it scales gradients"),
        Ignored("init_*", "it speaks of how weights begin, or where"),
        *(Ignored(key, "it speaks of training or of files") for key in ("verbose", "tokenizer_name")),
    ),
    weights=(
        Same("wte.weight", "decoder.embedding.tokens.weight"),
        *both("blocks.{layer}.norm_1", f"{BLOCK}.attention_norm.before"),
        Split("blocks.{layer}.attn.Wqkv.weight", tuple(f"{BLOCK}.attention.{name}_proj.weight" for name in "qkv")),
        *both("blocks.{layer}.attn.out_proj", f"{BLOCK}.attention.o_proj"),
        *both("blocks.{layer}.norm_2", f"{BLOCK}.feedforward_norm.before"),
        *both("blocks.{layer}.ffn.up_proj", f"{BLOCK}.feedforward.up"),
        *both("blocks.{layer}.ffn.down_proj", f"{BLOCK}.feedforward.down"),
        *both("norm_f", "decoder.norm"),
    ),
    heads=decoder_heads("wte.weight"),
)

FAMILIES = (MPT,)
