"""T5 (Raffel et al. 2020) and mT5 (Xue et al. 2021): order told by a bias alone, scores and norms of the plainest kind.

The first T5 scores words by its table; T5 1.1, Flan-T5 and mT5 have a matrix for that, and gate their feed-forward.
"""

from __future__ import annotations

from clearhead.checkpoint.common import special_tokens
from clearhead.checkpoint.config_rules import Only, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.rules import Copy, IgnoredTensor, Row, Same, When, both, with_head
from clearhead.checkpoint.t5_like import (
    T5_BUCKETS,
    T5_HALF,
    T5_TEMPLATE,
    T5Heads,
    in_attentions,
    in_each,
    t5_classes,
    t5_feedforward,
    t5_layers,
)
from clearhead.model.config import (
    LanguageModel,
    ModelConfig,
    SentenceEmbedding,
    SequenceClassification,
    TokenClassification,
)

BIAS = "relative_attention_bias.weight"
DROPOUTS = (*in_each("dropout"), *in_each("feedforward.dropout"), *in_attentions("dropout"), "embedding.dropout")


def _gated(config: ModelConfig) -> bool:
    return config.encoder is not None and config.encoder.feedforward_of(0).gated


def _tied_unscaled(config: ModelConfig) -> bool:
    return isinstance(config.head, LanguageModel) and config.head.tied and config.head.scale is None


def _stack(stack: str, *branches: tuple[str, str]) -> tuple[Row, ...]:
    """The tensors of a stack whose blocks have these branches of attention, and a feed-forward after them."""
    theirs, ours = f"{stack}.block.{{layer}}.layer", f"{stack}.blocks.{{layer}}"
    rows: list[Row] = []
    for place, (name, branch) in enumerate(branches):
        layer, norm = f"{theirs}.{place}", f"{branch.removesuffix('_attention')}_norm"
        rows += [Same(f"{layer}.{name}.{x}.weight", f"{ours}.{branch}.{x}_proj.weight") for x in "qkvo"]
        rows.append(Same(f"{layer}.layer_norm.weight", f"{ours}.{norm}.before.weight"))
    layer = f"{theirs}.{len(branches)}"
    return (
        *rows,
        Same(f"{layer}.DenseReluDense.wi_0.weight", f"{ours}.feedforward.gate.weight"),
        When(_gated, Same(f"{layer}.DenseReluDense.wi_1.weight", f"{ours}.feedforward.up.weight")),
        Same(f"{layer}.DenseReluDense.wi.weight", f"{ours}.feedforward.up.weight"),
        Same(f"{layer}.DenseReluDense.wo.weight", f"{ours}.feedforward.down.weight"),
        Same(f"{layer}.layer_norm.weight", f"{ours}.feedforward_norm.before.weight"),
        Same(f"{stack}.block.0.layer.0.SelfAttention.{BIAS}", f"{stack}.bias.weight"),
        Same(f"{stack}.final_layer_norm.weight", f"{stack}.norm.weight"),
        Copy(f"{stack}.embed_tokens.weight", of="shared.weight"),
    )


WEIGHTS: tuple[Row, ...] = (
    Same("shared.weight", "encoder.embedding.tokens.weight"),
    *_stack("encoder", ("SelfAttention", "attention")),
    *_stack("decoder", ("SelfAttention", "attention"), ("EncDecAttention", "cross_attention")),
    IgnoredTensor(f"decoder.block.0.layer.1.EncDecAttention.{BIAS}", "cross-attention has no positions to tell"),
    When(lambda config: config.decoder is None, IgnoredTensor("decoder.*", "the class is the encoder alone")),
)

HEADS: tuple[Row, ...] = (
    Same("lm_head.weight", "head.weight"),
    When(_tied_unscaled, Copy("lm_head.weight", of="shared.weight", written=True)),
    Copy("lm_head.weight", of="shared.weight"),
    with_head(
        SequenceClassification,
        *both("classification_head.dense", "head.dense"),
        *both("classification_head.out_proj", "head.classify"),
    ),
    with_head(TokenClassification, *both("classifier", "head.classify")),
)


def _family(model_type: str, classes: T5Heads, *, feedforward: str, **sizes: int) -> Family:
    """One of the two, with its defaults."""
    return Family(
        model_type=model_type,
        template=T5_TEMPLATE,
        prefix="transformer.",
        bare=(LanguageModel, SentenceEmbedding),
        config=(
            whole("vocab_size", "vocab_size", default=sizes["vocab_size"]),
            whole("d_model", "d_model", default=512),
            whole("n_positions", "context", default=512),
            whole("d_kv", *in_attentions("d_head"), default=64),
            whole("num_heads", *in_attentions("n_heads"), default=sizes["n_heads"]),
            whole("d_ff", *in_each("feedforward.d_ff"), default=sizes["d_ff"]),
            t5_layers(sizes["n_layers"]),
            t5_feedforward(feedforward),
            T5_BUCKETS,
            number("layer_norm_epsilon", *in_each("norm.eps"), default=1e-6),
            number("dropout_rate", *DROPOUTS, default=0.1),
            number("initializer_factor", "init.factor?", default=1.0),
            *special_tokens(pad=0, eos=1, start=0),
            classes,
            T5_HALF,
            Only("is_decoder", (False,), "half of an encoder-decoder is not read"),
            Only("add_cross_attention", (False,), "half of an encoder-decoder is not read"),
        ),
        weights=WEIGHTS,
        heads=HEADS,
        encoder_alone=True,
    )


SIZES = {"vocab_size": 32_128, "d_ff": 2048, "n_layers": 6, "n_heads": 8}
T5 = _family("t5", t5_classes("T5", scales=True, old=("T5WithLMHeadModel",)), feedforward="relu", **SIZES)
LARGER = {"vocab_size": 250_112, "d_ff": 1024, "n_layers": 8, "n_heads": 6}
MT5 = _family("mt5", t5_classes("MT5", scales=False), feedforward="gated-gelu", **LARGER)

FAMILIES = (T5, MT5)
