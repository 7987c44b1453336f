"""Order: which rows a step reads, as a pure function of the seed and the step. Nothing to save, nothing to lose.

A step's batch is the same however many processes share it, so a run saved on two goes on, on one or three. Each process
takes its share of the places in order (`share`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from clearhead.errors import ConfigError, TrainingError

_WORD = (1 << 64) - 1
Indices = Int[np.ndarray, " _"]


@runtime_checkable
class Order(Protocol):
    """The rows of a step's whole batch, over all processes."""

    def rows(self, step: int) -> Indices:
        """Row numbers, place by place."""
        ...


def share(places: int, part: int, parts: int) -> range:
    """The places, of so many, that part `part` of `parts` takes: parts differ by one place at most."""
    return range(places * part // parts, places * (part + 1) // parts)


def random(seed: int, purpose: int, at: int, place: int = 0) -> np.random.Generator:
    """A stream of chance that belongs to these numbers alone: Philox's blocks are numbered, and nobody else's reach
    here (Salmon et al. 2011). purpose: what it is for, so that two uses of one step do not draw alike."""
    numbers = np.array([seed & _WORD, 0, 0, place, at, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=numbers[:2], counter=numbers[2:]))


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """Every row once in each epoch, each epoch in an order of its own. A batch may begin in one epoch and end in the
    next: no row is left out or repeated at an epoch's end."""

    n_rows: int
    batch: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.n_rows, self.batch)

    def rows(self, step: int) -> Indices:
        """Rows step·batch … of the endless sequence of shuffled epochs."""
        at = step * self.batch + np.arange(self.batch)
        epochs, places = np.divmod(at, self.n_rows)
        found = np.empty_like(at)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            found[here] = shuffled(places[here], self.n_rows, self.seed, epoch)
        return found

    def epoch(self, step: int) -> float:
        """How often the data has been read when this step begins."""
        return step * self.batch / self.n_rows


@dataclass(frozen=True, kw_only=True)
class InOrder:
    """Rows as they lie, again and again; for one pass over data that is evaluated on, `n_steps` of them."""

    n_rows: int
    batch: int

    def __post_init__(self) -> None:
        _check(self.n_rows, self.batch)

    @property
    def n_steps(self) -> int:
        """Steps of one pass; the last may be smaller (`once`)."""
        return -(-self.n_rows // self.batch)

    def rows(self, step: int) -> Indices:
        """The next rows, beginning again after the last."""
        return (step * self.batch + np.arange(self.batch)) % self.n_rows

    def once(self, step: int) -> Indices:
        """The same, but the last batch of a pass ends with the data."""
        return np.arange(step * self.batch, min((step + 1) * self.batch, self.n_rows))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Rows drawn with replacement, each as likely as any other: for windows, which overlap anyway (nanoGPT)."""

    n_rows: int
    batch: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.n_rows, self.batch)

    def rows(self, step: int) -> Indices:
        """Independent draws."""
        return random(self.seed, 1, step).integers(0, self.n_rows, self.batch)


class ByLength:
    """Rows of like length together, so that little is padding; batches themselves come in any order.

    Each epoch is shuffled, cut into pools of `pool` batches, each pool sorted by length and cut into batches, and the
    batches shuffled. tokens: a batch holds as many rows as make at most so many tokens, padding counted, in place of
    `batch` rows. No batch reaches over an epoch's end; its last one may be smaller.
    """

    def __init__(
        self, lengths: Indices, *, batch: int | None = None, tokens: int | None = None, seed: int = 0, pool: int = 100
    ) -> None:
        if (batch is None) == (tokens is None):
            raise ConfigError("a batch is so many rows or so many tokens; give one of batch and tokens.")
        _check(len(lengths), batch if batch is not None else 1)
        longest = int(lengths.max())
        if tokens is not None and longest > tokens:
            raise ConfigError(
                f"row {int(lengths.argmax())} has {longest} tokens, more than a batch of tokens = {tokens} holds; "
                "give more, or cut longer rows."
            )
        self._lengths, self._batch, self._tokens, self._seed, self._pool = (
            np.asarray(lengths),
            batch,
            tokens,
            seed,
            pool,
        )
        self._counts: list[int] = []  # batches before the end of each epoch that was looked at
        self._batches = lru_cache(maxsize=2)(self._batches_of)

    def rows(self, step: int) -> Indices:
        """The batch of this step."""
        while not self._counts or self._counts[-1] <= step:
            epoch = len(self._counts)
            self._counts.append((self._counts[-1] if epoch else 0) + len(self._batches(epoch)))
        epoch = int(np.searchsorted(self._counts, step, side="right"))
        return self._batches(epoch)[step - (self._counts[epoch - 1] if epoch else 0)]

    def n_batches(self, epoch: int) -> int:
        """How many batches an epoch has."""
        return len(self._batches(epoch))

    def _batches_of(self, epoch: int) -> list[Indices]:
        n = len(self._lengths)
        order = random(self._seed, 2, epoch).permutation(n)
        rows_of_pool = self._pool * (self._batch or max(1, self._tokens * n // max(int(self._lengths.sum()), 1)))  # type: ignore[operator]
        batches: list[Indices] = []
        for start in range(0, n, rows_of_pool):
            pool = order[start : start + rows_of_pool]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches.extend(self._cut(pool))
        return [batches[at] for at in random(self._seed, 3, epoch).permutation(len(batches))]

    def _cut(self, pool: Indices) -> list[Indices]:
        if self._batch is not None:
            return [pool[at : at + self._batch] for at in range(0, len(pool), self._batch)]
        assert self._tokens is not None
        found, start = [], 0
        for at, length in enumerate(self._lengths[pool].tolist()):  # ascending, so the last is the longest
            if at > start and (at - start + 1) * length > self._tokens:
                found.append(pool[start:at])
                start = at
        return [*found, pool[start:]]


def _check(n_rows: int, batch: int) -> None:
    if n_rows < 1:
        raise TrainingError("the data has no rows; give at least one.")
    if batch < 1:
        raise ConfigError(f"batch={batch} should be a number of rows, 1 or more.")


# ── permutations ─────────────────────────────────────────────────────────────────────────────────────────────────────

TABLE = 1 << 20
"""Rows up to which an epoch's order is a table, of 8 MiB at most. Beyond it there is none to make, or to hold."""


def shuffled(places: Indices, n: int, seed: int, epoch: int) -> Indices:
    """The rows at these places of 0 … n−1 in the order that belongs to (seed, epoch)."""
    return _table(n, seed, epoch)[places] if n <= TABLE else permuted(places, n, seed, epoch)


@lru_cache(maxsize=4)
def _table(n: int, seed: int, epoch: int) -> Indices:
    return random(seed, 0, epoch).permutation(n)


def permuted(places: Indices, n: int, seed: int, epoch: int) -> Indices:
    """The same without a table: each place goes to another.

    A Feistel network (Luby & Rackoff 1988) over numbers of two digits in base a = ⌈√n⌉: in each round the digits change
    places, and one has a keyed function of the other added to it, mod a, which can be undone whatever the function is.
    So it permutes 0 … a²−1; what falls outside of n is sent on until it falls inside (cycle walking: Black & Rogaway
    2002), which is seldom, since a² is little more than n.
    """
    base = np.uint64(math.isqrt(n - 1) + 1)
    found = places.astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):
        left, right = np.divmod(found[outside], base)
        for key in _keys(seed, epoch):
            left, right = right, (left + _mixed(right ^ key) % base) % base
        found[outside] = left * base + right
        outside = outside[found[outside] >= n]
    return found.astype(np.int64)


@lru_cache(maxsize=16)
def _keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    return tuple(random(seed, 0, epoch).integers(0, 1 << 64, 6, dtype=np.uint64))


def _mixed(x: np.ndarray) -> np.ndarray:
    """splitmix64's last steps (Steele, Lea & Flood 2014): every bit of x moves half of the result's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
