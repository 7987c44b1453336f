"""OPT (Zhang et al. 2022): GPT-3's shape with ReLU, learned positions from row 2 on, and, at 350m, a narrow table."""

from __future__ import annotations

from typing import Any

from clearhead.checkpoint.common import (
    ACTIVATIONS,
    ATTENTION_BIASES,
    BLOCK,
    decoder_classes,
    decoder_heads,
    layers,
    one_stack,
    projections,
    special_tokens,
    with_decoder,
)
from clearhead.checkpoint.config_rules import Convert, Foreign, Ignored, Only, choice, flag, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rules import IgnoredTensor, Same, both
from clearhead.model import presets
from clearhead.model.config import Learned, ModelConfig

NORMS = ("do_layer_norm_before", "_remove_final_layer_norm")
LAYER = "decoder.layers.{layer}"


def _read_norms(foreign: Foreign) -> Places:
    before, removed = foreign.flag(NORMS[0], True), foreign.flag(NORMS[1], False)
    return {
        "decoder.norm_place": "before" if before else "after",
        "decoder.final_norm": before and not removed,
    }


def _write_norms(config: ModelConfig) -> dict[str, Any]:
    before = get(config, "decoder.norm_place") == "before"
    return {NORMS[0]: before, NORMS[1]: before and not get(config, "decoder.final_norm")}


def _read_width(foreign: Foreign) -> Places:
    d_model = foreign.whole("hidden_size", 768)
    width = foreign.optional_whole("word_embed_proj_dim")
    if width in (None, d_model):
        return {"embedding.width": None, "embedding.projected": "in"}
    return {"embedding.width": width, "embedding.projected": "around"}


def _write_width(config: ModelConfig) -> dict[str, Any]:
    return {"word_embed_proj_dim": config.table_width}


OPT = Family(
    model_type="opt",
    template=with_decoder(presets.gpt2(), position=Learned(offset=2)),
    prefix="model.",
    config=(
        whole("vocab_size", "vocab_size", default=50_272),
        whole("hidden_size", "d_model", default=768),
        whole("max_position_embeddings", "context", default=2048),
        layers("num_hidden_layers", 12, "decoder"),
        whole("num_attention_heads", "decoder.attention.n_heads", default=12),
        whole("ffn_dim", "decoder.feedforward.d_ff", default=3072),
        choice("activation_function", ACTIVATIONS, "decoder.feedforward.activation", default="relu"),
        Convert(NORMS, _read_norms, _write_norms),
        Convert(("word_embed_proj_dim",), _read_width, _write_width),
        flag("enable_bias", *ATTENTION_BIASES, "decoder.feedforward.bias", default=True),
        flag("layer_norm_elementwise_affine", "decoder.norm.weight", "decoder.norm.bias", default=True),
        number("dropout", "decoder.dropout", default=0.1),
        number("attention_dropout", "decoder.attention.dropout", default=0.0),
        number("init_std", "init.std", default=0.02),
        *special_tokens(pad=1, bos=2, eos=2),
        *one_stack(decoder=True),
        decoder_classes("OPT", tied=True, tokens=False, table="decoder.embed_tokens.weight"),
        Ignored("layerdrop", "only training leaves layers out"),
        Ignored("activation_dropout", "only training drops, and transformers never looks at it"),
        Only("learned_embeddings", (True,), "OPT's positions are learned"),
        Only("scale_embeddings", (False,), "OPT does not scale its embeddings"),
    ),
    weights=(
        Same("decoder.embed_tokens.weight", "decoder.embedding.tokens.weight"),
        Same("decoder.embed_positions.weight", "decoder.embedding.positions.weight"),
        Same("decoder.project_in.weight", "decoder.embedding.project.weight"),
        *projections(f"{LAYER}.self_attn", out="out_proj"),
        *(
            row
            for place in ("before", "after")
            for row in (
                *both(f"{LAYER}.self_attn_layer_norm", f"{BLOCK}.attention_norm.{place}"),
                *both(f"{LAYER}.final_layer_norm", f"{BLOCK}.feedforward_norm.{place}"),
            )
        ),
        *both(f"{LAYER}.fc1", f"{BLOCK}.feedforward.up"),
        *both(f"{LAYER}.fc2", f"{BLOCK}.feedforward.down"),
        *both("decoder.final_layer_norm", "decoder.norm"),
        Same("decoder.project_out.weight", "decoder.project.weight"),
        IgnoredTensor("decoder.version", "the number of a file format that is gone"),
    ),
    heads=decoder_heads("decoder.embed_tokens.weight"),
)

FAMILIES = (OPT,)
