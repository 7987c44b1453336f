"""Falcon (2023): q, k and v fused in groups, two branches behind one norm or two; the first were GPTs with ALiBi."""

from __future__ import annotations

from typing import Any

from clearhead.checkpoint.common import (
    ACTIVATIONS,
    ATTENTION_BIASES,
    BLOCK,
    decoder_classes,
    decoder_heads,
    fused_qkv,
    layers,
    one_stack,
    special_tokens,
    with_decoder,
)
from clearhead.checkpoint.config_rules import Convert, Foreign, Ignored, Only, Value, choice, flag, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rotary import ORIGINAL, Rope
from clearhead.checkpoint.rules import IgnoredTensor, Same, When, both
from clearhead.errors import CheckpointError
from clearhead.model import presets
from clearhead.model.config import ALiBi, ModelConfig, Parallel, Rotary, Sequential

WIDTH = whole(("hidden_size", "n_embed"), "d_model", default=4544)
HEADS = whole(("num_attention_heads", "n_head"), "decoder.attention.n_heads", default=71)
ALIBI = ALiBi(scaled=True, rounded=True)
ROPE = Rope("decoder.position")
SHAPE = ("new_decoder_architecture", "multi_query", "parallel_attn", "num_ln_in_parallel_attn", "num_kv_heads")
DROPOUT = ("classifier_dropout", "hidden_dropout")
LAYER = "h.{layer}"


def _read_inner(foreign: Foreign, key: str) -> int:
    inner = foreign.optional_whole(key)
    return 4 * int(WIDTH.read(foreign)["d_model"]) if inner is None else inner


def _read_shape(foreign: Foreign) -> Places:
    """New: groups of heads, parallel, two norms or one. Old: one key/value head or all, one norm if parallel."""
    heads = HEADS.read(foreign)["decoder.attention.n_heads"]
    new, multi, parallel = (foreign.flag(key, key != SHAPE[0]) for key in SHAPE[:3])
    norms, given = foreign.optional_whole(SHAPE[3]), foreign.optional_whole(SHAPE[4])
    norms = (2 if new else 1) if norms is None else norms
    if new and not parallel:
        raise foreign.bad(SHAPE[2], "true, as it is with new_decoder_architecture")
    if parallel and norms not in ((1, 2) if new else (1,)):
        raise foreign.bad(SHAPE[3], "1 or 2" if new else "1, as the architecture before the new one has")
    if not new and not multi and given not in (None, heads):
        raise foreign.bad(SHAPE[4], f"num_attention_heads={heads}, as without multi_query")
    kv_heads = (heads if given is None else given) if new else 1 if multi else heads
    residual = Parallel(shared_norm=norms == 1) if parallel else Sequential()
    return {"decoder.attention.n_kv_heads": kv_heads, "decoder.residual": residual}


def _write_shape(config: ModelConfig) -> dict[str, Any]:
    if config.decoder is None:
        return {}
    attention, residual = config.decoder.attention_of(0), config.decoder.residual
    old = attention.kv_heads in (1, attention.n_heads) and residual != Parallel()
    if not old and residual == Sequential():
        raise CheckpointError("Falcon has groups of heads in parallel blocks only; choose Parallel().")
    norms = None if old else 2 if residual == Parallel() else 1
    values = (not old, attention.kv_heads == 1, isinstance(residual, Parallel), norms, attention.kv_heads)
    return dict(zip(SHAPE, values, strict=True))


def _two_norms(config: ModelConfig) -> bool:
    return config.decoder is not None and config.decoder.residual == Parallel()


FALCON = Family(
    model_type="falcon",
    template=with_decoder(presets.gpt2(), position=Rotary()),
    prefix="transformer.",
    config=(
        whole("vocab_size", "vocab_size", default=65_024),
        WIDTH,
        whole("max_position_embeddings", "context", default=2048),
        layers(("num_hidden_layers", "n_layer"), 32, "decoder"),
        HEADS,
        Convert(SHAPE, _read_shape, _write_shape),
        Value(("ffn_hidden_size",), ("decoder.feedforward.d_ff",), _read_inner),
        choice("activation", ACTIVATIONS, "decoder.feedforward.activation", default="gelu"),
        number("layer_norm_epsilon", "decoder.norm.eps", default=1e-5),
        Convert(
            ("alibi", *ROPE.keys, ORIGINAL),
            lambda foreign: {"decoder.position": ALIBI} if foreign.flag("alibi", False) else ROPE.read(foreign),
            lambda config: {"alibi": get(config, "decoder.position") == ALIBI, **ROPE.write(config)},
            verbatim=False,
        ),
        flag("bias", *ATTENTION_BIASES, "decoder.feedforward.bias", default=False),
        number("hidden_dropout", "decoder.dropout", default=0.0),
        number("attention_dropout", "decoder.attention.dropout", default=0.0),
        number("initializer_range", "init.std", default=0.02),
        *special_tokens(bos=11, eos=11),
        *one_stack(decoder=True),
        decoder_classes("Falcon", tied=True, table="word_embeddings.weight", dropout_keys=DROPOUT),
        Ignored("ff_factor", "ffn_hidden_size says it, and is read alone"),
        Only("apply_residual_connection_post_layernorm", (False,), "no Falcon normalises the stream itself"),
    ),
    weights=(
        Same("word_embeddings.weight", "decoder.embedding.tokens.weight"),
        When(
            _two_norms,
            *both(f"{LAYER}.ln_attn", f"{BLOCK}.attention_norm.before"),
            *both(f"{LAYER}.ln_mlp", f"{BLOCK}.feedforward_norm.before"),
        ),
        *both(f"{LAYER}.input_layernorm", f"{BLOCK}.attention_norm.before"),
        *both(f"{LAYER}.post_attention_layernorm", f"{BLOCK}.feedforward_norm.before"),
        *fused_qkv(f"{LAYER}.self_attention.query_key_value"),
        *both(f"{LAYER}.self_attention.dense", f"{BLOCK}.attention.o_proj"),
        *both(f"{LAYER}.mlp.dense_h_to_4h", f"{BLOCK}.feedforward.up"),
        *both(f"{LAYER}.mlp.dense_4h_to_h", f"{BLOCK}.feedforward.down"),
        *both("ln_f", "decoder.norm"),
        IgnoredTensor(f"{LAYER}.self_attention.*inv_freq", "rotary frequencies, worked out from the config"),
    ),
    heads=decoder_heads("word_embeddings.weight"),
)

FAMILIES = (FALCON,)
