"""The key/value cache: what earlier tokens said, kept so that it need not be worked out again.

It is an argument of the call, never an attribute of a module: `decoder(ids, cache=cache)` reads it and appends to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.errors import InputError


class LayerCache:
    """Keys and values of one layer, in storage that doubles when it is full."""

    def __init__(self) -> None:
        self.length = 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    @property
    def k(self) -> Float[Tensor, "B Hkv T D"]:
        """The keys kept so far."""
        assert self._k is not None
        return self._k[:, :, : self.length]

    @property
    def v(self) -> Float[Tensor, "B Hkv T Dv"]:
        """The values kept so far."""
        assert self._v is not None
        return self._v[:, :, : self.length]

    @property
    def heads(self) -> tuple[int, int] | None:
        """How many heads the keys have, and how wide they are; None before there are any."""
        return (self._k.shape[1], self._k.shape[3]) if self._k is not None else None

    def append(
        self, k: Float[Tensor, "B Hkv T D"], v: Float[Tensor, "B Hkv T Dv"]
    ) -> tuple[Float[Tensor, "B Hkv Tk D"], Float[Tensor, "B Hkv Tk Dv"]]:
        """Add new keys and values, and return all of them."""
        length = self.length + k.shape[2]
        if self._k is None or self._v is None:
            self._k, self._v = k, v  # the first call keeps what it was given, without a copy
        else:
            if torch.is_grad_enabled() and (k.requires_grad or self._k.requires_grad):
                self._k, self._v = torch.cat((self.k, k), dim=2), torch.cat((self.v, v), dim=2)
            else:
                self._k = _written(self._k, self.length, k)
                self._v = _written(self._v, self.length, v)
        self.length = length
        return self.k, self.v

    def select(self, rows: Int[Tensor, " n"]) -> None:
        """Keep these rows of the batch, in this order (beam search)."""
        if self._k is not None and self._v is not None:
            self._k, self._v = self.k.index_select(0, rows), self.v.index_select(0, rows)

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens; what others still hold of the rest stays as it was."""
        self.length = min(self.length, length)
        if self._k is not None and self._v is not None:
            self._k, self._v = self.k.clone(), self.v.clone()


def _written(store: Tensor, at: int, new: Tensor) -> Tensor:
    end = at + new.shape[2]
    if end > store.shape[2]:
        grown = store.new_empty(*store.shape[:2], max(end, 2 * store.shape[2]), store.shape[3])
        grown[:, :, :at] = store[:, :, :at]
        store = grown
    store[:, :, at:end] = new
    return store


class Cache:
    """The caches of all layers of a decoder, the ids that were read, where they stand, and which are no padding.

    cross: the keys and values of the encoder's output, worked out once. read_at: how long each text was when its ids
    were read; what is cropped later was still there.
    """

    def __init__(self, n_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(n_layers)]
        self.cross = [LayerCache() for _ in range(n_layers)]
        self.length = 0
        self.ids: Int[Tensor, "B T"] | None = None
        self.real: Bool[Tensor, "B T"] | None = None
        self.positions: Int[Tensor, "B T"] | None = None
        self.read_at: Int[Tensor, " B"] | None = None

    def extend(
        self, ids: Int[Tensor, "B T"], real: Bool[Tensor, "B T"], positions: Int[Tensor, "B T"]
    ) -> Bool[Tensor, "B Tk"]:
        """Note the new tokens; return which of all tokens are real."""
        self.ids, self.real, self.positions = self._with(ids, real, positions)
        self.length = self.real.shape[1]
        self.read_at = self.positions.amax(dim=1) + 1
        return self.real

    def lengths_with(self, positions: Int[Tensor, "B T"]) -> Int[Tensor, " B"]:
        """How long each text is once tokens at these positions have come."""
        furthest = positions.amax(dim=1)
        if self.positions is not None and self.length:
            furthest = torch.maximum(furthest, self.positions.amax(dim=1))
        return furthest + 1

    def take_back(
        self, ids: Int[Tensor, "B T"], real: Bool[Tensor, "B T"], positions: Int[Tensor, "B T"]
    ) -> tuple[Int[Tensor, "B Tk"], Bool[Tensor, "B Tk"], Int[Tensor, "B Tk"]]:
        """All ids, old and new, to be read again; the cache forgets what it knew of the old."""
        everything = self._with(ids, real, positions)
        self.crop(0)
        return everything

    def _with(self, ids: Tensor, real: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.ids is None or self.real is None or self.positions is None:
            return ids, real, positions
        return (
            torch.cat((self.ids, ids), dim=1),
            torch.cat((self.real, real), dim=1),
            torch.cat((self.positions, positions), dim=1),
        )

    def check_batch(self, batch: int) -> None:
        """Raise InputError unless the cache is empty or holds so many texts."""
        if self.positions is not None and self.positions.shape[0] != batch:
            raise InputError(
                f"the cache holds a batch of {self.positions.shape[0]} and the ids are a batch of {batch}; "
                "begin a new Cache for a new batch."
            )

    def next_positions(self, real: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """Where new tokens stand: counted on from the last real one; padding takes no position."""
        if self.positions is None or not self.length:
            start = torch.zeros(real.shape[0], 1, dtype=torch.long, device=real.device)
        else:
            start = self.positions.amax(dim=1, keepdim=True) + 1
        return start + count_positions(real)

    def select(self, rows: Int[Tensor, " n"]) -> None:
        """Keep these rows of the batch, in this order."""
        for layer in (*self.layers, *self.cross):
            layer.select(rows)
        if self.ids is not None and self.real is not None and self.positions is not None:
            self.ids, self.real, self.positions = self.ids[rows], self.real[rows], self.positions[rows]
        if self.read_at is not None:
            self.read_at = self.read_at[rows]

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        for layer in self.layers:
            layer.crop(length)
        if self.ids is not None and self.real is not None and self.positions is not None:
            self.ids, self.real = self.ids[:, :length], self.real[:, :length]
            self.positions = self.positions[:, :length]
        self.length = min(self.length, length)


@contextmanager
def all_or_nothing(cache: Cache | None) -> Iterator[None]:
    """What is read within is kept by the cache; where it raises, the cache is as it was before."""
    if cache is None:
        yield
        return
    # Nothing is written over what was read: tensors are appended to or replaced, so that references suffice.
    before = [(part, dict(vars(part))) for part in (cache, *cache.layers, *cache.cross)]
    try:
        yield
    except BaseException:
        for part, state in before:
            vars(part).update(state)
        raise


def count_positions(real: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """0, 1, 2 … over the real tokens; padding before the first stands at −1, later padding repeats."""
    return real.long().cumsum(dim=1) - 1
