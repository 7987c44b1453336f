"""Packing: what the model is shown as one row. A row here is a rule over the cache; nothing is copied or stored.

Documents   a row a document, of its own length: for labels, translations, conversations
Blocks      all documents one after another, cut every `length` ids; each token knows its document, so that texts
            that happen to share a row do not read one another
Fitted      whole documents side by side, as many as fit in `length`, none of them cut
Windows     `length` ids from anywhere in the one long stream, documents not told apart (nanoGPT)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.data.cache import Cache

Fields = Mapping[str, Shaped[np.ndarray, " _"]]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Each document is a row."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Documents one after another, cut every `length` ids."""

    length: int

    def __post_init__(self) -> None:
        _check_length(self.length)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Whole documents side by side, at most `length` ids in a row. A longer one is refused, or cut into rows of its
    own (`too_long`)."""

    length: int
    too_long: Literal["refuse", "cut"] = "refuse"

    def __post_init__(self) -> None:
        _check_length(self.length)
        if self.too_long not in ("refuse", "cut"):
            raise ConfigError(f"too_long={self.too_long!r} is not a choice; choose 'refuse' or 'cut'.")


@dataclass(frozen=True, kw_only=True)
class Windows:
    """`length` ids from any place of the stream."""

    length: int

    def __post_init__(self) -> None:
        _check_length(self.length)


Packing = Documents | Blocks | Fitted | Windows


@runtime_checkable
class Rows(Protocol):
    """Rows of numbers: `len(rows)` of them, `rows[n]` by field, and how many ids each has."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Fields: ...

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """How many ids each row has."""
        ...

    def documents(self, row: int) -> Sequence[int]:
        """The documents, by their numbers in the cache, that a row has ids of."""
        ...


def packed(cache: Cache, packing: Packing, *, ahead: int = 0) -> Rows:
    """The rows of a cache. ahead: so many ids more in each row of Blocks, Fitted and Windows, for an objective that
    predicts the next one (1): the row's last input still has something to predict.

    Raises TrainingError where there is too little data for one row, and ConfigError for fields that cannot be joined.
    """
    match packing:
        case Documents():
            return _Documents(cache)
        case Blocks():
            return _Blocks(cache, packing.length, ahead)
        case Fitted():
            return _Fitted(cache, packing, ahead)
        case Windows():
            return _Windows(cache, packing.length, ahead)


def _check_length(length: int) -> None:
    if length < 2:
        raise ConfigError(f"length={length} should be a number of tokens, 2 or more.")


class _Documents:
    """The cache as it is."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __len__(self) -> int:
        return len(self._cache)

    def __getitem__(self, row: int) -> Fields:
        return self._cache[row]

    @cached_property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """By the ids, and the target's where there is one: whichever are more."""
        columns = self._cache.columns
        lengths = columns["ids"].lengths
        return np.maximum(lengths, columns["target"].lengths) if "target" in columns else lengths

    def documents(self, row: int) -> Sequence[int]:
        """Itself."""
        return (row,)


class _Joined:
    """Rows that are stretches of the stream of all documents. Fields beside the ids must be as long as they are."""

    def __init__(self, cache: Cache) -> None:
        ids = cache.columns["ids"]
        for name, column in cache.columns.items():
            if len(column.numbers) != len(ids.numbers) or not np.array_equal(column.offsets, ids.offsets):
                raise ConfigError(f"{name!r} is not one number a token, so documents cannot be joined; use Documents.")
        self._columns = {name: column.numbers for name, column in cache.columns.items()}
        self._offsets = ids.offsets
        self._size = len(ids.numbers)

    def _stretch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: numbers[start:stop] for name, numbers in self._columns.items()}

    def _between(self, start: int, stop: int) -> range:
        """The documents that a stretch has ids of."""
        first = int(np.searchsorted(self._offsets, start, side="right")) - 1
        last = int(np.searchsorted(self._offsets, stop - 1, side="right")) - 1
        return range(first, last + 1)

    def _documents(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
        """The document of each id of a stretch, counted from 0 at its beginning."""
        inside = self._between(start, stop)
        ends = np.clip(self._offsets[inside.start + 1 : inside.stop + 1], start, stop) - start
        lengths = np.diff(ends, prepend=0)
        lengths = lengths[lengths > 0]
        return np.repeat(np.arange(len(lengths)), lengths)


class _Blocks(_Joined):
    def __init__(self, cache: Cache, length: int, ahead: int) -> None:
        super().__init__(cache)
        self._length, self._ahead = length, ahead
        self._rows = -(-(self._size - ahead) // length) if self._size > ahead else 0
        if not self._rows:
            raise TrainingError(f"{self._size} tokens are too few for a row; give more data.")

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Fields:
        place = self._place(row)
        return {**self._stretch(*place), "documents": self._documents(*place)}

    def _place(self, row: int) -> tuple[int, int]:
        start = row * self._length
        return start, min(start + self._length + self._ahead, self._size)

    def documents(self, row: int) -> Sequence[int]:
        """Those that it is cut from."""
        return self._between(*self._place(row))

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """All the same but for the last row, which has what is left."""
        lengths = np.full(self._rows, self._length + self._ahead)
        lengths[-1] = self._size - (self._rows - 1) * self._length
        return lengths


class _Windows(_Joined):
    """Row r begins at id r."""

    def __init__(self, cache: Cache, length: int, ahead: int) -> None:
        super().__init__(cache)
        self._width = length + ahead
        if self._size < self._width:
            raise TrainingError(
                f"{self._size} tokens are too few for a window of {self._width}; give more, or a shorter length."
            )

    def __len__(self) -> int:
        return self._size - self._width + 1

    def __getitem__(self, row: int) -> Fields:
        return self._stretch(row, row + self._width)

    def documents(self, row: int) -> Sequence[int]:
        """Those that the window shows."""
        return self._between(row, row + self._width)

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """All the same."""
        return np.broadcast_to(np.array(self._width), (len(self),))


class _Fitted(_Joined):
    """Documents in the order of their lengths, each put where it leaves the least room (best fit, decreasing)."""

    def __init__(self, cache: Cache, packing: Fitted, ahead: int) -> None:
        super().__init__(cache)
        width = packing.length + ahead
        lengths = np.diff(self._offsets)
        over = np.flatnonzero(lengths > width)
        if len(over) and packing.too_long == "refuse":
            raise TrainingError(
                f"{len(over):,} documents are longer than {width} tokens, the first is row {over[0]} with "
                f"{lengths[over[0]]:,}; give too_long = 'cut', or a larger length."
            )
        stretches = [
            (int(at), int(min(at + width, stop)))
            for start, stop in zip(self._offsets, self._offsets[1:], strict=False)
            for at in range(int(start), int(stop), width)
        ]
        self._bins = _best_fit(stretches, width)
        if not self._bins:
            raise TrainingError("there are no tokens; give more data.")

    def __len__(self) -> int:
        return len(self._bins)

    def __getitem__(self, row: int) -> Fields:
        stretches = self._bins[row]
        joined = [self._stretch(start, stop) for start, stop in stretches]
        fields = {name: np.concatenate([each[name] for each in joined]) for name in joined[0]}
        sizes = [stop - start for start, stop in stretches]
        return {**fields, "documents": np.repeat(np.arange(len(sizes)), sizes)}

    def documents(self, row: int) -> Sequence[int]:
        """Those that lie side by side in it."""
        return [self._between(start, stop).start for start, stop in self._bins[row]]

    @cached_property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """How full each row is."""
        return np.array([sum(stop - start for start, stop in stretches) for stretches in self._bins])


def _best_fit(stretches: list[tuple[int, int]], width: int) -> list[list[tuple[int, int]]]:
    """Bins of at most `width`; each stretch goes where the least room is left, or into a new bin."""
    bins: list[list[tuple[int, int]]] = []
    by_room: list[list[int]] = [[] for _ in range(width + 1)]
    filled = np.zeros(width + 1, dtype=bool)  # rooms that some bin has
    for start, stop in sorted(stretches, key=lambda one: (one[0] - one[1], one[0])):
        size = stop - start
        fitting = int(np.argmax(filled[size:])) + size
        if filled[fitting]:
            number = by_room[fitting].pop()
            filled[fitting] = bool(by_room[fitting])
        else:
            number, fitting = len(bins), width
            bins.append([])
        bins[number].append((start, stop))
        room = fitting - size
        by_room[room].append(number)
        filled[room] = True
    return bins
