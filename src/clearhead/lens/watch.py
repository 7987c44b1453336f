"""watch. Keep what any attention kernel sees, while a `with` block lasts; then put everything back.

For our models the kernel of each `Attention` is swapped for one that also returns the log-sum-exp; for Hugging Face
models the same is done through transformers' AttentionInterface (`huggingface.py`). Nothing else of a model changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle

import torch
from torch import Tensor, nn

from clearhead.errors import LensError, NotWatchableError
from clearhead.lens.seen import Call, Kind, Seen
from clearhead.model.attention import Attention
from clearhead.model.kernels import Kernel, Scoring, blockwise, equation, fused, fused_with_lse
from clearhead.model.stack import Stack


@contextmanager
def watch(model: nn.Module, *, layers: Iterable[int] | None = None) -> Iterator[Seen]:
    """Watch a model's attention: `with watch(model) as seen: model(ids)`, then `seen.map(layer, head)`.

    model: one of ours, or a transformers model. layers: keep only these, counted from 0; all by default.
    Outputs do not change; the extra memory is q, k and one number per query and head. The model is put back as it was
    when the block ends, also by an exception. Raises NotWatchableError for a model that cannot be watched.
    """
    wanted = None if layers is None else frozenset(layers)
    seen = Seen()
    if any(isinstance(module, Attention) for module in model.modules()):
        with _watch_ours(model, seen, wanted):
            yield seen
    elif type(model).__module__.startswith("transformers.") or _is_transformers(model):
        from clearhead.lens.huggingface import watch_transformers

        with watch_transformers(model, seen, wanted):
            yield seen
    else:
        raise NotWatchableError(
            f"{type(model).__name__} is neither a clearhead nor a transformers model; "
            "build it from clearhead.model, or load it with clearhead.load."
        )


def _is_transformers(model: nn.Module) -> bool:
    return any(base.__module__.startswith("transformers.") for base in type(model).__mro__)


class _Recorder:
    """A kernel that runs the one it stands in for, and keeps what the lens needs."""

    def __init__(self, kernel: Kernel, places: list[tuple[Kind, int]], module: str, seen: Seen) -> None:
        self.kernel, self.module, self.seen = kernel, module, seen
        self.places = cycle(places)  # a shared block is several layers in turn

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
        kind, layer = next(self.places)
        if self.kernel is fused:
            out, lse = fused_with_lse(q, k, v, scoring, dropout=dropout)
        else:
            out = self.kernel(q, k, v, scoring, dropout=dropout)
            with torch.no_grad():
                lse = blockwise(q, k, v, scoring)[1]
        self.seen.record(Call(q, k, lse, scoring, kind=kind, layer=layer, module=self.module))
        return out


@contextmanager
def _watch_ours(model: nn.Module, seen: Seen, wanted: frozenset[int] | None) -> Iterator[None]:
    places = _places(model)
    for module in places:
        if isinstance(module.kernel, _Recorder):
            raise LensError("this model is being watched already; leave the first `with watch(...)` block before.")
        if module.kernel not in (fused, equation):
            raise NotWatchableError(
                "this model's attention has a kernel of its own, whose weights are not known to be the equation's; "
                "put `clearhead.model.kernels.fused` back first."
            )
    names = {module: name for name, module in model.named_modules()}
    before = {module: module.kernel for module in places}
    try:
        for module, at in places.items():
            if wanted is None or any(layer in wanted for _, layer in at):
                module.kernel = _Recorder(module.kernel, at, names[module], seen)
        yield
    finally:
        for module, kernel in before.items():
            module.kernel = kernel


def _places(model: nn.Module) -> dict[Attention, list[tuple[Kind, int]]]:
    """Where each attention stands: its kind and layer, several layers where one block is shared."""
    found: dict[Attention, list[tuple[Kind, int]]] = {}
    for name, stack in model.named_modules():
        if not isinstance(stack, Stack):
            continue
        own: Kind = "encoder" if name.rpartition(".")[2] == "encoder" else "decoder"
        for layer in range(stack.config.n_layers):
            block = stack.block(layer)
            found.setdefault(block.attention, []).append((own, layer))
            if block.cross_attention is not None:
                found.setdefault(block.cross_attention, []).append(("cross", layer))
    if not found:  # a bare Attention or Block
        lonely = [module for module in model.modules() if isinstance(module, Attention)]
        found = {module: [("decoder", layer)] for layer, module in enumerate(lonely)}
    return found
