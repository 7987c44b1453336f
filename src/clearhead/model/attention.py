"""Attention. Each token asks, every token answers, and what is read is a weighted mean of the answers.

The equation softmax(QKᵀ/√d)V and its fast twins are functions, in `kernels.py`; the module here owns the weights that
make q, k and v, and hands them to the kernel it was given. It knows nothing of who watches.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearhead.model.cache import LayerCache
from clearhead.model.config import AttentionConfig, QKNorm
from clearhead.model.kernels import Kernel, Scoring, attention_weights, equation, fused
from clearhead.model.masks import Mask
from clearhead.model.norms import Norm
from clearhead.model.positions import Rotation

__all__ = ["Attention", "attention_weights", "equation", "fused"]


class Attention(nn.Module):
    """Self- or cross-attention: multi-head, grouped-query or multi-query (Vaswani et al. 2017, §3.2.2).

    kernel: the plain function from q, k, v to each head's output. Swap it to watch or to change attention.
    """

    def __init__(self, config: AttentionConfig, d_model: int) -> None:
        super().__init__()
        self.config = config
        self.d_head = width = config.head_width(d_model)
        self.scale = config.scale if config.scale is not None else width**-0.5
        self.q_proj = nn.Linear(d_model, config.n_heads * width, bias=config.bias.q)
        self.k_proj = nn.Linear(d_model, config.kv_heads * width, bias=config.bias.k)
        self.v_proj = nn.Linear(d_model, config.kv_heads * width, bias=config.bias.v)
        self.o_proj = nn.Linear(config.n_heads * width, d_model, bias=config.bias.out)
        self.q_norm = _qk_norm(config.qk_norm, config.n_heads, width)
        self.k_norm = _qk_norm(config.qk_norm, config.kv_heads, width)
        self.sinks = nn.Parameter(torch.zeros(config.n_heads)) if config.sinks else None
        self.kernel: Kernel = fused

    def forward(
        self,
        x: Float[Tensor, "B Tq C"],
        *,
        mask: Mask,
        memory: Float[Tensor, "B Tk C"] | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "B Tq C"]:
        """What each token of `x` reads: from `x` itself, or from `memory` where it is given.

        rotation turns the new queries and keys; keys are cached turned.
        """
        q = self._heads(self.q_proj(x), self.q_norm)  # (B, H, Tq, D)
        if rotation is not None:
            q = rotation.turn(q)
        if memory is not None and cache is not None and cache.length:
            k, v = cache.k, cache.v
        else:
            source = x if memory is None else memory
            k = self._heads(self.k_proj(source), self.k_norm)  # (B, Hkv, T, D)
            v = self._heads(self.v_proj(source))
            if rotation is not None:
                k = rotation.turn(k)
            if cache is not None:
                k, v = cache.append(k, v)
        scoring = Scoring(self.scale, mask, self.config.softcap, self.sinks)
        out = self.kernel(q, k, v, scoring, dropout=self.config.dropout if self.training else 0.0)
        result: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return result

    def _heads(self, x: Float[Tensor, "B T HD"], norm: Norm | None = None) -> Float[Tensor, "B H T D"]:
        if self.config.clip is not None:
            x = x.clamp(-self.config.clip, self.config.clip)
        if norm is not None and norm.width != self.d_head:
            x = norm(x)
        heads = x.unflatten(-1, (-1, self.d_head))
        if norm is not None and norm.width == self.d_head:
            heads = norm(heads)
        split: Tensor = heads.transpose(1, 2)
        return split


def _qk_norm(choice: QKNorm | None, heads: int, width: int) -> Norm | None:
    """The norm of so many heads: over all of them, or within each, of one norm's weights or of each head's own."""
    if choice is None:
        return None
    if choice.over == "width":
        return Norm(choice.norm, heads * width)
    return Norm(choice.norm, width, None if choice.shared else heads)
