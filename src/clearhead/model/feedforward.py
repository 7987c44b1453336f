"""The feed-forward: each token thinks for itself. Up to a wider space, a bend, and down again."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clearhead.model.config import Activation, FeedForwardConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": lambda x: x.tanh(),
}


class FeedForward(nn.Module):
    """W₂ act(W₁x), or gated: W₂(act(W_g x) ⊙ W₁x) (Vaswani et al. 2017, eq. 2; Shazeer 2020)."""

    def __init__(self, config: FeedForwardConfig, d_model: int) -> None:
        super().__init__()
        self.config = config
        self.gate = nn.Linear(d_model, config.d_ff, bias=config.bias) if config.gated else None
        self.up = nn.Linear(d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, d_model, bias=config.bias)
        self.act = ACTIVATIONS[config.activation]

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Each token's vector, changed by itself alone."""
        inner = self.up(x)  # (B, T, F)
        inner = self.act(inner) if self.gate is None else self.act(self.gate(x)) * inner
        if self.training and self.config.dropout:
            inner = F.dropout(inner, self.config.dropout)
        out: Tensor = self.down(inner)
        return out
