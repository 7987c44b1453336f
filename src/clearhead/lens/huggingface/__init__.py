"""Watching Hugging Face models. Their attention is dispatched by name; while we watch, the name is ours.

`attention.py` is what transformers then calls: the same fused kernel, whose log-sum-exp is kept beside q and k.
`masks.py` keeps masks as rules, so that no T×T table is written for long texts; `places.py` tells the layers apart;
`refusals.py` says what cannot be watched. Read off transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clearhead.errors import LensError, NotWatchableError
from clearhead.lens.huggingface.attention import Watcher, lens_attention, watchers
from clearhead.lens.huggingface.masks import lazy_mask
from clearhead.lens.huggingface.refusals import refuse_checkpointing, refuse_what_does_not_dispatch, way_out
from clearhead.lens.kept.keep import Choice
from clearhead.lens.seen import Seen

NAME = "clearhead_lens"
"""The attention implementation's name inside transformers."""


@contextmanager
def watch_transformers(model: Any, seen: Seen, choice: Choice) -> Iterator[None]:
    """Watch a transformers model; its attention implementation is put back when the block ends."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    refuse_what_does_not_dispatch(model)
    refuse_checkpointing(model)
    before = _implementations(model)
    if any(value == NAME for _, value in before):
        raise LensError(
            "this model shares its config with one that is being watched; leave that block before, or give it a config "
            "of its own: copy.deepcopy(config)."
        )
    watcher = Watcher(model, [config for config, _ in before], seen, choice)
    modules = list(model.modules())
    AttentionInterface.register(NAME, lens_attention)
    AttentionMaskInterface.register(NAME, lazy_mask)
    generation = getattr(model, "generation_config", None)
    compiles = getattr(generation, "disable_compile", None)
    handles = [
        model.register_forward_pre_hook(watcher.begin, with_kwargs=True),
        model.register_forward_hook(watcher.end, always_call=True),
    ]
    try:
        model.set_attn_implementation(NAME)
        if not any(config._attn_implementation == NAME for config, _ in before):
            raise NotWatchableError(
                f"{type(model).__name__} did not take the lens's attention and cannot be watched; {way_out(model)}"
            )
        if generation is not None:  # on a GPU, a static cache would have the model compiled
            generation.disable_compile = True
        for module in modules:
            watchers[module] = watcher
        watcher.passes.open(model)
        yield
        if watcher.n_passes and not watcher.n_calls:
            raise NotWatchableError(
                f"{type(model).__name__} ran, asked for no attention through the interface, and cannot be watched; "
                f"{way_out(model)}"
            )
    finally:
        with watcher.passes.closing():
            for handle in handles:
                handle.remove()
            for module in modules:
                watchers.pop(module, None)
            for config, value in before:
                config._attn_implementation_internal = value
            if generation is not None:
                generation.disable_compile = compiles


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
