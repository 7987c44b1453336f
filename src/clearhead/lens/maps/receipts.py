"""Receipts. Proof that what is shown is what ran, with the error printed.

For a sample of rows everything is worked out a second time, in float64, from q and k alone: a softmax of its own, which
does not know the log-sum-exp that the kernel left. Held against it are the weights that the map shows, their row sums,
and, where `watch(…, receipts=True)` kept them, A·V against the output that the kernel really gave.

What may differ is rounding, and how much of it there may be is stated:

    weights, row sums    base + 4u · S,   S = max |scale|·‖q_i‖·‖k_j‖ + |bias|   (largest score there can be)
    A·V                  (base' + 4u · S) · max |V|

with u = 2⁻²⁴ and the bases of `BASES` (u = 2⁻⁵³ for float64). Scores of 100 are known to some 1e-5 in float32: the
kernel that ran knew them no better. Where q and k were rounded to be kept, the weights are held to those of the rounded
ones, and A·V to within (e^(2δ) − 1) · max |V| more (see `Half`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import InputError, OutsideError
from clearhead.lens.maps.derived import Derived
from clearhead.lens.maps.softmax import exponential

SPREAD = 16
"""So many rows are verified where none are named: the first, the last, and others equally far apart."""

CELLS = 2**22
"""So many float64 weights are held at once."""

BASES: dict[torch.dtype, tuple[float, float, float]] = {
    torch.float64: (1e-12, 1e-12, 1e-14),
    torch.float32: (1e-6, 2e-6, 1e-7),
    torch.bfloat16: (1e-4, 2e-2, 1e-4),
    torch.float16: (1e-4, 4e-3, 1e-4),
}
"""By the precision that ran: for weights, for A·V in parts of max |V|, and the least that may be asked for."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What `verify` found for one head: the largest differences, and the tolerances they are held to.

    row_sums: |Σ_j A[i, j] − what it should be|, which is 1, less where a sink takes some, 0 where nothing may be read.
    weights: |A − the float64 softmax of q and k|. output: |A·V − the kernel's output|, None where it was not kept.
    """

    name: str
    n_rows: int
    of_rows: int
    precision: str
    row_sums: float
    weights: float
    output: float | None
    tolerance: float
    output_tolerance: float | None

    @property
    def strain(self) -> float:
        """The largest difference as a share of its tolerance: up to 1 is well. NaN counts as infinite."""
        shares = [self.row_sums / self.tolerance, self.weights / self.tolerance]
        if self.output is not None and self.output_tolerance is not None:
            exact = 0.0 if self.output == 0 else math.inf  # a head whose values are zero is held to nothing less
            shares.append(self.output / self.output_tolerance if self.output_tolerance else exact)
        return max(math.inf if math.isnan(share) else share for share in shares)

    @property
    def ok(self) -> bool:
        """True if every difference is within its tolerance."""
        return self.strain <= 1

    def __str__(self) -> str:
        output = (
            "the kernel's output was not kept (watch with receipts=True, and without dropout)"
            if self.output is None or self.output_tolerance is None
            else f"A·V within {self.output:.1e} of the kernel's output (allowed {self.output_tolerance:.1e})"
        )
        return (
            f"{self.name}: {'verified' if self.ok else 'NOT what ran'}, {self.n_rows:,} of {self.of_rows:,} rows, "
            f"{self.precision}; row sums within {self.row_sums:.1e}, weights within {self.weights:.1e} of float64 "
            f"(allowed {self.tolerance:.1e}); {output}"
        )


@dataclass(frozen=True)
class Receipts:
    """The receipts of many heads, the worst first."""

    heads: tuple[Receipt, ...]

    @property
    def ok(self) -> bool:
        """True if every head is what ran."""
        return all(receipt.ok for receipt in self.heads)

    @property
    def worst(self) -> Receipt:
        """The one that comes nearest to its tolerance, or passes it by most."""
        return self.heads[0]

    def __iter__(self) -> Iterator[Receipt]:
        return iter(self.heads)

    def __len__(self) -> int:
        return len(self.heads)

    def __str__(self) -> str:
        failed = sum(not receipt.ok for receipt in self.heads)
        verdict = f"{failed} of {len(self)} heads are NOT what ran" if failed else f"{len(self)} heads verified"
        return f"{verdict}; the worst: {self.worst}"


def verify(m: Derived, rows: Sequence[int] | None, *, atol: float | None) -> Receipt:
    """Work these rows out again in float64 and compare. atol: a tolerance for the weights other than the stated one.

    Raises OutsideError for a row that is not there, InputError for an `atol` that the precision that ran cannot give.
    """
    chosen = _spread(m.shape[0]) if rows is None else [_inside(i, m) for i in rows]
    if not chosen and m.shape[0]:
        raise InputError("no rows were named; name some, or leave rows out for a spread sample.")
    base, output_base, least = BASES.get(m.ran_in, BASES[torch.float32])
    word = str(m.ran_in).removeprefix("torch.")
    if atol is not None and not atol >= least:
        raise InputError(
            f"{m.name} ran in {word}, which gives weights to about {least:.0e}: atol={atol:g} is more than it can "
            f"promise; ask for atol={least:.0e} or more, or run the model in float64."
        )
    if m.rounded is not None:
        base = max(base, BASES[torch.float32][0])
        word += f" kept as {str(m.rounded).removeprefix('torch.')}"
    found = _Found()
    shown = m.shown
    step = max(1, CELLS // max(1, m.shape[1]))
    for start in range(0, len(chosen), step):
        found.add(m, torch.tensor(chosen[start : start + step], device=m.device), shown)
    unit = 2.0**-53 if m.ran_in == torch.float64 else 2.0**-24
    tolerance = base + 4 * unit * found.largest if atol is None else atol
    allowed = None
    if shown is not None:
        most = float(shown[0].abs().max()) if shown[0].numel() else 0.0
        allowed = (output_base + 4 * unit * found.largest) * most
        if m.rounded is not None:
            u = 2.0**-9 if m.rounded == torch.bfloat16 else 2.0**-12
            allowed += math.expm1(min(50.0, 2 * found.largest * (2 * u + u * u))) * most
    return Receipt(
        name=m.name,
        n_rows=len(chosen),
        of_rows=m.shape[0],
        precision=word,
        row_sums=found.row_sums,
        weights=found.weights,
        output=None if shown is None else found.output,
        tolerance=tolerance,
        output_tolerance=allowed,
    )


class _Found:
    """The largest differences so far, and the largest score that q and k allow."""

    def __init__(self) -> None:
        self.row_sums = self.weights = self.output = self.largest = 0.0

    def add(self, m: Derived, rows: Int[Tensor, " n"], shown: tuple[Tensor, Tensor] | None) -> None:
        everything = range(m.shape[1])
        weights = exponential(m.logs(rows, everything)).double()
        exact, sums, largest = _softmax(m, rows)
        self.largest = max(self.largest, largest)
        self.row_sums = _worse(self.row_sums, weights.sum(1) - sums)
        self.weights = _worse(self.weights, weights - exact)
        if shown is not None:
            v, out = (x.to(m.device) for x in (shown[0], shown[1][rows.to(shown[1].device)]))
            self.output = _worse(self.output, weights @ v.double() - out.double())


def _softmax(m: Derived, rows: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n Tk"], Float[Tensor, " n"], float]:
    """The equation in float64 for these rows: weights, their sums, and the largest score there can be."""
    q, k, _ = m.given(rows, range(m.shape[1]))
    q, k = q.double(), k.double()
    cols = torch.arange(m.shape[1], device=m.device)
    scores = m.scoring.scores(q[None, None], k[None, None], rows, cols)[0, 0]
    finite = scores[scores > -math.inf]
    norms = [float(x.norm(dim=-1).max()) if x.numel() else 0.0 for x in (q, k)]
    largest = abs(m.scoring.scale) * norms[0] * norms[1] + (float(finite.abs().max()) if finite.numel() else 0.0)
    sinks = m.scoring.sinks
    sink = torch.full((len(rows), 1), -math.inf, dtype=torch.float64, device=m.device)
    if sinks is not None:
        sink = sinks.to(m.device, torch.float64).reshape(1, 1).expand(len(rows), 1)
    both = torch.cat((scores, sink), 1)
    both = both.masked_fill((both == -math.inf).all(1, keepdim=True), 0.0).softmax(1)
    weights = both[:, :-1].masked_fill(scores == -math.inf, 0.0)
    return weights, weights.sum(1), largest


def _worse(before: float, difference: Tensor) -> float:
    """The larger of the two; NaN, once met, stays."""
    now = float(difference.abs().max()) if difference.numel() else 0.0
    return before if math.isnan(before) or before > now else now


def _spread(size: int) -> list[int]:
    n = min(size, SPREAD)
    return [round(a * (size - 1) / max(1, n - 1)) for a in range(n)]


def _inside(i: int, m: Derived) -> int:
    if not -m.shape[0] <= i < m.shape[0]:
        raise OutsideError(f"query {i} is outside {m.name}, which has {m.shape[0]}; choose 0…{m.shape[0] - 1}.")
    return i % m.shape[0]
