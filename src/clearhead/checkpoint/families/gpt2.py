"""GPT-2 (Radford et al. 2019): Conv1D weights stored (in, out), q, k and v fused, tied, with learned positions."""

from __future__ import annotations

from typing import Any

from clearhead.checkpoint.common import ACTIVATIONS, layers, one_stack, special_tokens
from clearhead.checkpoint.config_rules import Convert, Foreign, Ignored, choice, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rules import Copy, IgnoredTensor, Same, Split, Transposed, both, with_head
from clearhead.errors import CheckpointError
from clearhead.model import presets
from clearhead.model.config import LanguageModel, ModelConfig, SequenceClassification, TokenClassification


def _read_inner(foreign: Foreign) -> Places:
    inner = foreign.optional_whole("n_inner")
    return {"decoder.feedforward.d_ff": 4 * foreign.whole("n_embd", 768) if inner is None else inner}


def _write_inner(config: ModelConfig) -> dict[str, Any]:
    return {"n_inner": get(config, "decoder.feedforward.d_ff")}


def _scales(width: int, n_layers: int, by_width: bool, by_layer: bool) -> tuple[float | None, ...]:
    """The scores' factor in each layer: 1/√D or 1, and over the layer's number too; None is our own 1/√D."""
    if not by_layer:
        return (None if by_width else 1.0,) * n_layers
    return tuple((width**-0.5 if by_width else 1.0) / (layer + 1) for layer in range(n_layers))


_FLAGS = ("scale_attn_weights", "scale_attn_by_inverse_layer_idx")


def _read_scale(foreign: Foreign) -> Places:
    heads, n_layers = foreign.whole("n_head", 12), foreign.whole("n_layer", 12, at_most=4096)
    flags = foreign.flag(_FLAGS[0], True), foreign.flag(_FLAGS[1], False)
    return {"decoder.attention[].scale": _scales(foreign.whole("n_embd", 768) // max(heads, 1) or 1, n_layers, *flags)}


def _write_scale(config: ModelConfig) -> dict[str, Any]:
    assert config.decoder is not None
    scales = get(config, "decoder.attention[].scale")
    width = config.decoder.attention_of(0).head_width(config.d_model)
    for flags in ((True, False), (True, True), (False, False), (False, True)):
        if scales == _scales(width, config.decoder.n_layers, *flags):
            return dict(zip(_FLAGS, flags, strict=True))
    raise CheckpointError(
        "GPT-2 scales scores by 1/√D, by 1, or by these over the layer's number; no other scale fits."
    )


BLOCK = "decoder.blocks.{layer}"

GPT2 = Family(
    model_type="gpt2",
    template=presets.gpt2(),
    prefix="transformer.",
    config=(
        whole("vocab_size", "vocab_size", default=50_257),
        whole("n_embd", "d_model", default=768),
        whole("n_positions", "context", default=1024),
        layers("n_layer", 12, "decoder"),
        whole("n_head", "decoder.attention.n_heads", default=12),
        Convert(("n_inner",), _read_inner, _write_inner),
        choice("activation_function", ACTIVATIONS, "decoder.feedforward.activation", default="gelu_new"),
        number("layer_norm_epsilon", "decoder.norm.eps", default=1e-5),
        Convert(_FLAGS, _read_scale, _write_scale),
        number("resid_pdrop", "decoder.dropout", default=0.1),
        number("embd_pdrop", "embedding.dropout", default=0.1),
        number("attn_pdrop", "decoder.attention.dropout", default=0.1),
        number("initializer_range", "init.std", default=0.02),
        *special_tokens(bos=50_256, eos=50_256),
        *one_stack(decoder=True),
        Heads(
            architectures={
                "GPT2LMHeadModel": Architecture(head=LanguageModel()),
                "GPT2Model": Architecture(),
                "GPT2ForSequenceClassification": Architecture(
                    head=SequenceClassification(labels=UNNAMED, pooling="last", bias=False), dropout=False
                ),
                "GPT2ForTokenClassification": Architecture(head=TokenClassification(labels=UNNAMED)),
            },
            default="GPT2LMHeadModel",
            tied=True,
            table="wte.weight",
        ),
        Convert((), lambda _: {}, lambda config: {"n_ctx": config.context}),  # llama.cpp's converter asks for it
        Ignored("n_ctx", "the size of a mask that is made on the fly here; n_positions is the context"),
        Ignored("reorder_and_upcast_attn", "it only changes the rounding of scores in half precision"),
        Ignored("summary_*", "it speaks of the multiple-choice head, which is not read"),
    ),
    weights=(
        Same("wte.weight", "decoder.embedding.tokens.weight"),
        Same("wpe.weight", "decoder.embedding.positions.weight"),
        *both("h.{layer}.ln_1", f"{BLOCK}.attention_norm.before"),
        *(
            Split(f"h.{{layer}}.attn.c_attn.{part}", tuple(f"{BLOCK}.attention.{p}_proj.{part}" for p in "qkv"), True)
            for part in ("weight", "bias")
        ),
        Transposed("h.{layer}.attn.c_proj.weight", f"{BLOCK}.attention.o_proj.weight"),
        Same("h.{layer}.attn.c_proj.bias", f"{BLOCK}.attention.o_proj.bias"),
        *both("h.{layer}.ln_2", f"{BLOCK}.feedforward_norm.before"),
        Transposed("h.{layer}.mlp.c_fc.weight", f"{BLOCK}.feedforward.up.weight"),
        Same("h.{layer}.mlp.c_fc.bias", f"{BLOCK}.feedforward.up.bias"),
        Transposed("h.{layer}.mlp.c_proj.weight", f"{BLOCK}.feedforward.down.weight"),
        Same("h.{layer}.mlp.c_proj.bias", f"{BLOCK}.feedforward.down.bias"),
        *both("ln_f", "decoder.norm"),
        IgnoredTensor("h.{layer}.attn.bias", "the causal mask, which is a rule here"),
        IgnoredTensor("h.{layer}.attn.masked_bias", "the number that stands for −∞ in the mask"),
    ),
    heads=(
        Same("lm_head.weight", "head.weight"),
        Copy("lm_head.weight", of="wte.weight"),
        with_head(SequenceClassification, Same("score.weight", "head.classify.weight")),
        with_head(TokenClassification, *both("classifier", "head.classify")),
    ),
)

FAMILIES = (GPT2,)
