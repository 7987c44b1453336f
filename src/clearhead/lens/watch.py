"""watch. Keep what any attention kernel sees, while a `with` block lasts; then put everything back.

For our models the kernel of each `Attention` is swapped for one that also returns the log-sum-exp; for Hugging Face
models the same is done through transformers' AttentionInterface (`huggingface.py`). Nothing else of a model changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from clearhead.errors import LensError, NotWatchableError
from clearhead.lens.seen import Call, Kind, Seen, check_layers
from clearhead.model.attention import Attention
from clearhead.model.kernels import Kernel, Scoring, as_run, blockwise, equation, fused, fused_with_lse
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
    elif _is_transformers(model):
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
    """A kernel that runs the one it stands in for, and keeps what the lens needs.

    places: where this attention stands: one layer, or, in a shared block, several in turn.
    """

    def __init__(
        self,
        kernel: Kernel,
        places: list[tuple[Kind, int]],
        module: str,
        seen: Seen,
        wanted: frozenset[int] | None,
    ) -> None:
        self.kernel, self.places, self.module, self.seen, self.wanted = kernel, places, module, seen, wanted
        self.calls = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
        kind, layer = self.places[self.calls % len(self.places)]
        self.calls += 1
        if self.wanted is not None and layer not in self.wanted:
            return self.kernel(q, k, v, scoring, dropout=dropout)
        q, k, v = as_run(q, k, v)
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
    check_layers(wanted, 1 + max(layer for at in places.values() for _, layer in at))
    names = {module: name for name, module in model.named_modules()}
    before = {module: module.kernel for module in places}
    recorders = [_Recorder(kernel, places[module], names[module], seen, wanted) for module, kernel in before.items()]

    def begin(*_: object) -> None:
        """Each pass through the model counts its layers anew, also after one that did not finish."""
        for recorder in recorders:
            recorder.calls = 0

    handle = model.register_forward_pre_hook(begin)
    try:
        for module, recorder in zip(before, recorders, strict=True):
            module.kernel = recorder
        yield
    finally:
        handle.remove()
        for module, kernel in before.items():
            module.kernel = kernel


def _places(model: nn.Module) -> dict[Attention, list[tuple[Kind, int]]]:
    """Where each attention stands: its kind and layer, several layers where one block is shared."""
    found: dict[Attention, list[tuple[Kind, int]]] = {}
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
