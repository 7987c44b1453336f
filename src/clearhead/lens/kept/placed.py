"""Placed masks. The masks of calls that read one text piece by piece, told in places of the whole text.

A step's mask speaks of the one row it ran with. Where all of them say the same (causal, a window, padding, a bias by
distance), one mask says it for the whole text, `Plain`; else each row keeps the mask that it ran under, `Spans`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.model.masks import (
    Bias,
    BucketBias,
    Causal,
    KeyPadding,
    Mask,
    RoundedSlopeBias,
    Rule,
    SlopeBias,
    Window,
)


@dataclass(frozen=True, eq=False)
class DistanceBias(Bias):
    """A number for each distance j − i, per head: `values[..., d − lowest]`. What T5 writes out T×T is this.

    Distances that were never handed over are of keys that no query may read; they get the number of the nearest.
    """

    values: Float[Tensor, "#B H n"]
    lowest: int

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "#B H q k"]:
        at = (j[None, :] - i[:, None] - self.lowest).clamp(0, self.values.shape[-1] - 1)
        return self.values[:, :, at]

    def of(self, batch: int, head: int) -> DistanceBias:
        b = 0 if self.values.shape[0] == 1 else batch
        h = 0 if self.values.shape[1] == 1 else head
        return replace(self, values=self.values[b : b + 1, h : h + 1])

    def kept(self) -> DistanceBias:
        return replace(self, values=self.values.detach().clone())

    @property
    def needs_grad(self) -> bool:
        return self.values.requires_grad

    def agrees(self, other: DistanceBias) -> bool:
        """True if both have the same numbers for the distances, up to 0, that both know."""
        low = max(self.lowest, other.lowest)
        mine, theirs = (x.values[..., low - x.lowest : 1 - x.lowest] for x in (self, other))
        return torch.equal(mine, theirs)


@dataclass(frozen=True, eq=False)
class Plain:
    """A mask that is the same wherever in the text it stands, but for which keys are padding (None: none is)."""

    causal: bool
    windows: tuple[int, ...]
    real: Bool[Tensor, "B Tk"] | None
    biases: tuple[Bias, ...]

    @classmethod
    def of(cls, mask: Mask, place: Place) -> Plain | None:
        """The mask of a call that stands there, if it is of this sort and forbids what the call's keys leave out."""
        causal, windows, real = place.rows == 1 and place.start == place.keys - 1, [], None
        for rule in mask.rules:
            match rule:
                case Causal():
                    causal = True
                case Window(size):
                    windows.append(size)
                case KeyPadding(shown):
                    real = shown if real is None else real & shown
                case _:
                    return None
        if not all(isinstance(bias, SlopeBias | BucketBias | RoundedSlopeBias | DistanceBias) for bias in mask.biases):
            return None
        if place.first_key and not any(place.start - size + 1 >= place.first_key for size in windows):
            return None
        if real is not None:
            real = real[:, : place.keys - place.first_key]
            real = torch.cat((real.new_ones(real.shape[0], place.first_key), real), dim=1)
        return cls(causal, tuple(sorted(windows)), real, mask.biases)

    @classmethod
    def still(cls, mask: Mask) -> Plain | None:
        """A mask of cross-attention: the same keys for every query, wherever it stands."""
        real = None
        for rule in mask.rules:
            if not isinstance(rule, KeyPadding):
                return None
            real = rule.real if real is None else real & rule.real
        return cls(False, (), real, ()) if not mask.biases else None

    def also(self, new: Plain) -> Plain | None:
        """Either, where both are the same to the bit."""
        if self.real is None or new.real is None:
            return self if self.real is new.real else None
        return self if torch.equal(self.real, new.real) else None

    def then(self, new: Plain, place: Place) -> Plain | None:
        """The mask of the text with the call that stands there added; None where the two do not say the same."""
        same = self.causal == new.causal and self.windows == new.windows and len(self.biases) == len(new.biases)
        if not same or not all(_alike(a, b) for a, b in zip(self.biases, new.biases, strict=True)):
            return None
        old, real = self.real, new.real
        if old is None and real is None:
            return new
        if real is None or old is None:
            some = real if real is not None else old
            assert some is not None
            every = some.new_ones(some.shape[0], place.keys)
            old, real = (every if x is None else x for x in (old, real))
        seen = min(old.shape[1], place.start)
        if not torch.equal(old[:, place.first_key : seen], real[:, place.first_key : seen]):
            return None
        return replace(new, real=torch.cat((old[:, : place.first_key], real[:, place.first_key :]), dim=1))

    def mask(self) -> Mask:
        """The rules, in places of the text."""
        rules: list[Rule] = [Causal()] if self.causal else []
        rules += [Window(size) for size in self.windows]
        rules += [KeyPadding(self.real)] if self.real is not None else []
        return Mask(tuple(rules), self.biases)


def _alike(old: Bias, new: Bias) -> bool:
    match old, new:
        case DistanceBias(), DistanceBias():
            return old.agrees(new)
        case BucketBias(), BucketBias():
            return (old.bidirectional, old.max_distance) == (new.bidirectional, new.max_distance)
        case RoundedSlopeBias(), RoundedSlopeBias():
            return old.scale == new.scale
        case _:
            return type(old) is type(new)


@dataclass(frozen=True)
class Place:
    """Where a call stands in its text: its first query, how many there are, its first key, and the end of its keys."""

    start: int
    rows: int
    first_key: int
    keys: int

    @property
    def stop(self) -> int:
        """Past its last query."""
        return self.start + self.rows


def moved(mask: Mask, place: Place) -> Mask:
    """Any mask of a call that stands there, told in places of the text."""
    if not place.first_key and mask.offset == place.start:
        return replace(mask, offset=0, _written={}, _kept=[])
    by = place.start - mask.offset
    rules = tuple(_Moved(rule, by, place.first_key) for rule in mask.rules)
    since = (_Since(place.first_key),) if place.first_key else ()
    return Mask((*rules, *since), tuple(_MovedBias(bias, by, place.first_key) for bias in mask.biases))


@dataclass(frozen=True, eq=False)
class _Since(Rule):
    """Keys before the first are not there."""

    first_key: int

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "1 1 1 k"]:
        return (j >= self.first_key)[None, None, None]


@dataclass(frozen=True, eq=False)
class _Moved(Rule):
    rule: Rule
    by: int
    first_key: int

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "#B #H #q k"]:
        return self.rule.allows(i - self.by, (j - self.first_key).clamp(min=0))

    def of(self, batch: int, head: int) -> _Moved:
        return replace(self, rule=self.rule.of(batch, head))


@dataclass(frozen=True, eq=False)
class _MovedBias(Bias):
    bias: Bias
    by: int
    first_key: int

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "#B #H #q k"]:
        return self.bias.add(i - self.by, (j - self.first_key).clamp(min=0))

    def of(self, batch: int, head: int) -> _MovedBias:
        return replace(self, bias=self.bias.of(batch, head))


Span = tuple[int, int, int, Mask]
"""From which query to which, how many keys they had, and the mask that they ran under, in places of the text."""


def joined(spans: list[Span]) -> Mask:
    """One mask for a text whose rows ran under several. Each is of one text and one head."""
    if len(spans) == 1:
        return spans[0][3]
    rules = (Spans(tuple(spans)),)
    return Mask(rules, (SpansBias(tuple(spans)),) if any(span[3].biases for span in spans) else ())


@dataclass(frozen=True, eq=False)
class Spans(Rule):
    """Each query reads by the rules that it ran under; keys that came later it could not read."""

    spans: tuple[Span, ...]

    def allows(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Bool[Tensor, "1 1 q k"]:
        allowed = torch.zeros(1, 1, len(i), len(j), dtype=torch.bool, device=i.device)
        for start, stop, keys, mask in self.spans:
            rows = ((i >= start) & (i < stop)).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            there = j < keys
            tile = mask.allowed(i[rows], j.clamp(max=keys - 1))
            part = there[None, None, None] if tile is None else tile & there
            allowed[:, :, rows] = part.expand(1, 1, len(rows), len(j))
        return allowed

    def reach(self, first: int, last: int, keys: int) -> tuple[int, int]:
        low, high = keys, 0
        for start, stop, there, mask in self.spans:
            if start <= last and first < stop:
                part = mask.reach(range(max(first, start), min(last + 1, stop)), min(keys, there))
                low, high = min(low, part.start), max(high, part.stop)
        return min(low, high), high


@dataclass(frozen=True, eq=False)
class SpansBias(Bias):
    """What each query had added to its scores when it ran."""

    spans: tuple[Span, ...]

    def add(self, i: Int[Tensor, " q"], j: Int[Tensor, " k"]) -> Float[Tensor, "1 1 q k"]:
        added = torch.zeros(1, 1, len(i), len(j), device=i.device)
        for start, stop, keys, mask in self.spans:
            rows = ((i >= start) & (i < stop)).nonzero()[:, 0]
            tile = mask.bias(i[rows], j.clamp(max=keys - 1)) if len(rows) else None
            if tile is not None:
                added = added.to(torch.promote_types(added.dtype, tile.dtype))
                added[:, :, rows] = tile.to(added.dtype).expand(1, 1, len(rows), len(j))
        return added

    def of(self, batch: int, head: int) -> SpansBias:
        return self
