"""Run again, with one thing changed: scores formed another way, an edge cut, a head's output taken from another text.

Each is a `with` block in which the model is called as ever. They stand in one another, and in `watch` or around it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clearhead.errors import InputError, OutsideError
from clearhead.lens.counting import counted
from clearhead.lens.given import sort_of
from clearhead.lens.maps.softmax import log_sum_exp
from clearhead.lens.places import Place
from clearhead.lens.seen import Kind
from clearhead.lens.whatif.edited import attention_of, edited, heads_at, widths_of
from clearhead.lens.whatif.rescoring import Rescoring, WithoutEdges, WithoutKeys, check_rescoring
from clearhead.model.kernels import K, Kernel, Out, Q, Scoring, V, as_run

Pairs = Iterable[tuple[int, int]]
"""Heads, as pairs of layer and head."""

BLOCK = 64
"""So many rows have their log-sum-exp worked out at once."""


@contextmanager
def rescore(
    model: nn.Module, change: Rescoring, heads: Pairs | None = None, *, kind: Kind | None = None
) -> Iterator[None]:
    """The model with scores formed another way, `rescore(model, AtTemperature(2.0))`: in these heads, or in all.

    Raises InputError, when the model is called, where there is nothing to change. For some heads of a layer, another
    temperature or scale runs the kernel twice, and cannot be watched.
    """
    check_rescoring(change)
    attention_of(model)  # of ours alone
    with edited(model, _at(model, heads, kind, lambda chosen: Rescored(change, chosen))):
        yield


@contextmanager
def cut(
    model: nn.Module,
    queries: Sequence[int] | None,
    keys: Sequence[int],
    heads: Pairs | None = None,
    *,
    kind: Kind | None = None,
    renormalise: bool = True,
) -> Iterator[Edges]:
    """The model with these edges cut: `queries` (None: all) may not read `keys`, in these heads, or in all.

    renormalise: whether the other keys share the weight that was cut, as if those had not been there; if not, they
    keep theirs, and the head says less (this cannot be watched: no log-sum-exp describes such rows). Positions are
    counted from the text's start, as long as cross-attention is not read through a cache. The block is given what is
    found out about its edges while the model runs.

    Raises InputError for an empty list, OutsideError for a position below 0 and, when the model is called, for one that
    the text has not; a text that is written through a cache may reach it yet.
    """
    attention_of(model)  # of ours alone
    gone = _positions(keys, "key")
    by = None if queries is None else _positions(queries, "query")
    change = WithoutKeys(gone) if by is None else WithoutEdges(by, gone)
    edit, edges = Rescored if renormalise else Withheld, Edges(by, gone)
    edits = _at(model, heads, kind, lambda chosen: edit(change, chosen))
    # the edges stand around the cut: they are shown the mask as it was before it
    with edited(model, edits), edited(model, dict.fromkeys(edits, edges)):
        handle = model.register_forward_pre_hook(edges.begin, with_kwargs=True)
        try:
            yield edges
        finally:
            handle.remove()


@contextmanager
def patch(
    model: nn.Module,
    heads: Pairs | None,
    outputs: Outputs,
    *,
    at: Sequence[tuple[int, int]] | None = None,
    kind: Kind | None = None,
) -> Iterator[None]:
    """The model with these heads saying what they said in another run (activation patching; Vig et al. 2020).

    model: one of ours, or a transformers model.
    outputs: `Outputs.of(model, lambda: model(other_ids))`. at: pairs (to, from) of positions; None takes all, and the
    texts must be of one length: InputError, when the model is called, where they are not.
    """
    if not isinstance(outputs, Outputs):
        raise InputError(f"{sort_of(outputs)} is no run's outputs; give Outputs.of(model, lambda: model(other_ids)).")
    for pair in at if at is not None else ():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"at holds pairs of positions, (to, from), and {pair!r} is none.")
    edits = {}
    for place, chosen in heads_at(widths_of(model), heads, kind).items():
        given = outputs.vectors.get(place)
        if given is None:
            raise InputError(f"layer {place[1]} of the {place[0]} did not run in the other text; run the whole model.")
        edits[place] = Patched(chosen, given, None if at is None else tuple(at))
    with edited(model, edits):
        yield


@dataclass(frozen=True, eq=False)
class Outputs:
    """What every head said in one run, of one text; `of` keeps it."""

    vectors: Mapping[Place, Float[Tensor, "H T Dv"]]

    @classmethod
    def of(cls, model: nn.Module, run: Callable[[], object]) -> Outputs:
        """Call `run`, which reads one text with the model, once, and keep what its heads say."""
        if not callable(run):
            raise InputError("what is run is a function without arguments, such as lambda: model(ids).")
        kept = {place: _Kept() for place in widths_of(model)}
        with torch.no_grad(), edited(model, kept, must_run=False):
            run()
        return cls({place: each.out[0] for place, each in kept.items() if each.out is not None})


def _at(
    model: nn.Module,
    heads: Pairs | None,
    kind: Kind | None,
    make: Callable[[Bool[Tensor, " H"] | None], Rescored | Withheld],
) -> dict[Place, Rescored | Withheld]:
    """An edit for each place that has one of these heads; it is told which of the place's, or None for all."""
    widths, edits = widths_of(model), {}
    for place, chosen in heads_at(widths, heads, kind).items():
        mask = torch.zeros(widths[place], dtype=torch.bool)
        mask[list(chosen)] = True
        edits[place] = make(None if bool(mask.all()) else mask)
    return edits


def _positions(positions: Sequence[int], word: str) -> tuple[int, ...]:
    if not isinstance(positions, Iterable) or not all(type(position) is int for position in positions):
        many = "queries" if word == "query" else "keys"
        raise InputError(f"{positions!r} is no list of {many}; give numbers, such as [3].")
    if not len(positions):
        raise InputError(f"no {word} was named; give at least one.")
    if min(positions) < 0:
        raise OutsideError(f"{word} {min(positions)} is outside every text; positions are counted from 0.")
    return tuple(positions)


# ── the edits ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Rescored:
    """The kernel is handed another scoring."""

    change: Rescoring
    heads: Bool[Tensor, " H"] | None

    @property
    def hidden(self) -> str | None:
        if self.heads is None or self.change.by_head:
            return None
        return "some heads of a layer run at another scale than the rest, in two kernel calls that are no one map"

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        if self.heads is None or self.change.by_head:
            return kernel(q, k, v, self.change.of(scoring, self.heads), dropout=dropout)
        other = kernel(q, k, v, self.change.of(scoring), dropout=dropout)
        return torch.where(
            self.heads.to(q.device)[None, :, None, None], other, kernel(q, k, v, scoring, dropout=dropout)
        )


class Edges:
    """Changes nothing: refuses positions that the text has not, and notes whether any of these edges may be read.

    readable: None until the model is called, and where every query is meant.
    """

    hidden: None = None

    def __init__(self, queries: tuple[int, ...] | None, keys: tuple[int, ...]) -> None:
        self.queries, self.keys = queries, keys
        self.readable: bool | None = None
        self.grows = False
        self.thread = threading.get_ident()

    def begin(self, _model: nn.Module, _given: object, options: Mapping[str, object]) -> None:
        """Before each call of the model: a text that is read through a cache grows."""
        if threading.get_ident() == self.thread:
            self.grows = options.get("cache") is not None

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        start, stop, size = scoring.mask.offset, scoring.mask.offset + q.shape[2], k.shape[2]
        if not self.grows:
            for word, positions, there in (("query", self.queries or (), stop), ("key", self.keys, size)):
                if max(positions, default=0) >= there:
                    raise OutsideError(f"{word} {max(positions)} is outside the text; choose 0…{there - 1}.")
        if self.queries is not None and not self.readable:
            rows = [query - start for query in self.queries if start <= query < stop]
            cols = torch.tensor([key for key in self.keys if key < size], dtype=torch.long, device=q.device)
            self.readable = any(_may_read(scoring, row, cols) for row in rows)
        return kernel(q, k, v, scoring, dropout=dropout)


def _may_read(scoring: Scoring, row: int, cols: Int[Tensor, " n"]) -> bool:
    allowed = scoring.mask.allowed(torch.tensor([row], device=cols.device), cols)
    return bool(len(cols)) and (allowed is None or bool(allowed.any()))


@dataclass(frozen=True, eq=False)
class Withheld:
    """Keys are not read, and no other key has their weight: out = (Σ_kept A) · out', out' with the weight shared."""

    change: Rescoring
    heads: Bool[Tensor, " H"] | None
    hidden: str = "weight that is withheld leaves rows that no log-sum-exp describes"

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        without = self.change.of(scoring, self.heads)
        out = kernel(q, k, v, without, dropout=dropout)
        q, k, _ = as_run(q, k, v)
        left = []
        for start in range(0, q.shape[2], BLOCK):
            rows = torch.arange(start, min(q.shape[2], start + BLOCK), device=q.device)
            before, after = (log_sum_exp(q[:, :, rows], k, each, rows) for each in (scoring, without))
            left.append(torch.exp(after - before).clamp(max=1.0))  # e^lse' / e^lse; where nothing is left, out' is 0
        return out * torch.cat(left, dim=2)[..., None].to(out) if left else out


@dataclass(frozen=True, eq=False)
class Patched:
    """Heads say what they said elsewhere."""

    heads: tuple[int, ...]
    given: Float[Tensor, "H T Dv"]
    at: tuple[tuple[int, int], ...] | None = None
    hidden: None = None

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        out = kernel(q, k, v, scoring, dropout=dropout).clone()
        here, there = out.shape[2], self.given.shape[1]
        if self.at is None:
            if here != there:
                raise InputError(
                    f"the texts are {here} and {counted(there, 'token')} long, and a patch needs them side by side; "
                    "give texts of one length, or pairs of what is to be patched from what: at=[(to, from), …]."
                )
            out[:, list(self.heads)] = self.given[list(self.heads)].to(out)
            return out
        for pair in self.at:
            for place, size, word in zip(pair, (here, there), ("to", "from"), strict=True):
                if not 0 <= place < size:
                    raise OutsideError(f"the patch's {word}-position {place} is outside; choose 0…{size - 1}.")
        to, from_ = (list(places) for places in zip(*self.at, strict=True)) if self.at else ([], [])
        for head in self.heads:
            out[:, head, to] = self.given[head, from_].to(out)
        return out


class _Kept:
    """Changes nothing, and keeps what the heads give."""

    hidden: None = None

    def __init__(self) -> None:
        self.out: Tensor | None = None

    def __call__(self, kernel: Kernel, q: Q, k: K, v: V, scoring: Scoring, dropout: float) -> Out:
        out = kernel(q, k, v, scoring, dropout=dropout)
        self.out = out.detach()
        return out
