"""Installed. While anyone looks at a transformers model, or tries something on it, its attention is ours, by name.

Whoever needs it installs it; the first does so, the last puts the model back as it was, in whatever order they leave.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

from torch import nn

from clearhead.errors import LensError, NotWatchableError
from clearhead.lens.huggingface.attention import lens_attention
from clearhead.lens.huggingface.masks import lazy_mask
from clearhead.lens.huggingface.refusals import way_out

NAME = "clearhead_lens"
"""The attention implementation's name inside transformers."""


@dataclass
class _Before:
    """How a model was, and for how many it is not so."""

    implementations: list[tuple[Any, object]]
    compiles: object
    users: int = 0


_gate = threading.Lock()
_before: weakref.WeakKeyDictionary[nn.Module, _Before] = weakref.WeakKeyDictionary()


def install(model: Any) -> None:
    """Have the model ask for our attention and our masks. Raises LensError or NotWatchableError where it does not."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    with _gate:
        before = _before.get(model)
        if before is None:
            generation = getattr(model, "generation_config", None)
            before = _Before(_implementations(model), getattr(generation, "disable_compile", None))
            if any(value == NAME for _, value in before.implementations):
                raise LensError(
                    "this model shares its config with one that is being watched; leave that block before, or give it "
                    "a config of its own: copy.deepcopy(config)."
                )
            AttentionInterface.register(NAME, lens_attention)
            AttentionMaskInterface.register(NAME, lazy_mask)
            try:
                model.set_attn_implementation(NAME)
                if not any(config._attn_implementation == NAME for config, _ in before.implementations):
                    raise NotWatchableError(
                        f"{type(model).__name__} did not take the lens's attention and cannot be watched; "
                        f"{way_out(model)}"
                    )
            except BaseException:
                _put_back(model, before)
                raise
            if generation is not None:  # on a GPU, a static cache would have the model compiled
                generation.disable_compile = True
            _before[model] = before
        before.users += 1


def uninstall(model: Any) -> None:
    """One who needed it does no more; the last puts the model back."""
    with _gate:
        before = _before[model]
        before.users -= 1
        if not before.users:
            del _before[model]
            _put_back(model, before)


def _put_back(model: Any, before: _Before) -> None:
    for config, value in before.implementations:
        config._attn_implementation_internal = value
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.disable_compile = before.compiles


def _implementations(model: Any) -> list[tuple[Any, object]]:
    """Every config in the model with the attention it names now."""
    found: dict[int, tuple[Any, object]] = {}
    todo = [module.config for module in model.modules() if hasattr(module, "config")]
    while todo:
        config = todo.pop()
        if id(config) in found or not hasattr(config, "_attn_implementation_internal"):
            continue
        found[id(config)] = (config, config._attn_implementation_internal)
        todo += [sub for key in getattr(config, "sub_configs", {}) if (sub := getattr(config, key, None)) is not None]
    return list(found.values())
