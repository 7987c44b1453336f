"""StableLM (2023): Llama's gated feed-forward behind LayerNorm, a quarter of each head turning; StableLM 2 norms q and
k, each head by a LayerNorm of its own, and puts both branches behind one norm."""

from __future__ import annotations

from clearhead.checkpoint.common import (
    BLOCK,
    LAYER,
    LLAMA_HEADS,
    decoder_classes,
    decoder_sizes,
    gated,
    grouped_heads,
    projections,
    rotary_buffers,
    special_tokens,
    with_decoder,
)
from clearhead.checkpoint.config_rules import Foreign, Only, Value, flag, number
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.rules import Same, Stacked, both
from clearhead.model import presets
from clearhead.model.config import LayerNorm, Parallel, QKNorm, Sequential

EPS = 1e-5


def _read_qk_norm(foreign: Foreign, key: str) -> QKNorm | None:
    norm = LayerNorm(eps=foreign.number("layer_norm_eps", EPS), bias=False)
    return QKNorm(norm=norm, shared=False) if foreign.flag(key, False) else None


def _read_residual(foreign: Foreign, key: str) -> Parallel | Sequential:
    return Parallel(shared_norm=True) if foreign.flag(key, False) else Sequential()


STABLELM = Family(
    model_type="stablelm",
    template=with_decoder(presets.llama(), norm=LayerNorm()),
    prefix="model.",
    config=(
        *decoder_sizes(
            vocab_size=50_304,
            d_model=2560,
            context=4096,
            n_layers=32,
            d_ff=6912,
            eps=EPS,
            eps_key="layer_norm_eps",
        ),
        grouped_heads("decoder.attention", default=32, kv_heads=32, widths=False),
        Rope("decoder.position", fraction=0.25),
        flag("use_qkv_bias", *(f"decoder.attention.bias.{name}" for name in "qkv"), default=False),
        Value(("qk_layernorm",), ("decoder.attention.qk_norm",), _read_qk_norm, lambda norm: norm is not None),
        Value(("use_parallel_residual",), ("decoder.residual",), _read_residual, lambda one: isinstance(one, Parallel)),
        Only("norm_eps", (EPS, None), "layer_norm_eps is what transformers reads, and this would have been another"),
        number("hidden_dropout", "decoder.dropout", default=0.0),
        *special_tokens(bos=0, eos=0),
        decoder_classes("StableLm", tied=False, dropout_keys=("classifier_dropout", "hidden_dropout")),
    ),
    weights=(
        Same("embed_tokens.weight", "decoder.embedding.tokens.weight"),
        *both(f"{LAYER}.input_layernorm", f"{BLOCK}.attention_norm.before"),
        *projections(),
        *(
            Stacked(
                f"{LAYER}.self_attn.{name}_layernorm.norms.{{piece}}.weight", f"{BLOCK}.attention.{name}_norm.weight"
            )
            for name in "qk"
        ),
        *both(f"{LAYER}.post_attention_layernorm", f"{BLOCK}.feedforward_norm.before"),
        *gated(),
        *both("norm", "decoder.norm"),
        *rotary_buffers(),
    ),
    heads=LLAMA_HEADS,
)

FAMILIES = (STABLELM,)
