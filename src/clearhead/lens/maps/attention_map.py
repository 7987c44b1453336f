"""AttentionMap. One head's weights over one text: it behaves like a Tq×Tk array, and stores none.

It keeps q, k and the log-sum-exp of the kernel that ran, O(T·D) numbers, and derives any weight when someone looks:

    A[i, j] = exp(score(q_i, k_j) − lse_i)

Rows, columns, tiles, the strongest links and pooled overviews are worked out in blocks; no T×T tensor is made unless
`dense()` (or `numpy.asarray`) asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import LensError, OutsideError, ReleasedError
from clearhead.lens.index import index as whole
from clearhead.lens.index import indices, within
from clearhead.lens.maps import pooling, receipts, strongest
from clearhead.lens.maps.derived import col_spans, row_spans
from clearhead.lens.maps.histogram import Histogram, histogram
from clearhead.lens.maps.pooling import How, Overview
from clearhead.lens.maps.receipts import Receipt
from clearhead.lens.maps.softmax import derive_weights as derive_weights
from clearhead.lens.maps.softmax import exponential, log_weights
from clearhead.lens.maps.strongest import Cell as Cell
from clearhead.lens.maps.strongest import TopRows
from clearhead.model.kernels import Scoring

if TYPE_CHECKING:
    import numpy as np

ARRAY_CELLS = 2**26
"""`numpy.asarray`, which is easily called by accident, makes an array of at most so many weights, 8,192²: 268 MB."""


class AttentionMap:
    """The weights of one head. `m[i]` is what query i reads, `m[a:b, c:d]` a tile, `m[i, j]` one weight.

    Rows sum to 1 (less with sinks; 0 where a query may read nothing). Indices count from 0 and may be negative;
    one that lies outside raises OutsideError, a released map raises ReleasedError.

    Several threads may read one map at once, and get the same numbers: reading changes nothing (of a rounded map only
    the log-sum-exp of rows not read before, by every thread to the same). Where another thread releases it, a read that
    has begun ends whole, or says that it was released; none is ever half right.
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
        gone: str = "its q, k and log-sum-exp are gone",
        ran_in: torch.dtype | None = None,
        settle: Callable[[Int[Tensor, " n"] | None], None] | None = None,
        v: Float[Tensor, "1 1 Tk Dv"] | None = None,
        out: Float[Tensor, "1 1 Tq Dv"] | None = None,
    ) -> None:
        self._q, self._k, self._lse, self._scoring = q, k, lse, scoring
        self._released, self._gone, self._settle = released, gone, settle
        self._v, self._out = v, out
        self.ran_in: torch.dtype = q.dtype if ran_in is None else ran_in  # the kernel, whatever q and k are kept in
        self.name = name
        self.words: tuple[Sequence[str], Sequence[str]] | None = None  # the rows' and columns', where a Look knows them
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
        if self._settle is not None:
            self._settle(None)
        return self._lse

    @property
    def scoring(self) -> Scoring:
        """How q and k became scores: scale, mask, bias, softcap, sinks."""
        return self._scoring

    def __repr__(self) -> str:
        return f"<AttentionMap {self.name}: {self.shape[0]} queries × {self.shape[1]} keys, derived on demand>"

    def _repr_html_(self) -> str:
        """A small picture with its caption, for notebooks."""
        from clearhead.lens.ways_out.notebook import map_html

        return map_html(self)

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
        cells = self.shape[0] * self.shape[1]
        if copy is False:
            raise ValueError(f"{self.name} stores no array that could be shared; leave copy=False out.")
        if cells > ARRAY_CELLS:
            raise LensError(
                f"{self.name} has {self.shape[0]:,} × {self.shape[1]:,} weights, {cells * 4 / 1e9:.1f} GB as an array; "
                "take a part, m[a:b, c:d], an overview, m.pool(512, 512), or all of it all the same, m.dense().numpy()."
            )
        array: np.ndarray = self.dense().cpu().numpy()
        return array if dtype is None else array.astype(dtype)

    # ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────

    def tile(self, rows: range, cols: range) -> Float[Tensor, "q k"]:
        """The weights of these queries and keys, as ranges of indices that count from 0."""
        self._check()
        for span, axis in ((rows, 0), (cols, 1)):
            if len(span):
                self._inside(span[0], axis, least=0)
                self._inside(span[-1], axis, least=0)
        if not len(rows) or not len(cols) or rows.step != 1 or cols.step != 1:
            return self.at(self._indices(rows), self._indices(cols))
        reach = self._scoring.mask.reach(rows, self.shape[1])
        low, high = max(reach.start, cols.start), min(reach.stop, cols.stop)
        if low == cols.start and high == cols.stop:
            return exponential(self.logs(rows, cols))
        tile = torch.zeros(len(rows), len(cols), dtype=self.wide, device=self.device)
        if low < high:
            tile[:, low - cols.start : high - cols.start] = exponential(self.logs(rows, range(low, high)))
        return tile

    def at(self, rows: Int[Tensor, " q"], cols: Int[Tensor, " k"]) -> Float[Tensor, "q k"]:
        """The weights of these queries and keys, numbered from 0, in any order. The slow twin of `tile`."""
        rows, cols = within(rows, self.shape[0], "a query"), within(cols, self.shape[1], "a key")
        q, k, lse = self.given(rows, cols)
        rows, cols = rows.to(self.device), cols.to(self.device)
        return derive_weights(q[None, None], k[None, None], lse[None, None], self._scoring, rows, cols)[0, 0]

    def logs(self, rows: Int[Tensor, " q"] | range, cols: Int[Tensor, " k"] | range) -> Float[Tensor, "q k"]:
        """log A of these queries and keys, −∞ where a query may not read. Ranges count by ones and lie inside."""
        return log_weights(*self.given(rows, cols), self._scoring, rows, cols)

    def tiles(self) -> Iterator[tuple[range, range, Float[Tensor, "q k"]]]:
        """Every tile in which something may be read, as (queries, keys, weights). All that streams stands on it."""
        for rows in row_spans(self):
            for cols in col_spans(self, rows):
                yield rows, cols, exponential(self.logs(rows, cols))

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
        return strongest.strongest_of_row(self, self._inside(i, 0), k)

    def top_rows(self, k: int = 5, rows: range | None = None) -> TopRows:
        """The same for every query, or for those in `rows`: (n, k) weights and keys; key −1 where none is left."""
        return strongest.strongest_of_rows(self, k, rows)

    def hottest(self, k: int = 10) -> list[Cell]:
        """The k strongest weights of the whole map, strongest first."""
        return strongest.hottest(self, k)

    def row_sums(self) -> Float[Tensor, " Tq"]:
        """Σ_j A[i, j] for each query: 1, unless a sink takes some of it or the query may read nothing."""
        sums = torch.zeros(self.shape[0], dtype=self.wide, device=self.device)
        for rows, _, tile in self.tiles():
            sums[rows.start : rows.stop] += tile.sum(dim=1)
        return sums

    def column_sums(self) -> Float[Tensor, " Tk"]:
        """Σ_i A[i, j] for each key: how much attention it receives from all queries."""
        sums = torch.zeros(self.shape[1], dtype=self.wide, device=self.device)
        for _, cols, tile in self.tiles():
            sums[cols.start : cols.stop] += tile.sum(dim=0)
        return sums

    def pool(self, height: int = 64, width: int = 64, how: How = "max") -> Float[Tensor, "height width"]:
        """An overview: cell (a, b) is the max (or mean) of A over its block of queries and keys. Exact.

        Block a of n covers indices ⌊a·T/n⌋ … ⌊(a+1)·T/n⌋−1. A map smaller than height×width comes back as it is.
        """
        return pooling.pool(self, height, width, how)

    def overview(self, height: int = 64, width: int = 64, how: How = "max") -> Iterator[Overview]:
        """`pool` step by step: a coarse picture at once, the exact one at the end. Stop iterating to stop the work."""
        return pooling.overview(self, height, width, how)

    def histogram(self, edges: Sequence[float] | Float[Tensor, " edges"] | None = None) -> Histogram:
        """How many weights lie between each two edges: powers of ten by default, from 1e-12 to 1, three to each."""
        return histogram(self, edges)

    def verify(self, rows: Sequence[int] | None = None, *, atol: float | None = None) -> Receipt:
        """Proof that what is shown is what ran; see `receipts.py`. rows: 16 spread over the map by default."""
        return receipts.verify(self, None if rows is None else indices(rows, "a query"), atol=atol)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def wide(self) -> torch.dtype:
        """The precision that weights are worked out in: float32, or float64 where the kernel had that."""
        return torch.float64 if self._q.dtype == torch.float64 else torch.float32

    @property
    def rounded(self) -> torch.dtype | None:
        """The precision that q and k were rounded to, to be kept in; None where they are as the kernel had them."""
        return self._q.dtype if self._settle is not None else None

    @property
    def device(self) -> torch.device:
        """Where weights are worked out: where the kernel ran, also when q and k were spilled to a file."""
        return self._lse.device

    @property
    def shown(self) -> tuple[Float[Tensor, "Tk Dv"], Float[Tensor, "Tq Dv"]] | None:
        """v and the output that the kernel gave, where receipts were kept."""
        self._check()
        return None if self._v is None or self._out is None else (self._v[0, 0], self._out[0, 0])

    def given(
        self, rows: Int[Tensor, " q"] | range, cols: Int[Tensor, " k"] | range
    ) -> tuple[Float[Tensor, "q D"], Float[Tensor, "k D"], Float[Tensor, " q"]]:
        """q, k and the log-sum-exp of these rows and columns, on the device that works."""
        self._check()
        if self._settle is not None and len(rows):
            self._settle(self._indices(rows) if isinstance(rows, range) else rows)
        taken = []
        for x, at in ((self._q[0, 0], rows), (self._k[0, 0], cols), (self._lse[0, 0], rows)):
            part = x[at.start : at.stop] if isinstance(at, range) else x[at.to(x.device)]
            taken.append(part.to(self.device))
        return taken[0], taken[1], taken[2]

    def _check(self) -> None:
        if self._released():
            raise ReleasedError(f"{self.name} was released: {self._gone}; look again.")

    def _indices(self, span: range) -> Int[Tensor, " n"]:
        if len(span) == 0:
            return torch.empty(0, dtype=torch.long, device=self.device)
        return torch.arange(span.start, span.stop, span.step, device=self.device)

    def _inside(self, index: object, axis: int, least: int | None = None) -> int:
        size, word = self.shape[axis], ("query", "key")[axis]
        i = whole(index, f"a {word}")
        if not (-size if least is None else least) <= i < size:
            raise OutsideError(f"{word} {index} is outside {self.name}, which has {size}; choose 0…{size - 1}.")
        return i % size

    def _span(self, index: object, axis: int) -> tuple[range, bool]:
        if isinstance(index, slice):
            try:
                return range(*index.indices(self.shape[axis])), True
            except (TypeError, ValueError) as error:
                raise OutsideError(f"{self.name} cannot be sliced like that: {error}.") from None
        i = self._inside(index, axis)
        return range(i, i + 1), False
