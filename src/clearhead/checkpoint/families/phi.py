"""Phi (2023): attention and feed-forward side by side behind one norm, half of each head turning, biases everywhere."""

from __future__ import annotations

from clearhead.checkpoint.common import BLOCK, LAYER, decoder_sizes, grouped_heads, rotary_buffers, special_tokens
from clearhead.checkpoint.config_rules import Foreign, Value, number
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.rotary import Rope
from clearhead.checkpoint.rules import Copy, Same, both, with_head
from clearhead.model.config import (
    AttentionConfig,
    FeedForwardConfig,
    LanguageModel,
    LayerNorm,
    ModelConfig,
    Parallel,
    QKNorm,
    Rotary,
    SequenceClassification,
    StackConfig,
    TokenClassification,
)

EPS = 1e-5
THEIRS, OURS = f"{LAYER}.self_attn", f"{BLOCK}.attention"


def _read_qk_norm(foreign: Foreign, key: str) -> QKNorm | None:
    eps = foreign.number("layer_norm_eps", EPS)
    return QKNorm(norm=LayerNorm(eps=eps)) if foreign.flag(key) else None


PHI = Family(
    model_type="phi",
    template=ModelConfig(
        vocab_size=51_200,
        d_model=2048,
        context=2048,
        decoder=StackConfig(
            n_layers=24,
            attention=AttentionConfig(n_heads=32),
            feedforward=FeedForwardConfig(d_ff=8192, activation="gelu_tanh"),
            position=Rotary(fraction=0.5),
            residual=Parallel(shared_norm=True),
        ),
        head=LanguageModel(tied=False, bias=True),
    ),
    prefix="model.",
    config=(
        *decoder_sizes(
            vocab_size=51_200,
            d_model=2048,
            context=2048,
            n_layers=24,
            d_ff=8192,
            activation="gelu_new",
            eps=EPS,
            eps_key="layer_norm_eps",
        ),
        grouped_heads("decoder.attention", default=32),
        Rope("decoder.position", fraction=0.5),
        Value(("qk_layernorm",), ("decoder.attention.qk_norm",), _read_qk_norm, lambda norm: norm is not None),
        number("resid_pdrop", "decoder.dropout", default=0.0),
        number("embd_pdrop", "embedding.dropout", default=0.0),
        *special_tokens(bos=1, eos=2),
        Heads(
            architectures={
                "PhiForCausalLM": Architecture(head=LanguageModel(bias=True)),
                "PhiModel": Architecture(),
                "PhiForSequenceClassification": Architecture(
                    head=SequenceClassification(labels=UNNAMED, pooling="last", bias=False), dropout=False
                ),
                "PhiForTokenClassification": Architecture(head=TokenClassification(labels=UNNAMED)),
            },
            default="PhiForCausalLM",
            tied=False,
            table="embed_tokens.weight",
        ),
    ),
    weights=(
        Same("embed_tokens.weight", "decoder.embedding.tokens.weight"),
        *both(f"{LAYER}.input_layernorm", f"{BLOCK}.attention_norm.before"),
        *(row for name in "qkv" for row in both(f"{THEIRS}.{name}_proj", f"{OURS}.{name}_proj")),
        *both(f"{THEIRS}.dense", f"{OURS}.o_proj"),
        *(row for name in "qk" for row in both(f"{THEIRS}.{name}_layernorm", f"{OURS}.{name}_norm")),
        *both(f"{LAYER}.mlp.fc1", f"{BLOCK}.feedforward.up"),
        *both(f"{LAYER}.mlp.fc2", f"{BLOCK}.feedforward.down"),
        *both("final_layernorm", "decoder.norm"),
        *rotary_buffers(),
    ),
    heads=(
        *both("lm_head", "head"),
        Copy("lm_head.weight", of="embed_tokens.weight"),
        with_head(SequenceClassification, Same("score.weight", "head.classify.weight")),
        with_head(TokenClassification, *both("score", "head.classify")),
    ),
)

FAMILIES = (PHI,)
