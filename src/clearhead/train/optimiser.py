"""Optimisers. AdamW for everything (PyTorch's, fused), or Muon for the matrices and AdamW for the rest.

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
from clearhead.model.attention import Attention
from clearhead.model.heads import LanguageModelHead, MaskedLanguageModelHead
from clearhead.model.positions import LearnedPositions, RelativeBias
from clearhead.train import muon
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
    """Momentum made orthogonal for the matrices inside the blocks (`muon.py`), AdamW for tables, norms and biases.

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


def usual(width: int) -> Muon:
    """Where nothing is said, for new weights: Muon at 0.01 for a model 128 wide, and at less for wider ones.

    By 1/√width, so that the largest singular value of an update is the same at any width (Yang et al. 2023); at 768
    it is what Jordan (2024) trains GPT-2 with.
    """
    rate = float(f"{0.01 * (128 / width) ** 0.5:.2g}")
    return Muon(rate=rate, others=AdamW(rate=rate))


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


def _cuts(model: nn.Module) -> dict[Tensor, muon.Cut]:
    """The projections to and from heads, each of which is a matrix of its own."""
    found: dict[Tensor, muon.Cut] = {}
    for module in model.modules():
        if isinstance(module, Attention):
            for projection in (module.q_proj, module.k_proj, module.v_proj):
                found[projection.weight] = muon.Cut(projection.out_features // module.d_head, "rows")
            found[module.o_proj.weight] = muon.Cut(module.o_proj.in_features // module.d_head, "columns")
    return found


class Optimisers:
    """What updates a model's parameters: one or two of PyTorch's optimisers under one schedule."""

    def __init__(self, model: nn.Module, choice: AdamW | Muon) -> None:
        parts = parts_of(model)
        self._each: list[torch.optim.Optimizer] = []
        self._names: list[list[str]] = []
        if isinstance(choice, Muon) and parts["matrices"]:
            by_cut: dict[muon.Cut, dict[str, nn.Parameter]] = {}
            cuts = _cuts(model)
            for name, matrix in parts.pop("matrices").items():
                by_cut.setdefault(cuts.get(matrix, muon.Cut()), {})[name] = matrix
            self._add(
                muon.Muon(
                    [{"params": list(named.values()), "cut": cut} for cut, named in by_cut.items()],
                    lr=choice.rate,
                    momentum=choice.momentum,
                    weight_decay=choice.weight_decay,
                ),
                {name: matrix for named in by_cut.values() for name, matrix in named.items()},
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
        return f"<{self}>"

    def __str__(self) -> str:
        return " and ".join(
            f"{type(optimiser).__name__} of {sum(p.numel() for p in _parameters(optimiser)):,} numbers "
            f"at {optimiser.param_groups[0]['full_rate']:g}"
            for optimiser in self._each
        )

    def step(self, factor: float) -> None:
        """Update every parameter by its gradient, at `factor` of the full rate; then forget the gradients."""
        for optimiser in self._each:
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * factor
            optimiser.step()
        self.forget()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that are trained."""
        return [parameter for optimiser in self._each for parameter in _parameters(optimiser)]

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
                    if what == "step":  # a fused optimiser counts where its parameters are
                        place = parameter.device if optimiser.param_groups[0].get("fused") else value.device
                        optimiser.state[parameter][what] = value.to(place, copy=True)
                    else:
                        optimiser.state[parameter][what] = like(parameter, value).clone()


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def clip(parameters: Iterable[nn.Parameter], most: float | None) -> Tensor:
    """The norm of all gradients as one vector; above `most` they are shrunk to it (Pascanu et al. 2013)."""
    parameters = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if hasattr(norm, "full_tensor"):  # weights are divided up over processes
        norm = norm.full_tensor()
    if most is not None and not most / (norm + 1e-6) >= 1:  # also where it is no number
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm
