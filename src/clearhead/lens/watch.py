"""watch. Keep what any attention kernel sees, while a `with` block lasts; then put everything back.

For our models the kernel of each `Attention` is swapped for one that also returns the log-sum-exp; for Hugging Face
models the same is done through transformers' AttentionInterface (`huggingface/`). Nothing else of a model changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.errors import NotWatchableError
from clearhead.lens.foreign import only_transformers
from clearhead.lens.kept.keep import AS_RUN, Choice, Keep
from clearhead.lens.kept.runs import Arrived
from clearhead.lens.passes import Passes, claimed
from clearhead.lens.places import places_of
from clearhead.lens.seen import Call, Kind, Seen, check_layers
from clearhead.lens.whatif.edited import hidden_by, seat
from clearhead.model.attention import Attention
from clearhead.model.kernels import Kernel, Scoring, as_run, blockwise, equation, fused, fused_with_lse, kernel_name


def watch(
    model: nn.Module,
    *,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    keep: Keep = AS_RUN,
    receipts: bool = False,
) -> AbstractContextManager[Seen]:
    """Watch a model's attention: `with watch(model) as seen: model(ids)`, then `seen.map(layer, head)`.

    model: one of ours, or a transformers model. layers, heads: keep only these, counted from 0; all by default.
    keep: where q and k live, AsRun(), Half() or Spilled(folder). receipts: keep v and the kernel's output too, so that
    `verify` can hold A·V to what it gave.
    Outputs do not change; the extra memory is q, k and one number per query and head. The model is put back as it was
    when the block ends, also by an exception. What it gives may be used for many blocks, each with a `seen` of its own.
    Raises NotWatchableError for what is no model; and, where the block begins, for a model that cannot be watched.
    """
    if not isinstance(model, nn.Module):
        way = "watch its .model" if isinstance(getattr(model, "model", None), nn.Module) else "give a torch module"
        raise NotWatchableError(f"{type(model).__name__} is no module that runs; {way}.")
    return _Watch(model, Choice.of(layers, heads, keep, receipts))


class _Watch:
    """What `with` begins and ends: each block a watching of its own."""

    def __init__(self, model: nn.Module, choice: Choice) -> None:
        self.model, self.choice = model, choice
        self.blocks: list[AbstractContextManager[Seen]] = []

    def __enter__(self) -> Seen:
        block = _watched(self.model, self.choice)
        seen = block.__enter__()
        self.blocks.append(block)
        return seen

    def __exit__(self, *how: Any) -> bool | None:
        return self.blocks.pop().__exit__(*how)


@contextmanager
def _watched(model: nn.Module, choice: Choice) -> Iterator[Seen]:
    seen = Seen()
    modules = {module: name for name, module in model.named_modules()}  # one walk: a look at a short text is short, too
    _refuse_what_is_compiled(model, modules)
    with claimed(model, modules):
        try:
            with _watching(model, modules, seen, choice):
                yield seen
        finally:
            seen.settle()


Modules = Mapping[nn.Module, str]
"""All modules of a model, by what they are called in it."""


def _watching(model: nn.Module, modules: Modules, seen: Seen, choice: Choice) -> AbstractContextManager[None]:
    """How a model of this sort is watched."""
    if any(isinstance(module, Attention) for module in modules):
        return _watch_ours(model, modules, seen, choice)
    theirs = only_transformers(model)
    if theirs is not None:
        from clearhead.lens.huggingface import watch_transformers

        return watch_transformers(theirs, seen, choice)
    raise NotWatchableError(
        f"{type(model).__name__} is neither a clearhead nor a transformers model; "
        "build it from clearhead.model, or load it with clearhead.load."
    )


def _refuse_what_is_compiled(model: nn.Module, modules: Modules) -> None:
    for module, name in modules.items():
        wraps = type(module).__name__ == "OptimizedModule"
        method = hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        if wraps or method or getattr(module, "_compiled_call_impl", None) is not None:
            what = f"the part {name} of {type(model).__name__}" if name else type(model).__name__
            raise NotWatchableError(
                f"{what} was compiled by torch.compile, and a compiled graph no longer asks for its attention; watch "
                "the model as it was before."
            )


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
        choice: Choice,
        passes: Passes,
    ) -> None:
        self.kernel, self.places, self.module, self.seen, self.choice = kernel, places, module, seen, choice
        self.passes = passes
        self.calls = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, *, dropout: float = 0.0) -> Tensor:
        if not self.passes.check():
            return self.kernel(q, k, v, scoring, dropout=dropout)
        kind, layer = self.places[self.calls % len(self.places)]
        self.calls += 1
        if not self.choice.wants(layer):
            return self.kernel(q, k, v, scoring, dropout=dropout)
        q, k, v = as_run(q, k, v)
        if self.kernel is fused:
            out, lse = fused_with_lse(q, k, v, scoring, dropout=dropout)
            name = kernel_name(q, k, v, scoring, dropout=dropout)
        else:
            out = self.kernel(q, k, v, scoring, dropout=dropout)
            name = "equation, written out"
            with torch.no_grad():
                lse = blockwise(q, k, v, scoring)[1]
        gave = None if dropout else out  # with dropout it is not A·V
        call = Call(
            q,
            k,
            lse,
            scoring,
            kind=kind,
            layer=layer,
            module=self.module,
            choice=self.choice,
            v=v,
            out=gave,
            kernel=name,
            waits=True,
        )
        self.seen.record(call, Arrived(k.detach(), appended=scoring.mask.offset > 0))
        return out


@contextmanager
def _watch_ours(model: nn.Module, modules: Modules, seen: Seen, choice: Choice) -> Iterator[None]:
    places = places_of(model)
    seats = {module: seat(module) for module in places}  # inside of experiments, where what runs can be seen
    for module, inside in seats.items():
        if (reason := hidden_by(module)) is not None:
            raise NotWatchableError(f"{reason}; leave that block before.")
        if inside.kernel not in (fused, equation):
            raise NotWatchableError(
                "this model's attention has a kernel of its own, whose weights are not known to be the equation's; "
                "put `clearhead.model.kernels.fused` back first."
            )
    check_layers(choice.layers, {layer for at in places.values() for _, layer in at})
    before = {module: inside.kernel for module, inside in seats.items()}
    passes = Passes()
    recorders = [_Recorder(kernel, places[m], modules[m], seen, choice, passes) for m, kernel in before.items()]

    def begin(*_: object) -> None:
        """Each pass through the model counts its layers anew, also after one that did not finish."""
        if passes.begin():
            for recorder in recorders:
                recorder.calls = 0

    def end(*_: object) -> None:
        passes.end()

    handles = [model.register_forward_pre_hook(begin), model.register_forward_hook(end, always_call=True)]
    try:
        for module, recorder in zip(before, recorders, strict=True):
            seats[module].kernel = recorder
        passes.open(modules)
        yield
    finally:
        with passes.closing():
            for handle in handles:
                handle.remove()
            for module, kernel in before.items():
                seats[module].kernel = kernel
