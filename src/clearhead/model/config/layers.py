"""Layers, as choices: norms, attention, feed-forward, and the stack that repeats them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from clearhead.errors import ConfigError
from clearhead.model.config.checks import check_choice, check_counts, check_dropout, check_numbers
from clearhead.model.config.positions import (
    ALiBi,
    DynamicScaling,
    Learned,
    NoPosition,
    Position,
    Rotary,
    Sinusoidal,
    T5Bias,
)

Activation = Literal["relu", "relu_squared", "gelu", "gelu_tanh", "silu", "tanh"]
"""The pointwise functions of the feed-forward: `gelu` is x·Φ(x) by erf, `gelu_tanh` its tanh approximation."""

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

NormPlace = Literal["before", "after", "both", "output", "input"]
"""Where a branch f is normed. before: x + f(N(x)); after: N(x + f(x)); both: x + N(f(N(x))); output: x + N(f(x));
input: N(x) + f(N(x)), so that the stream itself is normed."""


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """(x − mean) / √(var + eps) · w + b (Ba et al. 2016), with or without the weight w and the bias b."""

    eps: float = 1e-5
    weight: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, "eps")


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """x / √(mean(x²) + eps) · w (Zhang & Sennrich 2019). `plus_one` multiplies by 1 + w instead (Gemma).

    round_last: in half precision, w multiplies before the result is rounded (OLMo 2), not after (Llama, T5).
    """

    eps: float = 1e-6
    plus_one: bool = False
    round_last: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "eps")


Norm = LayerNorm | RMSNorm


@dataclass(frozen=True, kw_only=True)
class QKNorm:
    """q and k are normalised before they meet: within each `head` (Qwen 3), or over the `width` of all (OLMo 2).

    shared: all heads have one norm's weights; else each head has its own (StableLM 2).
    """

    norm: Norm
    over: Literal["head", "width"] = "head"
    shared: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "over", ("head", "width"))
        if self.over == "width" and not self.shared:
            raise ConfigError("QKNorm over the width is one norm for all heads; choose over='head', or shared=True.")


@dataclass(frozen=True, kw_only=True)
class Biases:
    """Which of attention's four projections add a bias."""

    q: bool = True
    k: bool = True
    v: bool = True
    out: bool = True

    @classmethod
    def none(cls) -> Biases:
        """No projection has a bias (Llama, T5)."""
        return cls(q=False, k=False, v=False, out=False)


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """One attention: softmax(cap(QKᵀ·scale) + bias)V over `n_heads` heads that share `n_kv_heads` keys and values.

    n_kv_heads: None means n_heads (multi-head); 1 is multi-query (Shazeer 2019); between, grouped-query (Ainslie 2023).
    d_head: None means d_model / n_heads. scale: None means 1/√d_head. softcap: c·tanh(score/c) (Gemma 2).
    window: a query reads itself and the window−1 tokens before it (and after it, where it may). sinks: one trained
    logit a head joins the softmax and takes weight to nowhere (gpt-oss). rotary: this layer's own, else the stack's.
    clip: what the projections to q, k and v give is held within ±clip (MPT).
    """

    n_heads: int
    n_kv_heads: int | None = None
    d_head: int | None = None
    scale: float | None = None
    bias: Biases = field(default_factory=Biases)
    softcap: float | None = None
    window: int | None = None
    sinks: bool = False
    qk_norm: QKNorm | None = None
    clip: float | None = None
    rotary: Rotary | NoPosition | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "n_heads", "n_kv_heads", "d_head", "window")
        check_numbers(self, "softcap", "scale", "clip")
        check_dropout(self, "dropout")
        if self.n_heads % self.kv_heads:
            raise ConfigError(
                f"n_heads={self.n_heads} does not divide into n_kv_heads={self.kv_heads} equal groups; "
                f"choose n_kv_heads that divides {self.n_heads}."
            )

    @property
    def kv_heads(self) -> int:
        """How many heads of keys and values there are."""
        return self.n_kv_heads if self.n_kv_heads is not None else self.n_heads

    def head_width(self, d_model: int) -> int:
        """D, the width of one head."""
        if self.d_head is not None:
            return self.d_head
        if d_model % self.n_heads:
            nearest = max(1, round(d_model / self.n_heads)) * self.n_heads
            raise ConfigError(
                f"d_model={d_model} does not divide into n_heads={self.n_heads} equal heads; "
                f"choose a multiple of {self.n_heads}, e.g. {nearest}."
            )
        return d_model // self.n_heads


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig:
    """W₂ act(W₁x), or gated: W₂(act(W_g x) ⊙ W₁x) (Shazeer 2020, GLU variants). `d_ff` is F, the inner width."""

    d_ff: int
    activation: Activation = "gelu"
    gated: bool = False
    bias: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "d_ff")
        check_choice(self, "activation", ACTIVATIONS)
        check_dropout(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """x ← x + attention(x), then x ← x + feed-forward(x)."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """x ← x + attention(N(x)) + feed-forward(N'(x)) (Wang & Komatsuzaki 2021). Phi shares one norm: N' = N."""

    shared_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """One stack of blocks: what an encoder or a decoder is made of.

    attention, feedforward: one for all layers, or a tuple with one for each (Gemma's local and global layers).
    cross_attention: what reads the encoder, in a decoder that has one. final_norm: a norm after the last block.
    share_layers: every layer is the same block, or, in `layer_groups` groups, the same as the others of its group
    (ALBERT). position: how order is told.
    """

    n_layers: int
    attention: AttentionConfig | tuple[AttentionConfig, ...]
    feedforward: FeedForwardConfig | tuple[FeedForwardConfig, ...]
    cross_attention: AttentionConfig | None = None
    position: Position = field(default_factory=Learned)
    norm: Norm = field(default_factory=LayerNorm)
    norm_place: NormPlace = "before"
    final_norm: bool = True
    residual: Sequential | Parallel = field(default_factory=Sequential)
    share_layers: bool = False
    layer_groups: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "n_layers", "layer_groups", at_most=4096)
        check_dropout(self, "dropout")
        check_choice(self, "norm_place", ("before", "after", "both", "output", "input"))
        for name in ("attention", "feedforward"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.n_layers:
                raise ConfigError(
                    f"StackConfig.{name} describes {len(value)} layers and n_layers={self.n_layers}; "
                    "give one for each layer, or a single one for all."
                )
        if self.share_layers and (isinstance(self.attention, tuple) or isinstance(self.feedforward, tuple)):
            raise ConfigError("StackConfig.share_layers has one block for all layers; give one attention, no tuple.")
        if self.layer_groups != 1 and not self.share_layers:
            raise ConfigError("StackConfig.layer_groups are layers that share a block; choose share_layers=True.")
        if self.n_layers % self.layer_groups:
            raise ConfigError(
                f"n_layers={self.n_layers} does not divide into layer_groups={self.layer_groups} equal groups; "
                f"choose layer_groups that divides {self.n_layers}."
            )
        if isinstance(self.residual, Parallel):
            if self.norm_place != "before":
                raise ConfigError(f"a parallel residual normalises before, not {self.norm_place!r}.")
            if self.cross_attention is not None:
                raise ConfigError("a parallel residual has no cross-attention; choose Sequential().")
        heads = self.attention_of(0).n_heads
        for layer in range(self.n_layers if isinstance(self.attention, tuple) else 1):
            if self.rotary(layer) is not None and isinstance(self.position, T5Bias | ALiBi):
                raise ConfigError("a layer cannot have rotary positions in a stack of relative biases.")
            if isinstance(self.position, T5Bias | ALiBi) and self.attention_of(layer).n_heads != heads:
                raise ConfigError("relative biases are one table for all layers; give each layer as many heads.")

    @property
    def n_blocks(self) -> int:
        """How many blocks there are: as many as layers, unless layers share them."""
        return self.layer_groups if self.share_layers else self.n_layers

    def block_of(self, layer: int) -> int:
        """Which block runs as layer `layer`, both counted from 0."""
        return layer * self.layer_groups // self.n_layers if self.share_layers else layer

    def attention_of(self, layer: int) -> AttentionConfig:
        """The attention of layer `layer`, counted from 0."""
        return self.attention[layer] if isinstance(self.attention, tuple) else self.attention

    def feedforward_of(self, layer: int) -> FeedForwardConfig:
        """The feed-forward of layer `layer`, counted from 0."""
        return self.feedforward[layer] if isinstance(self.feedforward, tuple) else self.feedforward

    def rotary(self, layer: int) -> Rotary | None:
        """How layer `layer` turns q and k, or None."""
        own = self.attention_of(layer).rotary
        choice = own if own is not None else self.position
        return choice if isinstance(choice, Rotary) else None

    @property
    def bounded(self) -> bool:
        """True where positions end at the model's context; relative biases, and dynamic scaling, go on past it."""
        if isinstance(self.position, Learned | Sinusoidal):
            return True
        turns = (self.rotary(layer) for layer in range(self.n_layers))
        return any(turn is not None and not isinstance(turn.scaling, DynamicScaling) for turn in turns)
