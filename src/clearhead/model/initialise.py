"""Initialisation. How weights begin, as the papers give it: a normal of one width, Xavier, or T5 by fan-in."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearhead.model.attention import Attention
from clearhead.model.config import ModelConfig, NormalInit, T5Init, XavierInit
from clearhead.model.feedforward import FeedForward
from clearhead.model.heads import LanguageModelHead, MaskedLanguageModelHead
from clearhead.model.positions import LearnedPositions, RelativeBias


class NothingDrawn(TorchFunctionMode):
    """While it lasts, what would fill a tensor with random numbers leaves it as it is.

    A model on the meta device has no memory to fill, and to pretend so costs torch two seconds of imports.
    """

    DRAWING = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "orthogonal_"})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return the tensor untouched, or whatever else was asked for as usual."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Draw all weights anew from torch's generator. Norms stay at one (or zero, for 1 + w), biases at zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
    match config.init:
        case NormalInit():
            _normal(model, config.init, layers=sum(stack.n_layers for stack in config.stacks))
        case XavierInit():
            _xavier(model, config.d_model)
        case T5Init():
            _t5(model, config.init.factor, config.d_model)


def _tables(model: nn.Module) -> list[Tensor]:
    """The matrices that are looked up or scored against, rather than multiplied through."""
    kinds = (nn.Embedding, LearnedPositions, RelativeBias, LanguageModelHead, MaskedLanguageModelHead)
    return [m.weight for m in model.modules() if isinstance(m, kinds) and m.weight is not None]


def _normal(model: nn.Module, init: NormalInit, layers: int) -> None:
    """GPT-2 and BERT: N(0, std²). GPT-2 also shrinks what writes to the stream by √(2·layers) (Radford 2019, §2.3)."""
    for table in _tables(model):
        table.normal_(0.0, init.std)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(0.0, init.std)
    if init.scale_residual:
        for module in model.modules():
            if isinstance(module, Attention):
                module.o_proj.weight.div_(math.sqrt(2 * layers))
            elif isinstance(module, FeedForward):
                module.down.weight.div_(math.sqrt(2 * layers))


def _xavier(model: nn.Module, d_model: int) -> None:
    for table in _tables(model):
        table.normal_(0.0, d_model**-0.5)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


def _t5(model: nn.Module, factor: float, d_model: int) -> None:
    """Mesh TensorFlow's: N(0, factor²/fan_in), q by another 1/√d_head (Raffel et al. 2020, as their code has it)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(0.0, factor * module.in_features**-0.5)
    for table in _tables(model):
        table.normal_(0.0, factor)
    for module in model.modules():
        if isinstance(module, Attention):
            module.q_proj.weight.normal_(0.0, factor * (d_model * module.d_head) ** -0.5)
        elif isinstance(module, RelativeBias | LanguageModelHead) and module.weight is not None:
            module.weight.normal_(0.0, factor * d_model**-0.5)
