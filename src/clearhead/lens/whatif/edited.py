"""The kernel of an experiment: it calls the kernel that it stands in for, and changes what goes in or what comes out.

Decision 2: kernels are the only seam. Nothing else of a model changes, and what was swapped is taken out again, however
the block ends. Experiments stand one around another, and around or inside `watch`, which keeps what really ran.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from torch import nn

from clearhead.errors import InputError, LensError, OutsideError
from clearhead.lens.alone import alone
from clearhead.lens.foreign import only_transformers
from clearhead.lens.given import check_module
from clearhead.lens.places import Place, places_of
from clearhead.lens.seen import KINDS, Kind, check_layers
from clearhead.model.attention import Attention
from clearhead.model.kernels import K, Kernel, Out, Q, Scoring, V


@runtime_checkable
class Edit(Protocol):
    """What an experiment does at one layer's attention.

    hidden: None where a kernel inside this edit is handed just what runs, so that watching it is exact; else why not.
    """

    @property
    def hidden(self) -> str | None: ...

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        """Each head's output, with the help of the kernel that would have run."""
        ...


class Edited:
    """A kernel around a kernel: at the places that have an edit it runs that, elsewhere what it stands in for.

    It speaks for the thread that put it there alone: another that runs the model meanwhile has the model as it was.
    """

    def __init__(self, kernel: Kernel, places: Sequence[Place], edits: Mapping[Place, Edit]) -> None:
        self.kernel, self.places, self.edits = kernel, places, edits
        self.calls = 0
        self.thread = threading.get_ident()

    def __call__(self, q: Q, k: K, v: V, scoring: Scoring, *, dropout: float = 0.0) -> Out:
        if threading.get_ident() != self.thread:
            return self.kernel(q, k, v, scoring, dropout=dropout)
        edit = self.edits.get(self.places[self.calls % len(self.places)])
        self.calls += 1
        if edit is None:
            return self.kernel(q, k, v, scoring, dropout=dropout)
        return edit(self.kernel, q, k, v, scoring, dropout)

    def begin(self, *_: object) -> None:
        """Each pass through the model counts its layers anew, also after one that did not finish."""
        if threading.get_ident() == self.thread:
            self.calls = 0


def seat(module: Attention) -> Attention | Edited:
    """What holds the kernel that runs inside all experiments: whoever watches takes that one's place."""
    holder: Attention | Edited = module
    while isinstance(holder.kernel, Edited):
        holder = holder.kernel
    return holder


def hidden_by(module: Attention) -> str | None:
    """Why what runs here cannot be watched under the experiments that there are; None where it can."""
    kernel = module.kernel
    while isinstance(kernel, Edited):
        for edit in kernel.edits.values():
            if edit.hidden is not None:
                return edit.hidden
        kernel = kernel.kernel
    return None


@contextmanager
def edited(model: nn.Module, edits: Mapping[Place, Edit], *, must_run: bool = True) -> Iterator[None]:
    """The model with these edits while the block lasts. One thread at a time: others that ask for the model wait.

    must_run: whether a layer of a transformers model that the model did not run is an error; of ours it never is.
    """
    if not edits:
        yield
        return
    theirs = _theirs(model)
    if theirs is not None:
        from clearhead.lens.huggingface.editing import edited_transformers

        with edited_transformers(theirs, edits, must_run=must_run):
            yield
        return
    with alone(model):
        own = [(module, at) for module, at in attention_of(model).items() if not edits.keys().isdisjoint(at)]
        for edit in edits.values():
            if edit.hidden is not None and any(_is_watched(module) for module, _ in own):
                raise LensError(f"{edit.hidden}; leave the `with watch(...)` block before.")
        kernels = [(module, Edited(module.kernel, at, edits)) for module, at in own]
        handles = [model.register_forward_pre_hook(kernel.begin) for _, kernel in kernels]
        try:
            for module, kernel in kernels:
                module.kernel = kernel
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, kernel in kernels:
                _take_out(module, kernel)


def _is_watched(module: Attention) -> bool:
    """True where something of the lens stands around the kernel that is no experiment."""
    return hasattr(seat(module).kernel, "kernel")


def _take_out(module: Attention, kernel: Edited) -> None:
    """Close the gap where the kernel stood, wherever others stand by now."""
    holder: object = module
    while (inside := getattr(holder, "kernel", None)) is not None:
        if inside is kernel:
            holder.kernel = kernel.kernel  # type: ignore[attr-defined]
            return
        holder = inside


# ── which heads ──────────────────────────────────────────────────────────────────────────────────────────────────


def attention_of(model: nn.Module) -> dict[Attention, list[Place]]:
    """The places of each attention. Raises LensError for a model that is not one of ours."""
    check_module(model)
    found = places_of(model)
    if not found and _theirs(model) is not None:
        raise LensError(
            f"{type(model).__name__} is a model of transformers: its heads can be silenced and patched; for other "
            "experiments load it with clearhead.load."
        )
    if not found:
        raise LensError(
            f"{type(model).__name__} has no attention of clearhead's to experiment on; load it with clearhead.load."
        )
    return found


def widths_of(model: nn.Module) -> dict[Place, int]:
    """How many heads the attention at each place has, encoder first, then by layer. Of a transformers model, too."""
    check_module(model)
    theirs = _theirs(model)
    if theirs is not None:
        from clearhead.lens.huggingface.editing import widths_of_transformers

        return widths_of_transformers(theirs)
    found = {place: module.config.n_heads for module, at in attention_of(model).items() for place in at}
    return dict(sorted(found.items(), key=lambda each: (KINDS.index(each[0][0]), each[0][1])))


def heads_at(
    widths: Mapping[Place, int], heads: Iterable[tuple[int, int]] | None, kind: Kind | None
) -> dict[Place, tuple[int, ...]]:
    """The heads, given as (layer, head), by place; None is every head of every layer. widths: what `widths_of` gives.

    kind: may be left out where the model has one kind of attention. Raises OutsideError for a head there is not.
    """
    kinds = [each for each in KINDS if any(place[0] == each for place in widths)]
    if kind is None and len(kinds) > 1:
        raise LensError(f"this model has several kinds of attention; say which: {', '.join(map(repr, kinds))}.")
    kind = kinds[0] if kind is None else kind
    if kind not in kinds:
        raise OutsideError(f"this model has no {kind!r} attention; choose one of {', '.join(kinds)}.")
    own = {layer: width for (each, layer), width in widths.items() if each == kind}
    if heads is None:
        return {(kind, layer): tuple(range(width)) for layer, width in own.items()}
    found: dict[Place, list[int]] = {}
    for layer, head in check_heads(heads):
        check_layers([layer], own)
        if not 0 <= head < own[layer]:
            raise OutsideError(f"head {head} is outside layer {layer}; choose 0…{own[layer] - 1}.")
        found.setdefault((kind, layer), []).append(head)
    return {place: tuple(sorted(set(chosen))) for place, chosen in found.items()}


def _theirs(model: nn.Module) -> nn.Module | None:
    """The model of transformers that this is, or holds; None for one of ours."""
    if any(isinstance(module, Attention) for module in model.modules()):
        return None
    return only_transformers(model, "experiment on")


def check_heads(heads: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Heads, as pairs of layer and head. Raises InputError for what is none, and where none is named."""
    if not isinstance(heads, Iterable):
        raise InputError(f"{heads!r} is no list of heads; give pairs of layer and head, such as [(5, 11)].")
    found: list[tuple[int, int]] = []
    for pair in heads:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(type(number) is int for number in pair):
            raise InputError(f"{pair!r} is no head; give pairs of layer and head, such as (5, 11).")
        found.append((pair[0], pair[1]))
    if not found:
        raise InputError("no head was named; give at least one, as a pair of layer and head, such as (5, 11).")
    return found
