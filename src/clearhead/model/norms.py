"""Norms. Each vector of the residual stream is brought to one scale, so that depth does not change its size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clearhead.model.config import LayerNorm, RMSNorm
from clearhead.model.config import Norm as NormChoice


def layer_norm(
    x: Float[Tensor, "*shape C"],
    weight: Float[Tensor, "*own C"] | None,
    bias: Float[Tensor, "*own C"] | None,
    eps: float,
) -> Float[Tensor, "*shape C"]:
    """(x − mean) / √(var + eps) · w + b over the last axis (Ba et al. 2016)."""
    if all(part is None or part.ndim == 1 for part in (weight, bias)):
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    unit = F.layer_norm(x, x.shape[-1:], None, None, eps)
    scaled = unit if weight is None else unit * weight
    return scaled if bias is None else scaled + bias


def rms_norm(
    x: Float[Tensor, "*shape C"],
    weight: Float[Tensor, "*own C"],
    eps: float,
    *,
    plus_one: bool = False,
    round_last: bool = False,
) -> Float[Tensor, "*shape C"]:
    """x / √(mean(x²) + eps) · w over the last axis, the mean in float32 or better (Zhang & Sennrich 2019).

    plus_one: multiply by 1 + w, before the cast back to x's dtype (Gemma). round_last: by w, before it (OLMo 2).
    Else the cast comes first (Llama, T5).
    """
    wide = x if x.dtype == torch.float64 else x.float()
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if plus_one:
        return (unit * (1.0 + weight.to(wide.dtype))).to(x.dtype)
    if round_last:
        return (unit * weight.to(wide.dtype)).to(x.dtype)
    return unit.to(x.dtype) * weight


class Norm(nn.Module):
    """Owns the weights of one norm; `choice` says which norm it is. heads: of a norm that each head has of its own."""

    def __init__(self, choice: NormChoice, width: int, heads: int | None = None) -> None:
        super().__init__()
        self.choice = choice
        self.width = width
        shape = (width,) if heads is None else (heads, width)
        start = torch.zeros if isinstance(choice, RMSNorm) and choice.plus_one else torch.ones
        weighted = isinstance(choice, RMSNorm) or choice.weight
        self.weight = nn.Parameter(start(shape)) if weighted else None
        biased = isinstance(choice, LayerNorm) and choice.bias
        self.bias = nn.Parameter(torch.zeros(shape)) if biased else None

    def forward(self, x: Float[Tensor, "*shape C"]) -> Float[Tensor, "*shape C"]:
        """The same shape, each vector normalised."""
        if isinstance(self.choice, RMSNorm):
            assert self.weight is not None
            choice = self.choice
            return rms_norm(x, self.weight, choice.eps, plus_one=choice.plus_one, round_last=choice.round_last)
        return layer_norm(x, self.weight, self.bias, self.choice.eps)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.choice}, width={self.width}"
