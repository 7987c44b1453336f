"""Overviews. A map of any size as a picture of h×w: each cell the largest, or the mean, weight of its block.

`pool` is exact and streams. `overview` gives the same step by step: at once a coarse picture from a sample of the
queries, then the exact one band by band, so that something can be shown while a long text is worked through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import InputError
from clearhead.lens.maps import derived
from clearhead.lens.maps.derived import Derived, count
from clearhead.lens.maps.softmax import exponential

How = Literal["max", "mean"]
"""What a cell of an overview tells of its block."""

SAMPLE = 2**23
"""A coarse picture is made from about so many weights."""


@dataclass(frozen=True, eq=False)
class Overview:
    """A picture of a map so far: its first `exact_rows` rows are exact, and `done` is the share of the work done.

    The other rows come from a sample: of each block of queries the one in its middle, over all keys (over every n-th,
    where that is more than SAMPLE weights). A sampled maximum is never above the true one.
    """

    picture: Float[Tensor, "height width"]
    exact_rows: int
    done: float

    @property
    def exact(self) -> bool:
        """True of the last: all of it is exact."""
        return self.exact_rows == self.picture.shape[0]


def pool(m: Derived, height: int, width: int, how: How) -> Float[Tensor, "height width"]:
    """Cell (a, b) is the max (or mean) of A over its block of queries and keys."""
    height, width = _fitting(m, height, width, how)
    picture = torch.zeros(height, width, dtype=m.wide, device=m.device)
    if not height or not width:
        return picture
    for bins, band in _bands(m, height, width, how):
        picture[bins.start : bins.stop] = band
    return picture


def overview(m: Derived, height: int, width: int, how: How) -> Iterator[Overview]:
    """`pool` step by step; what was asked for is checked before the first step."""
    return _overviews(m, *_fitting(m, height, width, how), how)


def _overviews(m: Derived, height: int, width: int, how: How) -> Iterator[Overview]:
    if not height or not width:
        yield Overview(torch.zeros(height, width, dtype=m.wide, device=m.device), height, 1.0)
        return
    if height < m.shape[0]:
        picture = _coarse(m, height, width, how)
        yield Overview(picture.clone(), 0, 0.0)
    else:
        picture = torch.zeros(height, width, dtype=m.wide, device=m.device)
    blocks = [range(a, b) for a, b in pairwise(_edges(m.shape[0], height))]
    work = torch.tensor([len(m.scoring.mask.reach(rows, m.shape[1])) * len(rows) for rows in blocks])
    done = (work.cumsum(0) / work.sum().clamp(min=1)).tolist()
    for bins, band in _bands(m, height, width, how):
        picture[bins.start : bins.stop] = band
        yield Overview(picture.clone(), bins.stop, 1.0 if bins.stop == height else done[bins.stop - 1])


def _fitting(m: Derived, height: int, width: int, how: How) -> tuple[int, int]:
    if how not in ("max", "mean"):
        raise InputError(f"pool(how={how!r}) is not a choice; choose 'max' or 'mean'.")
    return min(count(height, "rows"), m.shape[0]), min(count(width, "columns"), m.shape[1])


def _bands(m: Derived, height: int, width: int, how: How) -> Iterator[tuple[range, Float[Tensor, "bins width"]]]:
    """The exact picture from top to bottom, some rows at a time. Maxima are taken before the exponential."""
    row_edges, col_edges = _edges(m.shape[0], height), _edges(m.shape[1], width)
    nothing = -math.inf if how == "max" else 0.0
    band = torch.empty(0, width)
    for rows, row_bins in _spans(row_edges, derived.ROWS):
        if rows.start == row_edges[row_bins.start]:
            band = torch.full((len(row_bins), width), nothing, dtype=m.wide, device=m.device)
        reach = m.scoring.mask.reach(rows, m.shape[1])
        for cols, col_bins in _spans(col_edges, derived.COLS):
            low, high = max(cols.start, reach.start), min(cols.stop, reach.stop)
            if low >= high:
                continue
            cols = range(low, high)
            logs = m.logs(rows, cols)
            tile = _bin(logs if how == "max" else exponential(logs), rows, row_edges, row_bins, how)
            first, last = _bin_of(low, col_edges, col_bins), _bin_of(high - 1, col_edges, col_bins)
            col_bins = range(first, last + 1)
            tile = _bin(tile.T, cols, col_edges, col_bins, how).T
            part = band[:, first : last + 1]
            if how == "max":
                torch.maximum(part, tile, out=part)
            else:
                part += tile
        if rows.stop == row_edges[row_bins.stop]:
            yield row_bins, _finished(band, row_edges, col_edges, row_bins, how)


def _finished(band: Tensor, row_edges: list[int], col_edges: list[int], bins: range, how: How) -> Tensor:
    if how == "max":
        return exponential(band)
    heights = torch.tensor(row_edges[bins.start : bins.stop + 1], device=band.device).diff()
    return band / (heights[:, None] * torch.tensor(col_edges, device=band.device).diff()[None, :])


def _coarse(m: Derived, height: int, width: int, how: How) -> Float[Tensor, "height width"]:
    """The picture from one query of each block, its middle one, over all keys or every step-th."""
    queries, keys = m.shape
    step = max(1, min(keys // width, -(-height * keys // SAMPLE)))
    at = torch.tensor([(a + b) // 2 for a, b in pairwise(_edges(queries, height))])
    sampled = range(0, keys, step)
    edges = [-(-edge // step) for edge in _edges(keys, width)]  # in steps: every bin holds at least one
    picture = torch.zeros(height, width, dtype=m.wide, device=m.device)
    most = max(1, SAMPLE // 8 // len(sampled))
    for start in range(0, height, most):
        rows = at[start : start + most]
        reach = m.scoring.mask.reach(range(int(rows[0]), int(rows[-1]) + 1), keys)
        low, high = -(-reach.start // step), -(-reach.stop // step)
        if low >= high:
            continue
        cols = range(reach.start, reach.stop) if step == 1 else torch.arange(low * step, reach.stop, step)
        tile = m.logs(rows, cols)
        everything = range(width)
        first, last = _bin_of(low, edges, everything), _bin_of(high - 1, edges, everything)
        bins = range(first, last + 1)
        tile = _bin((tile if how == "max" else exponential(tile)).T, range(low, high), edges, bins, how).T
        part = picture[start : start + most, first : last + 1]
        part[:] = exponential(tile) if how == "max" else tile
    sizes = torch.tensor(edges, device=m.device).diff()
    return picture if how == "max" else picture / sizes


def _edges(size: int, bins: int) -> list[int]:
    return [a * size // bins for a in range(bins + 1)]


def _bin_of(index: int, edges: list[int], bins: range) -> int:
    """The bin, one of `bins`, in which an index lies."""
    low, high = bins.start, bins.stop
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if edges[middle] <= index else (low, middle)
    return low


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


def _bin(tile: Float[Tensor, "n m"], span: range, edges: list[int], bins: range, how: How) -> Float[Tensor, "bins m"]:
    """Reduce the first axis, which covers the indices `span`, to its bins: their maxima, or their sums for a mean."""
    if len(bins) == 1:
        return tile.amax(0, keepdim=True) if how == "max" else tile.sum(0, keepdim=True)
    inner = [edge - span.start for edge in edges[bins.start + 1 : bins.stop]]
    local = [0, *inner, len(span)]  # the first and the last bin may be cut
    sizes = [b - a for a, b in pairwise(local)]
    largest = max(sizes)
    if min(sizes) == largest:
        blocks = tile.reshape(len(sizes), largest, tile.shape[1])
        return blocks.amax(1) if how == "max" else blocks.sum(1)
    if len(bins) <= 32:
        parts = [tile[a:b] for a, b in pairwise(local)]
        return torch.stack([part.amax(0) if how == "max" else part.sum(0) for part in parts])
    starts = torch.tensor(local[:-1], device=tile.device)[:, None]
    steps = torch.arange(largest, device=tile.device)
    within = steps < torch.tensor(sizes, device=tile.device)[:, None]  # (bins, largest)
    blocks = tile[torch.where(within, starts + steps, starts)]  # a short bin repeats its first cell
    return blocks.amax(1) if how == "max" else (blocks * within[..., None]).sum(1)
