"""BLOOM (Le Scao et al. 2022): ALiBi, a norm on the embedding, q, k and v interleaved head by head."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    BLOCK,
    decoder_classes,
    decoder_heads,
    fused_qkv,
    layers,
    one_stack,
    special_tokens,
    width,
)
from clearhead.checkpoint.config_rules import Convert, Foreign, Ignored, Only, Value, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places
from clearhead.checkpoint.rules import Same, both
from clearhead.errors import UnknownKeyError
from clearhead.model.config import (
    ALiBi,
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    LayerNorm,
    ModelConfig,
    StackConfig,
)

DROPOUT = ("classifier_dropout", "hidden_dropout")


def _read_slices(foreign: Foreign) -> Places:
    if foreign.flag("slow_but_exact", False) and (slices := foreign.whole("pretraining_tp", 1)) > 1:
        raise UnknownKeyError(
            f"{foreign.where}: slow_but_exact=True with pretraining_tp={slices} cannot be run: summed in slices, the "
            "outputs lose their biases in transformers, and no published BLOOM asks for it."
        )
    return {}


BLOOM = Family(
    model_type="bloom",
    template=ModelConfig(
        vocab_size=250_880,
        d_model=64,
        context=2048,
        decoder=StackConfig(
            n_layers=2,
            attention=AttentionConfig(n_heads=8),
            feedforward=FeedForwardConfig(d_ff=256, activation="gelu_tanh"),
            position=ALiBi(),
        ),
        embedding=EmbeddingConfig(norm=LayerNorm()),
    ),
    prefix="transformer.",
    config=(
        whole("vocab_size", "vocab_size", default=250_880),
        width(("hidden_size", "n_embed"), 64),
        whole("seq_length", "context", default=2048),
        layers(("n_layer", "num_hidden_layers"), 2, "decoder"),
        whole(("n_head", "num_attention_heads"), "decoder.attention.n_heads", default=8),
        number("layer_norm_epsilon", "decoder.norm.eps", "embedding.norm.eps", default=1e-5),
        Value(
            ("apply_residual_connection_post_layernorm",),
            ("decoder.norm_place",),
            lambda foreign, key: "input" if foreign.flag(key) else "before",
            lambda place: place == "input",
        ),
        number("hidden_dropout", "decoder.dropout", default=0.0),
        number("attention_dropout", "decoder.attention.dropout", default=0.0),
        number("initializer_range", "init.std", default=0.02),
        *special_tokens(bos=1, eos=2),
        *one_stack(decoder=True),
        decoder_classes("Bloom", tied=True, table="word_embeddings.weight", dropout_keys=DROPOUT),
        Convert(("slow_but_exact", "pretraining_tp"), _read_slices, lambda config: {}),
        Only("n_inner", (None,), "the feed-forward of BLOOM is four times as wide as the model"),
        Ignored("offset_alibi", "the length of a table of ALiBi's that is worked out here"),
        Ignored("attention_softmax_in_fp32", "softmax is in float32 anyway"),
        Ignored("*_fusion", "it chooses a kernel, not what is computed"),
        Ignored("skip_bias_add*", "it tells training where a bias is added, not whether"),
    ),
    weights=(
        Same("word_embeddings.weight", "decoder.embedding.tokens.weight"),
        *both("word_embeddings_layernorm", "decoder.embedding.norm"),
        *both("h.{layer}.input_layernorm", f"{BLOCK}.attention_norm.before"),
        *fused_qkv("h.{layer}.self_attention.query_key_value"),
        *both("h.{layer}.self_attention.dense", f"{BLOCK}.attention.o_proj"),
        *both("h.{layer}.post_attention_layernorm", f"{BLOCK}.feedforward_norm.before"),
        *both("h.{layer}.mlp.dense_h_to_4h", f"{BLOCK}.feedforward.up"),
        *both("h.{layer}.mlp.dense_4h_to_h", f"{BLOCK}.feedforward.down"),
        *both("ln_f", "decoder.norm"),
    ),
    heads=decoder_heads("word_embeddings.weight"),
)

FAMILIES = (BLOOM,)
