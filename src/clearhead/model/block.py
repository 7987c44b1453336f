"""THE block: self-attention, then cross-attention where there is an encoder to read, then the feed-forward.

Each is a branch of the residual stream. Encoders, decoders and both together are made of this one block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clearhead.model.attention import Attention
from clearhead.model.cache import LayerCache
from clearhead.model.config import Norm as NormChoice
from clearhead.model.config import NormPlace, Parallel, StackConfig
from clearhead.model.feedforward import FeedForward
from clearhead.model.masks import Mask
from clearhead.model.norms import Norm
from clearhead.model.positions import Rotation

Stream = Float[Tensor, "B T C"]


class Residual(nn.Module):
    """x with a branch f added, normalised in the `place` that the config names.

    before: x + f(N(x)) (GPT-2). after: N(x + f(x)) (Vaswani 2017). both: x + N'(f(N(x))) (Gemma 2).
    output: x + N'(f(x)) (OLMo 2). input: y + f(y), where y = N(x) (a flag of BLOOM's).
    """

    def __init__(self, norm: NormChoice, d_model: int, place: NormPlace, dropout: float) -> None:
        super().__init__()
        self.place = place
        self.dropout = dropout
        self.before = Norm(norm, d_model) if place in ("before", "both", "input") else None
        self.after = Norm(norm, d_model) if place not in ("before", "input") else None

    def branch(self, x: Stream, f: Callable[[Stream], Stream]) -> Stream:
        """What the branch f adds to the stream x."""
        y = f(x if self.before is None or self.place == "input" else self.before(x))
        if self.after is not None and self.place != "after":
            y = self.after(y)
        return F.dropout(y, self.dropout) if self.training and self.dropout else y

    def forward(self, x: Stream, f: Callable[[Stream], Stream]) -> Stream:
        """The stream after the branch f was added."""
        if self.before is not None and self.place == "input":
            x = self.before(x)
        x = x + self.branch(x, f)
        return self.after(x) if self.after is not None and self.place == "after" else x


class Block(nn.Module):
    """One layer. `layer` is its number, counted from 0; `config` the stack that it belongs to."""

    def __init__(self, config: StackConfig, layer: int, d_model: int) -> None:
        super().__init__()
        self.parallel = config.residual if isinstance(config.residual, Parallel) else None
        residual = partial(Residual, config.norm, d_model, config.norm_place, config.dropout)
        self.attention = Attention(config.attention_of(layer), d_model)
        self.attention_norm = residual()
        self.cross_attention = Attention(config.cross_attention, d_model) if config.cross_attention else None
        self.cross_norm = residual() if config.cross_attention else None
        self.feedforward = FeedForward(config.feedforward_of(layer), d_model)
        shared = self.parallel is not None and self.parallel.shared_norm
        self.feedforward_norm = None if shared else residual()

    def forward(
        self,
        x: Stream,
        *,
        mask: Mask,
        rotation: Rotation | None = None,
        memory: Float[Tensor, "B Tm C"] | None = None,
        memory_mask: Mask | None = None,
        cache: LayerCache | None = None,
        cross_cache: LayerCache | None = None,
    ) -> Stream:
        """The stream after this layer."""
        read = partial(self.attention, mask=mask, rotation=rotation, cache=cache)
        if self.feedforward_norm is None:  # parallel, both branches of one norm
            return x + self.attention_norm.branch(x, lambda y: read(y) + self.feedforward(y))
        if self.parallel is not None:
            return x + self.attention_norm.branch(x, read) + self.feedforward_norm.branch(x, self.feedforward)

        x = self.attention_norm(x, read)
        if self.cross_attention is not None and self.cross_norm is not None:
            assert memory is not None and memory_mask is not None
            cross = self.cross_attention
            x = self.cross_norm(x, lambda y: cross(y, memory=memory, mask=memory_mask, cache=cross_cache))
        x = self.feedforward_norm(x, self.feedforward)
        return x
