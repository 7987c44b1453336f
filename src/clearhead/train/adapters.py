"""Which parameters a fine-tuning trains: all, some, or small matrices beside frozen ones (LoRA).

A frozen weight W gets a companion of rank r, y = Wx + (α/r)·B(Ax), with B = 0 at first, so that training begins at the
model as it was (Hu et al. 2022). `merge` adds it in, W + (α/r)·BA: an ordinary model again, exported like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clearhead.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Full:
    """Everything is trained."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Only parameters whose name has one of these parts are trained: `head`, `decoder.blocks.11`, `norm`."""

    train: tuple[str, ...] = ("head",)


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Companions of rank `rank` for the linear maps that are named in `targets`; what `train` names is trained whole.

    scale: α; the companion is multiplied by α/rank. dropout: on what the companion reads.
    """

    rank: int = 8
    scale: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    dropout: float = 0.0
    train: tuple[str, ...] = ("head",)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"LoRA.rank={self.rank} should be 1 or more.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"LoRA.dropout={self.dropout} should be a share, 0 or more and below 1.")
        if not self.targets:
            raise ConfigError("LoRA.targets is empty; name linear maps, such as q_proj.")


Adapters = Full | Frozen | LoRA


class LowRank(nn.Linear):
    """A linear map that is frozen, and its companion."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.down = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.factor, self.dropout = scale / rank, dropout

    def forward(self, input: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Wx + b + (α/r)·B(Ax)."""
        read = F.dropout(input, self.dropout, self.training) if self.dropout else input
        return F.linear(input, self.weight, self.bias) + F.linear(F.linear(read, self.down), self.up) * self.factor

    def merged(self) -> nn.Linear:
        """One linear map that does the same."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        with torch.no_grad():
            wide = self.weight.double() + self.factor * (self.up.double() @ self.down.double())
        plain.weight, plain.bias = nn.Parameter(wide.to(self.weight.dtype)), self.bias
        return plain


def adapt(model: nn.Module, choice: Adapters) -> str:
    """Make just the chosen parameters trainable, in place, and return a line that says how many they are.

    Raises ConfigError where a name fits nothing.
    """
    if isinstance(choice, Full):
        model.requires_grad_(True)
    else:
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            if any(_names(part, name) for part in choice.train):
                parameter.requires_grad_(True)
        if isinstance(choice, LoRA):
            _insert(model, choice)
        else:
            for part in choice.train:
                if not any(_names(part, name) for name, _ in model.named_parameters()):
                    raise ConfigError(f"no parameter has {part!r} in its name; some are {_some(model)}.")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    return f"{trained:,} of {everything:,} numbers are trained ({trained / everything:.2%})"


def _insert(model: nn.Module, choice: LoRA) -> None:
    found: set[str] = set()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in choice.targets and isinstance(child, nn.Linear) and not isinstance(child, LowRank):
                setattr(parent, name, LowRank(child, choice.rank, choice.scale, choice.dropout))
                found.add(name)
    if missing := set(choice.targets) - found:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ConfigError(f"no linear map is named {sorted(missing)[0]!r}; there are {', '.join(linear)}.")


def merge(model: nn.Module) -> int:
    """Add every companion into its frozen map, in place; the number of maps that were merged."""
    count = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRank):
                setattr(parent, name, child.merged())
                count += 1
    return count


def _names(part: str, name: str) -> bool:
    return f".{part}." in f".{name}."


def _some(model: nn.Module) -> str:
    names = [name for name, _ in model.named_parameters()]
    return ", ".join(names[:2] + names[-2:])
