"""The strongest links. Of one query, of every query, and of the whole map, without the map.

Weights are compared before the exponential, which keeps their order. For the hottest cells of all, most tiles are
never made: no score is above |scale|·‖q‖·‖k‖ (Cauchy–Schwarz), so a tile whose bound lies under the k strongest cells
found so far has none of them. Tiles are taken by falling bound, and the search ends at the first that is too weak.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import OutsideError
from clearhead.lens.maps.derived import Derived, col_spans, count, row_spans
from clearhead.lens.maps.softmax import exponential

SLACK = 1e-4
"""What rounding may add to a bound of 1; a tile is left out only if it stays under even so."""


class Cell(NamedTuple):
    """One weight of a map: query `row` gives `weight` to key `column`."""

    row: int
    column: int
    weight: float


class TopRows(NamedTuple):
    """For each of n queries its k strongest keys, strongest first: weight 0 and key −1 where it reads fewer."""

    weights: Float[Tensor, "n k"]
    keys: Int[Tensor, "n k"]


def strongest_of_rows(m: Derived, k: int, rows: range | None = None) -> TopRows:
    """The k keys that each query in `rows` (all by default) reads most."""
    rows = range(m.shape[0]) if rows is None else rows
    if not isinstance(rows, range) or rows.step != 1 or (len(rows) and not 0 <= rows.start < rows.stop <= m.shape[0]):
        raise OutsideError(f"{rows} is no run of queries of {m.name}; choose from range(0, {m.shape[0]}).")
    k = min(count(k, "keys"), m.shape[1])
    weights = torch.zeros(len(rows), k, dtype=m.wide, device=m.device)
    keys = torch.full((len(rows), k), -1, dtype=torch.long, device=m.device)
    for span in _cut(rows, m):
        best = torch.full((len(span), 0), -math.inf, dtype=m.wide, device=m.device)
        where = torch.empty(len(span), 0, dtype=torch.long, device=m.device)
        for cols in col_spans(m, span):
            values, at = m.logs(span, cols).topk(min(k, len(cols)))
            best, where = torch.cat((best, values), 1), torch.cat((where, at + cols.start), 1)
            best, kept = best.topk(min(k, best.shape[1]))
            where = where.gather(1, kept)
        found = exponential(best)
        place = slice(span.start - rows.start, span.stop - rows.start)
        weights[place, : found.shape[1]] = found
        keys[place, : found.shape[1]] = torch.where(found > 0, where, torch.full_like(where, -1))
    return TopRows(weights, keys)


def strongest_of_row(m: Derived, i: int, k: int) -> list[Cell]:
    """The k keys that query i reads most, strongest first; keys that it may not read are left out."""
    weights, keys = (x[0].tolist() for x in strongest_of_rows(m, k, range(i, i + 1)))
    return [Cell(i, key, weight) for weight, key in zip(weights, keys, strict=True) if key >= 0]


def hottest(m: Derived, k: int) -> list[Cell]:
    """The k strongest weights of the whole map, strongest first; of equal ones, any."""
    k = count(k)
    best = torch.empty(0, dtype=m.wide, device=m.device)
    where = torch.empty(0, dtype=torch.long, device=m.device)
    floor = -math.inf
    for bound, rows, cols in _bounded(m):
        if bound <= floor:
            break
        logs = m.logs(rows, cols)
        if float(logs.amax()) <= floor:
            continue
        flat = logs.flatten()
        found = (flat > floor).nonzero()[:, 0] if floor > -math.inf else torch.arange(len(flat), device=m.device)
        values, kept = flat[found].topk(min(k, len(found)))
        found = found[kept]
        cells = (rows.start + found // len(cols)) * m.shape[1] + cols.start + found % len(cols)
        best, where = torch.cat((best, values)), torch.cat((where, cells))
        best, kept = best.topk(min(k, len(best)))
        where = where[kept]
        floor = float(best[-1]) if len(best) == k else -math.inf
    width = m.shape[1]
    pairs = zip(where.tolist(), exponential(best).tolist(), strict=True)
    return [Cell(cell // width, cell % width, weight) for cell, weight in pairs if weight > 0]


def _bounded(m: Derived) -> Iterator[tuple[float, range, range]]:
    """Every tile that may be read, with a log-weight that none of its cells exceeds; the largest first.

    Where something is added to the scores no bound is known but infinity, and the order is the map's own.
    """
    scoring = m.scoring
    tiles = [(rows, cols) for rows in row_spans(m) for cols in col_spans(m, rows)]
    if scoring.mask.biases:
        yield from ((math.inf, rows, cols) for rows, cols in tiles)
        return
    norms: dict[range, Tensor] = {}
    nothing = range(0)
    found = []
    for rows in row_spans(m):
        q, _, lse = m.given(rows, nothing)
        reach_of_q = q.to(m.wide).norm(dim=-1) * abs(scoring.scale) * (1 + SLACK)
        spans = list(col_spans(m, rows))
        for cols in spans:
            if cols not in norms:
                norms[cols] = m.given(nothing, cols)[1].to(m.wide).norm(dim=-1).amax()
        if not spans:
            continue
        scores = reach_of_q[:, None] * torch.stack([norms[cols] for cols in spans])
        if scoring.softcap is not None:
            scores = scores.clamp(max=abs(scoring.softcap))
        bounds = (scores - lse.to(m.wide)[:, None]).amax(0) + SLACK
        found += [(bound, rows, cols) for bound, cols in zip(bounds.tolist(), spans, strict=True)]
    yield from sorted(found, key=lambda tile: -tile[0])


def _cut(rows: range, m: Derived) -> Iterator[range]:
    step = len(next(row_spans(m), range(1)))
    for start in range(rows.start, rows.stop, step):
        yield range(start, min(rows.stop, start + step))
