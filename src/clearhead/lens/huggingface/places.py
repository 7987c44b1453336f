"""Places. Of which kind and layer each attention of a transformers model is, and how many heads it has.

Read off the modules whose own code asks transformers' interface for its attention, before anything has run. A config
would tell of layers that have none, or that compute it by themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from clearhead.errors import LensError
from clearhead.lens.kept.call import Kind
from clearhead.lens.places import Place

ASKED = "ALL_ATTENTION_FUNCTIONS"
"""What the code of an attention that is dispatched by name looks the name up in."""

CROSS = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn")
"""What the parts of a decoder that read the encoder are called."""

HEADS = ("num_heads", "num_attention_heads", "n_heads")
"""What attention modules call their number of heads."""


class Places:
    """Where each attention of one model stands.

    A layer has the number that its attention was given (`layer_idx`), so that those between layers without attention
    keep theirs; where they have none, or share it with another part of the model, they are numbered as they stand.
    """

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.at = _standing(self.names)
        """The places of each: one, or several in turn where one module is several layers."""
        self._counts: dict[nn.Module, int] = {}

    @property
    def layers(self) -> frozenset[int]:
        """The layers, of any kind, that have attention."""
        return frozenset(layer for at in self.at.values() for _, layer in at)

    def begin(self) -> None:
        """Each pass through the model counts its layers anew, also after one that did not finish."""
        self._counts.clear()

    def place(self, module: nn.Module) -> tuple[Kind, int, str]:
        """Kind, layer and the module's name of this call, which is counted."""
        name = self.names[module]
        if module not in self.at:  # it asks in a way that is not seen before it runs
            kind = kind_of(name, module)
            known = {layer for at in self.at.values() for each, layer in at if each == kind}
            self.at[module] = [(kind, 1 + max(known, default=-1))]
        at, count = self.at[module], self._counts.get(module, 0)
        self._counts[module] = count + 1
        return *at[count % len(at)], name


def _standing(names: dict[nn.Module, str]) -> dict[nn.Module, list[Place]]:
    asks = {sort: _asks(sort) for sort in {type(module) for module in names}}
    by_kind: dict[Kind, list[nn.Module]] = {}
    for module, name in names.items():
        if asks[type(module)]:
            by_kind.setdefault(kind_of(name, module), []).append(module)
    found: dict[nn.Module, list[Place]] = {}
    for kind, modules in by_kind.items():
        told = [number for each in modules if type(number := getattr(each, "layer_idx", None)) is int and number >= 0]
        numbers = told if len(set(told)) == len(modules) else range(len(modules))
        found |= {module: [(kind, layer)] for module, layer in zip(modules, numbers, strict=True)}
    for module in names:
        shared = [part for part in _in_turn(module) if part in found]  # ALBERT's: numbered after all others
        if not shared:
            continue
        kinds = {found[part][0][0] for part in shared}
        taken = [layer for part, at in found.items() if part not in shared for kind, layer in at if kind in kinds]
        turns = list(enumerate(shared, 1 + max(taken, default=-1)))
        found |= {part: [(found[part][0][0], n) for n, each in turns if each is part] for part in shared}
    return found


def _asks(sort: type[nn.Module]) -> bool:
    code = getattr(inspect.unwrap(sort.forward), "__code__", None)
    return code is not None and ASKED in code.co_names


def _in_turn(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of ALBERT's layers, in the order in which they run: groups of them, each group run again and again."""
    groups: Any = getattr(module, "albert_layer_groups", None)
    if groups is None:
        return
    config: Any = module.config
    layers: int = config.num_hidden_layers
    for layer in range(layers):
        yield from groups[int(layer / (layers / len(groups)))].modules()  # to the bit as they do


def heads_in(module: nn.Module) -> int:
    """How many heads an attention has. Raises LensError where it does not tell."""
    told = [getattr(module, name, None) for name in HEADS]
    width = getattr(module, "v_head_dim", None) or getattr(module, "head_dim", None)
    joined = getattr(getattr(module, "o_proj", None), "in_features", None)  # where the heads are side by side
    if isinstance(width, int) and isinstance(joined, int):
        told.append(joined // width)
    told.append(getattr(getattr(module, "config", None), "num_attention_heads", None))
    for number in told:
        if isinstance(number, int) and number > 0:
            return number
    raise LensError(
        f"{type(module).__name__} does not tell how many heads it has, so that they have no names; experiment on the "
        "part of the model that does, or load it with clearhead.load."
    )


def kind_of(name: str, module: nn.Module) -> Kind:
    """Which attention a module of this name is."""
    if any(word in name for word in CROSS) or bool(getattr(module, "is_cross_attention", False)):
        return "cross"
    for part in name.split("."):  # the first says it: the decoder of two BERTs has an `encoder` inside
        if part in ("encoder", "decoder"):
            return "encoder" if part == "encoder" else "decoder"
    return "decoder" if bool(getattr(module, "is_causal", False)) else "encoder"
