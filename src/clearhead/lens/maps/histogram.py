"""Histograms. How many weights of a map are how large, counted tile by tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import InputError
from clearhead.lens.maps.derived import Derived, col_spans, row_spans
from clearhead.lens.maps.softmax import exponential


@dataclass(frozen=True, eq=False)
class Histogram:
    """`counts[b]` weights lie in edges[b] ≤ A < edges[b + 1]; `below` and `above` lie outside all edges.

    Cells that may not be read are left out: `total` is the number of those that may be. An edge of 1 takes in what
    rounding puts above it.
    """

    edges: Float[Tensor, " n"]
    counts: Int[Tensor, " bins"]
    below: int
    above: int

    @property
    def total(self) -> int:
        """How many cells may be read."""
        return int(self.counts.sum()) + self.below + self.above


def log_edges(least: float = 1e-12, per_decade: int = 3) -> Float[Tensor, " n"]:
    """Edges from `least` to 1, equally far apart in their logarithm."""
    if not 0 < least < 1 or per_decade < 1:
        raise InputError(f"edges from {least} with {per_decade} to a power of ten cannot be; choose 0 < least < 1.")
    bins = max(1, round(-math.log10(least) * per_decade))
    return torch.logspace(math.log10(least), 0, bins + 1, dtype=torch.float64)


def linear_edges(bins: int = 50) -> Float[Tensor, " n"]:
    """Edges from 0 to 1, equally far apart."""
    if bins < 1:
        raise InputError(f"{bins} bins cannot be; choose 1 or more.")
    return torch.linspace(0, 1, bins + 1, dtype=torch.float64)


def histogram(m: Derived, edges: Sequence[float] | Float[Tensor, " n"] | None) -> Histogram:
    """Count all weights that may be read between edges that rise; `log_edges()` where None are given."""
    try:
        edges = log_edges() if edges is None else torch.as_tensor(edges, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError("the edges of a histogram are numbers; give a list of two or more that rise.") from None
    if edges.ndim != 1 or len(edges) < 2 or not bool((edges.diff() > 0).all()):
        raise InputError("the edges of a histogram must rise: give two or more numbers, each above the one before.")
    bounds = edges.clone()
    if bounds[-1] == 1.0:
        bounds[-1] = math.inf
    bounds = bounds.to(m.device, m.wide)
    counts = torch.zeros(len(edges) + 1, dtype=torch.long, device=m.device)
    for rows in row_spans(m):
        for cols in col_spans(m, rows):
            logs = m.logs(rows, cols).flatten().contiguous()
            forbidden = (logs == -math.inf).sum()
            where = torch.bucketize(exponential(logs), bounds, right=True, out_int32=True)
            # A weight of 0 lies in the first bin whose lower edge it reaches; forbidden cells look the same.
            zero = int(torch.bucketize(torch.zeros((), dtype=m.wide, device=m.device), bounds, right=True))
            counts += torch.bincount(where, minlength=len(counts))
            counts[zero] -= forbidden
    below, *inside, above = counts.tolist()
    return Histogram(edges, torch.tensor(inside), below, above)
