"""Muon. A matrix is moved in all of its directions alike, and not mostly in the few where its gradient is large.

The momentum M = USVᵀ of a matrix's gradients has a few large singular values and many small ones. Muon (Jordan 2024)
follows UVᵀ, the nearest matrix whose directions all count the same: what is met seldom is learned as fast as what is
met always. UVᵀ is had by multiplying alone, from a polynomial that drives every singular value towards 1.

A projection to heads is as many matrices as there are heads, each moved by itself, since no head knows of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearhead.train.distributed import like

ROUNDS = (
    (8.3837, -24.7659, 18.3571),
    (4.0434, -3.0114, 0.5695),
    (3.5056, -2.6267, 0.5257),
    (2.4901, -1.8343, 0.4368),
)
"""Polynomials aσ + bσ³ + cσ⁵, one after another. Of all such the nearest to 1 on 0.003 … 1, then on what the one before
makes of that, and so on (Amsel et al. 2025): 0.8 to 1.2 in the end, in four rounds for Jordan's five."""

RMS = 0.2
"""The size of an update's numbers, like AdamW's, so that one rate suits both (Liu et al. 2025, §2.2)."""


@dataclass(frozen=True)
class Cut:
    """How a weight divides into matrices: `n` of them, side by side along its rows (q, k, v) or its columns (o)."""

    n: int = 1
    along: Literal["rows", "columns"] = "rows"

    def apart(self, weight: Float[Tensor, "R C"]) -> Float[Tensor, "n r c"]:
        """The matrices, turned so that none is taller than wide."""
        if self.along == "rows":
            parts = weight.unflatten(0, (self.n, -1))
        else:
            parts = weight.unflatten(1, (self.n, -1)).transpose(0, 1)
        return parts.transpose(1, 2) if parts.shape[1] > parts.shape[2] else parts

    def together(self, parts: Float[Tensor, "n r c"], shape: torch.Size) -> Float[Tensor, "R C"]:
        """The weight of that shape which was taken apart."""
        own = (shape[0] // self.n, shape[1]) if self.along == "rows" else (shape[0], shape[1] // self.n)
        parts = parts.transpose(1, 2) if own[0] > own[1] else parts
        return parts.flatten(0, 1) if self.along == "rows" else parts.transpose(0, 1).flatten(1)


def orthogonal(x: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """UVᵀ of each matrix (r ≤ c), roughly: singular values come to 0.8 … 1.2, those below 0.003 of ‖X‖ to less.

    A matrix of zeros stays zeros. Where the matrices are twice as wide as tall, in float32, the polynomials are
    multiplied up among the small XXᵀ, and X comes in once at the end: p(XXᵀ)X = UVᵀ takes fewer products.
    """
    x = x / (1.01 * x.norm(dim=(1, 2), keepdim=True)).clamp(min=1e-7)  # above 1 the polynomials would run away
    gram = x @ x.mT
    if x.shape[2] < 2 * x.shape[1] or x.dtype != torch.float32:
        for number, (a, b, c) in enumerate(ROUNDS):
            gram = x @ x.mT if number else gram
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    total = None
    for number, (a, b, c) in enumerate(ROUNDS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)  # aI + bG + cG²
        total = factor if total is None else factor @ total
        if number + 1 < len(ROUNDS):
            gram = factor @ gram @ factor
    assert total is not None
    return total @ x


class Muon(torch.optim.Optimizer):
    """B ← μB + (1 − μ)G; W ← (1 − ηλ)W − η·0.2·√max(r, c)·orthogonal((1 − μ)G + μB), Nesterov's look ahead.

    Groups have a `cut` each. Weights that are divided up over processes are gathered for their update.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "cut": Cut()})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; those of one shape are made orthogonal in one go."""
        by_shape: dict[tuple[int, ...], list[tuple[nn.Parameter, dict[str, Any], Tensor]]] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(buffer, group["momentum"])
                parts = group["cut"].apart(ahead.full_tensor() if hasattr(ahead, "full_tensor") else ahead)
                by_shape.setdefault(tuple(parts.shape[1:]), []).append((weight, group, parts))
        for (_, wide), found in by_shape.items():
            every = torch.cat([parts for _, _, parts in found])
            if every.device.type == "cuda":
                every = every.bfloat16()  # precise enough for a direction, and several times as quick there
            made = orthogonal(every).to(found[0][0].dtype).split([len(parts) for _, _, parts in found])
            for (weight, group, _), parts in zip(found, made, strict=True):
                update = like(weight, group["cut"].together(parts, weight.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * RMS * wide**0.5)
