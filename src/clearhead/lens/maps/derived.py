"""What streams. The little that a summary of a map stands on, so that each summary is a function in its own file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import InputError
from clearhead.model.kernels import Scoring

ROWS, COLS = 512, 1024
"""The tile that streaming operations work in."""


@runtime_checkable
class Derived(Protocol):
    """One head's weights, had tile by tile (`AttentionMap`)."""

    name: str
    shape: tuple[int, int]

    @property
    def scoring(self) -> Scoring: ...
    @property
    def wide(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def ran_in(self) -> torch.dtype: ...
    @property
    def rounded(self) -> torch.dtype | None: ...
    @property
    def shown(self) -> tuple[Float[Tensor, "Tk Dv"], Float[Tensor, "Tq Dv"]] | None: ...

    def logs(self, rows: Int[Tensor, " q"] | range, cols: Int[Tensor, " k"] | range) -> Float[Tensor, "q k"]: ...
    def given(
        self, rows: Int[Tensor, " q"] | range, cols: Int[Tensor, " k"] | range
    ) -> tuple[Float[Tensor, "q D"], Float[Tensor, "k D"], Float[Tensor, " q"]]: ...


def row_spans(m: Derived) -> Iterator[range]:
    """The queries, so many at a time as a tile has."""
    for start in range(0, m.shape[0], ROWS):
        yield range(start, min(m.shape[0], start + ROWS))


def col_spans(m: Derived, rows: range) -> Iterator[range]:
    """The keys that these queries may reach, so many at a time as a tile has."""
    reach = m.scoring.mask.reach(rows, m.shape[1])
    for low in range(reach.start, reach.stop, COLS):
        yield range(low, min(reach.stop, low + COLS))


def count(k: int, what: str = "of them") -> int:
    """A number of things that were asked for: whole, and 1 or more."""
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise InputError(f"{k!r} {what} cannot be had; ask for a whole number, 1 or more.")
    return k
