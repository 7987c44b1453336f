"""Runs. A text that is read piece by piece, as generation does, is one run of calls; its keys are kept once.

Each step of a cache hands the kernel all keys so far, of which only the last are new. A step whose older keys are bit
for bit those of the calls before joins their run and keeps its new rows alone: memory grows with T, not with steps × T.
Nothing is taken on trust: a step that goes on from other keys (beam search reorders its texts) begins a run of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.lens.kept.keep import Files
from clearhead.lens.kept.placed import Place, Plain, Span, joined, moved
from clearhead.model.kernels import Scoring
from clearhead.model.masks import Mask

if TYPE_CHECKING:
    from clearhead.lens.kept.call import Call


@dataclass(frozen=True, eq=False)
class Arrived:
    """The keys that a call came with, all of them, and the place of the first.

    appended: they are a window on a store that is only ever appended to, so that where they lie says what they are.
    """

    k: Float[Tensor, "B Hkv Tk D"]
    first_key: int = 0
    appended: bool = False

    def place(self, call: Call) -> Place:
        """Where the call stands: its new queries are those of the last of its keys."""
        rows, keys = call.shape[0], self.first_key + self.k.shape[2]
        return Place(keys - rows, rows, self.first_key, keys)


class Run:
    """The calls of one layer in which one batch of texts grew, the first of which read its beginning."""

    def __init__(self, call: Call, place: Place) -> None:
        self.calls, self.places = [call], [place]
        self.files: Files = {}
        """Where rows are appended to, if they are spilled."""
        self.whole = place.start == 0
        """False where the beginning was not seen, or not as what came later goes on from it."""
        self._masks: list[tuple[int, Mask]] = []  # from which call on, in places of the text
        self._plain: Plain | None = None
        self._last: tuple[Arrived, Place] | None = None

    @classmethod
    def alone(cls, call: Call) -> Run:
        """The run of a call of which nothing is known but itself: one that was read back from a file."""
        rows, keys = call.shape
        start = 0 if call.kind == "cross" else max(0, keys - rows)
        return cls(call, Place(start, rows, 0, keys))

    # ── growing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def takes(self, call: Call, arrived: Arrived, place: Place) -> bool:
        """Add the call, if it reads on where the run stands, and leave it its own rows alone."""
        base, scoring = self.calls[0], call.scoring
        cross = call.kind == "cross"
        if base.released or not self.whole or not 0 < place.start <= self.places[-1].stop or call.batch != base.batch:
            return False
        if (scoring.scale, scoring.softcap) != (base.scoring.scale, base.scoring.softcap):
            return False
        if not (self.same_memory(arrived) if cross else self._goes_on(arrived, place)):
            return False
        call.join(self, len(self.calls), base, keys=place.keys, new=0 if cross else place.rows)
        self._add_mask(scoring.mask, place, cross)
        self._last = arrived, place
        self.places.append(place)
        self.calls.append(call)
        return True

    def settle(self) -> None:
        """Let go of what only the next call needs: the last one's whole keys, and files that rows are appended to."""
        self._last = None
        self.files.clear()

    def _goes_on(self, arrived: Arrived, place: Place) -> bool:
        """True if the keys before the new ones are, bit for bit, those that the run had."""
        n = place.start - place.first_key
        if self._last is not None:
            last, at = self._last
            skip = place.first_key - at.first_key
            if skip < 0 or place.start > at.keys or not _alike(last.k, arrived.k):
                return False
            if arrived.appended and last.appended and not skip and _same_spot(last.k, arrived.k):
                return True
            return torch.equal(last.k[:, :, skip : skip + n], arrived.k[:, :, :n])
        base = self.calls[0]
        kept = base.own_tensors[1]
        old = arrived.k[:, list(base.key_heads), :n]
        if old.shape[0] != kept.shape[0] or old.shape[3] != kept.shape[3] or place.start > kept.shape[2]:
            return False
        return torch.equal(kept[:, :, place.first_key : place.start], old.to(kept.device, kept.dtype))

    def same_memory(self, arrived: Arrived) -> bool:
        """True if the encoder's keys are those that the run has, to rounding where they were rounded."""
        last = self._last[0] if self._last is not None else None
        if last is not None and _same_spot(last.k, arrived.k) and last.k.shape == arrived.k.shape:
            return True  # both are alive, so that it is one tensor: an encoder is read once
        base = self.calls[0]
        kept, heads = base.own_tensors[1], list(base.key_heads)
        if kept.shape != (arrived.k.shape[0], len(heads), *arrived.k.shape[2:]):
            return False
        return torch.equal(kept, arrived.k[:, heads].to(kept.device, kept.dtype))

    def _add_mask(self, mask: Mask, place: Place, cross: bool) -> None:
        if not self._masks:
            first, at = self.calls[0].scoring.mask, self.places[0]
            self._plain = Plain.still(first) if cross else Plain.of(first, at)
            self._masks.append((0, self._plain.mask() if self._plain is not None else moved(first, at)))
        new = Plain.still(mask) if cross else Plain.of(mask, place)
        both = None
        if self._plain is not None and new is not None:
            both = self._plain.also(new) if cross else self._plain.then(new, place)
        if both is not None:
            self._masks[-1] = (self._masks[-1][0], both.mask())
        else:
            self._masks.append((len(self.calls), new.mask() if new is not None else moved(mask, place)))
        self._plain = both if both is not None else new

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def scoring_of(self, call: Call, scoring: Scoring) -> Scoring:
        """How a call's scores were formed, its rows standing where they stand in the text."""
        mask = next(mask for first, mask in reversed(self._masks) if first <= call.number)
        offset = self.places[call.number].start
        return replace(scoring, mask=Mask(mask.rules, mask.biases, offset))

    def keys_of(self, call: Call) -> Float[Tensor, "B h Tk D"]:
        """All keys that a call had, of every kept head."""
        if call.kind == "cross":
            return self.calls[0].own_tensors[1]
        return torch.cat([self.calls[c].own_tensors[1][:, :, a:b] for c, a, b in self.pieces(call.number)], dim=2)

    def head_keys(self, number: int, head: int, batch: int) -> Float[Tensor, "1 1 Tk D"]:
        """All keys of one head of one text that there were at that call."""
        base = self.calls[0]
        if base.kind == "cross":
            return base.keys_of(head, batch)
        parts = [self.calls[c].keys_of(head, batch)[:, :, a:b] for c, a, b in self.pieces(number)]
        return parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts], dim=2)

    def head_values(self, number: int, head: int, batch: int) -> Float[Tensor, "1 1 Tk Dv"] | None:
        """All values of one head of one text that there were at that call, where receipts kept them."""
        base = self.calls[0]
        if base.kind == "cross":
            return base.values_of(head, batch)
        parts = [(self.calls[c].values_of(head, batch), a, b) for c, a, b in self.pieces(number)]
        found = [v[:, :, a:b] for v, a, b in parts if v is not None]
        return torch.cat([v.to(found[0].device) for v in found], dim=2) if len(found) == len(parts) else None

    def pieces(self, number: int) -> list[tuple[int, int, int]]:
        """The rows that stand in the text after that call: of which call, from which of its rows to which.

        What a later call wrote over (tokens that a cache was cropped by) is left out.
        """
        found, end = [], self.places[number].stop
        for c in range(number, -1, -1):
            place = self.places[c]
            if place.start < end:
                found.append((c, 0, min(place.stop, end) - place.start))
                end = place.start
        return found[::-1]

    def mask(self, number: int, batch: int, head: int) -> Mask:
        """The mask of the whole text after that call, for one text and one head."""
        if not self._masks:
            return self.calls[0].scoring.mask.of(batch, head)
        spans: list[Span] = []
        masks = self._masks
        which = latest = 0
        for c, a, b in self.pieces(number):
            while which + 1 < len(masks) and masks[which + 1][0] <= c:
                which += 1
            start, stop = self.places[c].start + a, self.places[c].start + b
            if spans and which == latest:
                spans[-1] = (spans[-1][0], stop, self.places[c].keys, spans[-1][3])
            else:
                spans.append((start, stop, self.places[c].keys, masks[which][1].of(batch, head)))
            latest = which
        return joined(spans)


def _alike(a: Tensor, b: Tensor) -> bool:
    return (a.shape[0], a.shape[1], a.shape[3], a.dtype) == (b.shape[0], b.shape[1], b.shape[3], b.dtype)


def _same_spot(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride()
