"""Watching Hugging Face models. Their attention is dispatched by name; while we watch, the name is ours.

`attention.py` is what transformers then calls: the same fused kernel, whose log-sum-exp is kept beside q and k.
`masks.py` keeps masks as rules, so that no T×T table is written for long texts; `places.py` tells the layers apart;
`refusals.py` says what cannot be watched; `installed.py` puts all that in its place and takes it out again, for those
who watch and for those who try something (`editing.py`). Read off transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clearhead.errors import NotWatchableError
from clearhead.lens.huggingface.attention import Watcher, watchers
from clearhead.lens.huggingface.installed import install, uninstall
from clearhead.lens.huggingface.refusals import refuse_checkpointing, refuse_what_does_not_dispatch, way_out
from clearhead.lens.kept.keep import Choice
from clearhead.lens.seen import Seen


@contextmanager
def watch_transformers(model: Any, seen: Seen, choice: Choice) -> Iterator[None]:
    """Watch a transformers model; its attention implementation is put back when the block ends."""
    refuse_what_does_not_dispatch(model)
    refuse_checkpointing(model)
    watcher = Watcher(model, seen, choice)
    modules, handles = watcher.places.names, []
    install(model)
    try:
        handles.append(model.register_forward_pre_hook(watcher.begin, with_kwargs=True))
        handles.append(model.register_forward_hook(watcher.end, always_call=True))
        for module in modules:
            watchers[module] = watcher
        watcher.passes.open(modules)
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
            uninstall(model)
