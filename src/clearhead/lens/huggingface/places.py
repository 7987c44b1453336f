"""Places. Of which kind and layer an attention is: read off its module's name and the order in which modules run."""

from __future__ import annotations

from typing import Any

from torch import nn

from clearhead.lens.kept.call import Kind

CROSS = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn")
"""What the parts of a decoder that read the encoder are called."""

COUNTS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers")
"""What configs call their number of layers."""

Place = tuple[Kind, int, str]
"""A kind, a layer's number, and the module's name."""


class Places:
    """Where each attention of one model stands. Modules are numbered in the order in which they first run."""

    def __init__(self, model: nn.Module, configs: list[Any]) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self._layers: dict[Kind, dict[str, int]] = {}
        self._counts: dict[str, int] = {}
        self.n_layers = max((n for config in configs if (n := layers_in(config))), default=0)
        """The most layers that a part of the model has; 0 where its config does not say."""

    def begin(self) -> None:
        """Each pass through the model counts its layers anew, also after one that did not finish."""
        self._counts.clear()

    def place(self, module: nn.Module) -> Place:
        """The place of this call, which is noted: one module that is several layers is each of them in turn."""
        name = self.names[module]
        kind = kind_of(name, module)
        known = self._layers.setdefault(kind, {})
        first = known.setdefault(name, len(known))
        count = self._counts.get(name, 0)
        self._counts[name] = count + 1
        shared = "albert_layer_groups" in name and len(known) == 1 and self.n_layers > 1
        return kind, count % self.n_layers if shared else first, name


def layers_in(config: Any) -> int:
    """The number of layers that a config tells; 0 where it tells none."""
    found = [getattr(config, name, None) for name in COUNTS]
    return max((n for n in found if isinstance(n, int)), default=0)


def kind_of(name: str, module: nn.Module) -> Kind:
    """Which attention a module of this name is."""
    if any(word in name for word in CROSS) or bool(getattr(module, "is_cross_attention", False)):
        return "cross"
    parts = name.split(".")
    if "decoder" in parts and "encoder" not in parts:
        return "decoder"
    if "encoder" in parts:
        return "encoder"
    return "decoder" if bool(getattr(module, "is_causal", False)) else "encoder"
