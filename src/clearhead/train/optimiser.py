"""Optimisers. AdamW for everything, or Muon for the matrices and AdamW for the rest. Both are PyTorch's own.

Which parameter goes where is decided once, by shape and place, and can be printed. Weight decay pulls on matrices
only: norms and biases are left alone, as Radford et al. (2018) did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clearhead.errors import CheckpointError, ConfigError
from clearhead.model.heads import LanguageModelHead, MaskedLanguageModelHead
from clearhead.model.positions import LearnedPositions, RelativeBias
from clearhead.train.distributed import like


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        _check_rate("AdamW.rate", self.rate)
        _check_rate("AdamW.weight_decay", self.weight_decay, least=0.0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"AdamW.betas={self.betas} should be two shares, 0 or more and below 1.")


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Momentum made orthogonal for the matrices inside the blocks (Jordan 2024), AdamW for tables, norms and biases.

    rate: of the matrices, scaled so that their updates are as large as AdamW's (Liu et al. 2025): one rate for both is
    a good start. momentum: Nesterov's.
    """

    rate: float = 2e-3
    momentum: float = 0.95
    weight_decay: float = 0.1
    others: AdamW = field(default_factory=AdamW)

    def __post_init__(self) -> None:
        _check_rate("Muon.rate", self.rate)
        _check_rate("Muon.weight_decay", self.weight_decay, least=0.0)
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"Muon.momentum={self.momentum} should be a share, 0 or more and below 1.")


def _check_rate(name: str, value: float, least: float | None = None) -> None:
    if not (value > 0 or value == least) or value == float("inf"):
        raise ConfigError(f"{name}={value} should be a number above 0.")


Part = Literal["matrices", "tables", "rest"]


def parts_of(model: nn.Module) -> dict[Part, dict[str, nn.Parameter]]:
    """The parameters that are trained, by name: matrices multiplied through, tables, and the rest (norms, biases).

    A table is looked up or scored against: embeddings, positions, a language model's own output matrix.
    """
    tables: set[Tensor] = set()
    for module in model.modules():
        if isinstance(module, nn.Embedding | LearnedPositions | RelativeBias):
            tables.update(module.parameters(recurse=False))
        elif isinstance(module, LanguageModelHead | MaskedLanguageModelHead) and module.weight is not None:
            tables.add(module.weight)
    found: dict[Part, dict[str, nn.Parameter]] = {"matrices": {}, "tables": {}, "rest": {}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part: Part = "tables" if parameter in tables else "matrices" if parameter.ndim == 2 else "rest"
            found[part][name] = parameter
    if not any(found.values()):
        raise ConfigError("every parameter of the model is frozen; leave some to be trained.")
    return found


class Optimisers:
    """What updates a model's parameters: one or two of PyTorch's optimisers under one schedule."""

    def __init__(self, model: nn.Module, choice: AdamW | Muon) -> None:
        parts = parts_of(model)
        self._each: list[torch.optim.Optimizer] = []
        self._names: list[list[str]] = []
        if isinstance(choice, Muon) and parts["matrices"]:
            matrices = parts.pop("matrices")
            self._add(
                torch.optim.Muon(
                    matrices.values(),
                    lr=choice.rate,
                    momentum=choice.momentum,
                    weight_decay=choice.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                ),
                matrices,
            )
        adam = choice.others if isinstance(choice, Muon) else choice
        decayed = {**parts.get("matrices", {}), **parts["tables"]}
        groups = [
            {"params": list(group.values()), "weight_decay": decay}
            for group, decay in ((decayed, adam.weight_decay), (parts["rest"], 0.0))
            if group
        ]
        if groups:
            device = next(model.parameters()).device.type
            fused = device in ("cpu", "cuda")
            optimiser = torch.optim.AdamW(groups, lr=adam.rate, betas=adam.betas, eps=adam.eps, fused=fused)
            self._add(optimiser, {**decayed, **parts["rest"]})

    def _add(self, optimiser: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> None:
        for group in optimiser.param_groups:
            group["full_rate"] = group["lr"]
        self._each.append(optimiser)
        self._names.append(list(named))

    def __repr__(self) -> str:
        parts = [
            f"{type(optimiser).__name__} of {sum(p.numel() for p in _parameters(optimiser)):,} numbers"
            for optimiser in self._each
        ]
        return f"<{' and '.join(parts)}>"

    def step(self, factor: float) -> None:
        """Update every parameter by its gradient, at `factor` of the full rate; then forget the gradients."""
        for optimiser in self._each:
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * factor
            optimiser.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        for optimiser in self._each:
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Everything they remember, as tensors by the parameter's name: `exp_avg/decoder.blocks.0.…`, `step/…`."""
        state: dict[str, Tensor] = {}
        for optimiser, names in zip(self._each, self._names, strict=True):
            for name, parameter in zip(names, _parameters(optimiser), strict=True):
                for key, value in optimiser.state.get(parameter, {}).items():
                    state[f"{key}/{name}"] = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up where another left off. Raises CheckpointError where the state is not of these parameters."""
        by_name: dict[str, dict[str, Any]] = {}
        for key, value in state.items():
            what, _, name = key.partition("/")
            by_name.setdefault(name, {})[what] = value
        known = {name for names in self._names for name in names}
        if strange := sorted(set(by_name) - known):
            raise CheckpointError(f"the optimiser's state speaks of {strange[0]!r}, which this model does not train.")
        for optimiser, names in zip(self._each, self._names, strict=True):
            for name, parameter in zip(names, _parameters(optimiser), strict=True):
                for what, value in by_name.get(name, {}).items():
                    if what != "step" and value.shape != parameter.shape:
                        raise CheckpointError(
                            f"the optimiser's {what} of {name!r} is {tuple(value.shape)}, "
                            f"the parameter {tuple(parameter.shape)}; the run was of another model."
                        )
                    optimiser.state[parameter][what] = (
                        value.clone() if what == "step" else like(parameter, value).clone()
                    )


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def clip(parameters: Iterable[nn.Parameter], most: float | None) -> Tensor:
    """The norm of all gradients as one vector; above `most` they are shrunk to it (Pascanu et al. 2013)."""
    parameters = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if hasattr(norm, "full_tensor"):  # weights are divided up over processes
        norm = norm.full_tensor()
    if most is not None:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm
