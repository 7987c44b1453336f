"""Places. Where each attention of one of our models stands: its kind and its layer."""

from __future__ import annotations

from torch import nn

from clearhead.lens.seen import Kind
from clearhead.model.attention import Attention
from clearhead.model.stack import Stack

Place = tuple[Kind, int]
"""A layer's attention of one kind."""


def places_of(model: nn.Module) -> dict[Attention, list[Place]]:
    """The places of each attention module: one, or several in turn where one block is shared by layers."""
    found: dict[Attention, list[Place]] = {}
    for stack in model.modules():
        if not isinstance(stack, Stack):
            continue
        own: Kind = "encoder" if stack.bidirectional else "decoder"
        for layer in range(stack.config.n_layers):
            block = stack.block(layer)
            found.setdefault(block.attention, []).append((own, layer))
            if block.cross_attention is not None:
                found.setdefault(block.cross_attention, []).append(("cross", layer))
    if not found:  # a bare Attention or Block
        lonely = [module for module in model.modules() if isinstance(module, Attention)]
        found = {module: [("decoder", layer)] for layer, module in enumerate(lonely)}
    return found
