"""AttentionMap. One head's weights over one text: it behaves like a Tq×Tk array, and stores none.

It keeps q, k and the log-sum-exp of the kernel that ran, O(T·D) numbers, and derives any weight when someone looks:

    A[i, j] = exp(score(q_i, k_j) − lse_i)

Rows, columns, tiles, the strongest links and pooled overviews are worked out in blocks; no T×T tensor is made unless
`dense()` (or `numpy.asarray`) asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import InputError, OutsideError, ReleasedError
from clearhead.model.kernels import Scoring

if TYPE_CHECKING:
    import numpy as np

ROWS, COLS = 256, 2048
"""The tile that streaming operations work in."""


class Cell(NamedTuple):
    """One weight of a map: query `row` gives `weight` to key `column`."""

    row: int
    column: int
    weight: float


def derive_weights(
    q: Float[Tensor, "B H q D"],
    k: Float[Tensor, "B Hkv k D"],
    lse: Float[Tensor, "B H q"],
    scoring: Scoring,
    rows: Int[Tensor, " q"],
    cols: Int[Tensor, " k"],
) -> Float[Tensor, "B H q k"]:
    """exp(score − lse) of these rows and columns, float32 or better. `q`, `k`, `lse` hold just those."""
    scores = scoring.scores(q, k, rows, cols)
    return torch.exp(scores - lse.to(scores.dtype)[..., None])


class AttentionMap:
    """The weights of one head. `m[i]` is what query i reads, `m[a:b, c:d]` a tile, `m[i, j]` one weight.

    Rows sum to 1 (less with sinks; 0 where a query may read nothing). Indices count from 0 and may be negative;
    one that lies outside raises OutsideError, a released map raises ReleasedError.
    """

    def __init__(
        self,
        q: Float[Tensor, "1 1 Tq D"],
        k: Float[Tensor, "1 1 Tk D"],
        lse: Float[Tensor, "1 1 Tq"],
        scoring: Scoring,
        *,
        name: str = "attention",
        released: Callable[[], bool] = lambda: False,
    ) -> None:
        self._q, self._k, self._lse, self._scoring = q, k, lse, scoring
        self._released = released
        self.name = name
        self.shape: tuple[int, int] = (q.shape[2], k.shape[2])

    ndim = 2

    @property
    def q(self) -> Float[Tensor, "1 1 Tq D"]:
        """The queries that the kernel had. Raises ReleasedError once they were given back, as do `k` and `lse`."""
        self._check()
        return self._q

    @property
    def k(self) -> Float[Tensor, "1 1 Tk D"]:
        """The keys that the kernel had."""
        self._check()
        return self._k

    @property
    def lse(self) -> Float[Tensor, "1 1 Tq"]:
        """The log-sum-exp of each query's scores, sinks included."""
        self._check()
        return self._lse

    @property
    def scoring(self) -> Scoring:
        """How q and k became scores: scale, mask, bias, softcap, sinks."""
        return self._scoring

    def __repr__(self) -> str:
        return f"<AttentionMap {self.name}: {self.shape[0]} queries × {self.shape[1]} keys, derived on demand>"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Float[Tensor, " Tk"]]:
        for i in range(len(self)):
            yield self.row(i)

    def __getitem__(self, index: object) -> Float[Tensor, "*shape"]:
        """`m[i]`, `m[i, j]`, `m[a:b]`, `m[a:b, c:d]`, with steps and negative indices as in numpy."""
        pair = index if isinstance(index, tuple) else (index, slice(None))
        if len(pair) != 2:
            raise OutsideError(f"{self.name} has two axes, query and key; {len(pair)} indices were given.")
        rows, keep_rows = self._span(pair[0], 0)
        cols, keep_cols = self._span(pair[1], 1)
        tile = self.tile(rows, cols)
        if not keep_cols:
            tile = tile[:, 0]
        return tile if keep_rows else tile[0]

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> np.ndarray:
        array: np.ndarray = self.dense().cpu().numpy()
        return array if dtype is None else array.astype(dtype)

    # ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────

    def tile(self, rows: range, cols: range) -> Float[Tensor, "q k"]:
        """The weights of these queries and keys, as ranges of indices that count from 0."""
        self._check()
        for span, axis in ((rows, 0), (cols, 1)):
            if len(span):
                self._inside(min(span), axis, least=0)
                self._inside(max(span), axis, least=0)
        i, j = self._indices(rows), self._indices(cols)
        q = self._q[:, :, i] if rows.step < 0 else self._q[:, :, rows.start : rows.stop : rows.step]
        k = self._k[:, :, j] if cols.step < 0 else self._k[:, :, cols.start : cols.stop : cols.step]
        return derive_weights(q, k, self._lse[:, :, i], self._scoring, i, j)[0, 0]

    def row(self, i: int) -> Float[Tensor, " Tk"]:
        """What query i reads: a weight for each key."""
        i = self._inside(i, 0)
        return self.tile(range(i, i + 1), range(self.shape[1]))[0]

    def column(self, j: int) -> Float[Tensor, " Tq"]:
        """Who reads key j: a weight from each query."""
        j = self._inside(j, 1)
        return self.tile(range(self.shape[0]), range(j, j + 1))[:, 0]

    def dense(self) -> Float[Tensor, "Tq Tk"]:
        """The whole map, all Tq×Tk of it: the one operation whose memory grows with T²."""
        return self.tile(range(self.shape[0]), range(self.shape[1]))

    # ── summaries, streamed ──────────────────────────────────────────────────────────────────────────────────────

    def top(self, i: int, k: int = 5) -> list[Cell]:
        """The k keys that query i reads most, strongest first; keys it may not read are left out."""
        i = self._inside(i, 0)
        weights, keys = self.row(i).topk(min(_count(k), self.shape[1]))
        pairs = zip(weights.tolist(), keys.tolist(), strict=True)
        return [Cell(i, key, weight) for weight, key in pairs if weight > 0]

    def hottest(self, k: int = 10) -> list[Cell]:
        """The k strongest weights of the whole map, strongest first."""
        best = torch.empty(0, dtype=self._wide, device=self._q.device)
        where = torch.empty(0, dtype=torch.long, device=self._q.device)
        for rows, cols, tile in self.tiles():
            values, flat = tile.flatten().topk(min(_count(k), tile.numel()))
            cells = (rows.start + flat // len(cols)) * self.shape[1] + cols.start + flat % len(cols)
            best, where = torch.cat((best, values)), torch.cat((where, cells))
            best, kept = best.topk(min(k, len(best)))
            where = where[kept]
        width = self.shape[1]
        pairs = zip(where.tolist(), best.tolist(), strict=True)
        return [Cell(cell // width, cell % width, weight) for cell, weight in pairs if weight > 0]

    def row_sums(self) -> Float[Tensor, " Tq"]:
        """Σ_j A[i, j] for each query: 1, unless a sink takes some of it or the query may read nothing."""
        sums = torch.zeros(self.shape[0], dtype=self._wide, device=self._q.device)
        for rows, _, tile in self.tiles():
            sums[rows.start : rows.stop] += tile.sum(dim=1)
        return sums

    def column_sums(self) -> Float[Tensor, " Tk"]:
        """Σ_i A[i, j] for each key: how much attention it receives from all queries."""
        sums = torch.zeros(self.shape[1], dtype=self._wide, device=self._q.device)
        for _, cols, tile in self.tiles():
            sums[cols.start : cols.stop] += tile.sum(dim=0)
        return sums

    def pool(
        self, height: int = 64, width: int = 64, how: Literal["max", "mean"] = "max"
    ) -> Float[Tensor, "height width"]:
        """An overview: cell (a, b) is the max (or mean) of A over its block of queries and keys. Exact.

        Block a of n covers indices ⌊a·T/n⌋ … ⌊(a+1)·T/n⌋−1. A map smaller than height×width comes back as it is.
        """
        if how not in ("max", "mean"):
            raise InputError(f"pool(how={how!r}) is not a choice; choose 'max' or 'mean'.")
        height, width = min(_count(height), self.shape[0]), min(_count(width), self.shape[1])
        row_edges, col_edges = _edges(self.shape[0], height), _edges(self.shape[1], width)
        result = torch.zeros(height, width, dtype=self._wide, device=self._q.device)
        for rows, row_bins in _spans(row_edges, ROWS):
            for cols, col_bins in _spans(col_edges, COLS):
                if not self._overlaps(rows, cols):
                    continue
                tile = _bin(self.tile(rows, cols), cols, col_edges, col_bins, how)
                tile = _bin(tile.T, rows, row_edges, row_bins, how).T
                part = result[row_bins.start : row_bins.stop, col_bins.start : col_bins.stop]
                if how == "max":
                    torch.maximum(part, tile, out=part)
                else:
                    part += tile
        if how == "mean":
            sizes = [torch.tensor(edges, device=result.device).diff() for edges in (row_edges, col_edges)]
            result /= sizes[0][:, None] * sizes[1][None, :]
        return result

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _wide(self) -> torch.dtype:
        return torch.float64 if self._q.dtype == torch.float64 else torch.float32

    def _check(self) -> None:
        if self._released():
            raise ReleasedError(f"{self.name} was released and its q, k and log-sum-exp are gone; look again.")

    def _indices(self, span: range) -> Int[Tensor, " n"]:
        if len(span) == 0:
            return torch.empty(0, dtype=torch.long, device=self._q.device)
        return torch.arange(span.start, span.stop, span.step, device=self._q.device)

    def _inside(self, index: int, axis: int, least: int | None = None) -> int:
        size, word = self.shape[axis], ("query", "key")[axis]
        if not (-size if least is None else least) <= index < size:
            raise OutsideError(f"{word} {index} is outside {self.name}, which has {size}; choose 0…{size - 1}.")
        return index % size

    def _span(self, index: object, axis: int) -> tuple[range, bool]:
        if isinstance(index, slice):
            try:
                return range(*index.indices(self.shape[axis])), True
            except (TypeError, ValueError) as error:
                raise OutsideError(f"{self.name} cannot be sliced like that: {error}.") from None
        if hasattr(index, "__index__"):
            i = self._inside(index.__index__(), axis)
            return range(i, i + 1), False
        raise OutsideError(f"{self.name} takes whole numbers and slices, not {type(index).__name__}.")

    def _overlaps(self, rows: range, cols: range) -> bool:
        reach = self._scoring.mask.reach(rows, self.shape[1])
        return max(reach.start, cols.start) < min(reach.stop, cols.stop)

    def tiles(self) -> Iterator[tuple[range, range, Float[Tensor, "q k"]]]:
        """Every tile in which something may be read, as (queries, keys, weights). All that streams stands on it."""
        for start in range(0, self.shape[0], ROWS):
            rows = range(start, min(self.shape[0], start + ROWS))
            reach = self._scoring.mask.reach(rows, self.shape[1])
            for low in range(reach.start, reach.stop, COLS):
                cols = range(low, min(reach.stop, low + COLS))
                yield rows, cols, self.tile(rows, cols)


def _count(k: int) -> int:
    if not isinstance(k, int) or k < 1:
        raise InputError(f"{k!r} was asked for; ask for a whole number, 1 or more.")
    return k


def _edges(size: int, bins: int) -> list[int]:
    return [a * size // bins for a in range(bins + 1)]


def _spans(edges: list[int], most: int) -> Iterator[tuple[range, range]]:
    """Runs of at most `most` indices, each with its bins: several whole bins, or a piece of a single large one."""
    a = 0
    while a < len(edges) - 1:
        b = a + 1
        while b < len(edges) - 1 and edges[b + 1] - edges[a] <= most:
            b += 1
        for start in range(edges[a], edges[b], most):
            yield range(start, min(edges[b], start + most)), range(a, b)
        a = b


def _bin(
    tile: Float[Tensor, "n m"], span: range, edges: list[int], bins: range, how: Literal["max", "mean"]
) -> Float[Tensor, "n bins"]:
    """Reduce the last axis, which covers the indices `span`, to its bins: their maxima, or their sums for a mean."""
    if len(bins) == 1:
        return tile.amax(-1, keepdim=True) if how == "max" else tile.sum(-1, keepdim=True)
    local = [edge - span.start for edge in edges[bins.start : bins.stop + 1]]
    sizes = [b - a for a, b in pairwise(local)]
    largest = max(sizes)
    if min(sizes) == largest:
        blocks = tile.reshape(tile.shape[0], len(sizes), largest)
        return blocks.amax(-1) if how == "max" else blocks.sum(-1)
    starts = torch.tensor(local[:-1], device=tile.device)[:, None]
    steps = torch.arange(largest, device=tile.device)
    within = steps < torch.tensor(sizes, device=tile.device)[:, None]  # (bins, largest)
    blocks = tile[:, torch.where(within, starts + steps, starts)]  # a short bin repeats its first cell
    return blocks.amax(-1) if how == "max" else (blocks * within).sum(-1)
