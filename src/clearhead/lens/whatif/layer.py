"""On the layer, exactly. One head's map under another rule, from what was kept of it: q, k and the log-sum-exp alone.

Each function gives an AttentionMap whose new log-sum-exp is worked out for the rows that are looked at: a what-if costs
nothing until then, and nothing T×T is made. It answers for this layer; what would follow downstream is another question
(`rerun.py`). With values kept (`watch(model, receipts=True)`), `output` gives what the head would say. A map that still
grows is asked as it is at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import InputError, LensError, OutsideError
from clearhead.lens.given import described
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.maps.growing import GrowingMap
from clearhead.lens.maps.softmax import log_sum_exp
from clearhead.lens.whatif.rescoring import (
    ORDER,
    AtTemperature,
    Rescoring,
    WithoutEdges,
    WithoutKeys,
    WithoutMask,
    WithoutScale,
    WithoutSinks,
)
from clearhead.model.kernels import Scoring

SWITCH = 0.5
"""A row that loses more of its weight than this is summed anew: 1 − lost would keep too few of its digits."""

BLOCK = 128
"""So many rows have their log-sum-exp worked out at once."""

OfRows = Callable[[Int[Tensor, " n"]], Float[Tensor, " n"]]


def without_keys(m: AttentionMap, keys: Sequence[int]) -> AttentionMap:
    """The map as if these keys were not there: the others share their weight, A[i, j] / (1 − Σ_deleted A[i, ·]).

    lse' = log(e^lse − Σ_deleted e^s) = lse + log(1 − Σ_deleted A), or summed anew where the rest is small. A row that
    has nothing left to read is all zeros. To take a decoder's first-token sink away: without_keys(m, [0]).
    Raises OutsideError for a key there is not.
    """
    m = _at_this_moment(m)
    gone = _indices(m, keys, 1)
    change = WithoutKeys(gone)
    scoring = change.of(m.scoring)
    columns = torch.tensor(gone, dtype=torch.long)
    of_rows = _less(m, scoring, lambda rows: m.at(rows, columns).double().sum(-1))
    return _under(m, scoring, of_rows, change.words)


def without_edges(m: AttentionMap, queries: Sequence[int], keys: Sequence[int]) -> AttentionMap:
    """The map as if these queries could not read these keys; other rows stay as they are."""
    m = _at_this_moment(m)
    rows, cols = _indices(m, queries, 0), _indices(m, keys, 1)
    columns, offset = torch.tensor(cols, dtype=torch.long), m.scoring.mask.offset
    scoring = WithoutEdges([row + offset for row in rows], cols).of(m.scoring)
    reading = torch.tensor(rows, dtype=torch.long)

    def lost(i: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return m.at(i, columns).double().sum(-1) * torch.isin(i, reading).to(m._lse.device)

    return _under(m, scoring, _less(m, scoring, lost), WithoutEdges(rows, cols).words)


def without_sinks(m: AttentionMap) -> AttentionMap:
    """The map without its learned sink, lse' = log(e^lse − e^sink): rows sum to 1. InputError where it has none."""
    m = _at_this_moment(m)
    scoring = WithoutSinks().of(m.scoring)
    sinks = m.scoring.sinks
    assert sinks is not None

    def lost(rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.exp(sinks.double() - _lse_of(m, rows).double())

    return _under(m, scoring, _less(m, scoring, lost), WithoutSinks().words)


def at_temperature(m: AttentionMap, temperature: float) -> AttentionMap:
    """softmax(scores / temperature): below 1 sharper, above 1 flatter. Raises InputError unless it is above 0."""
    return rescored(m, AtTemperature(temperature))


def without_scale(m: AttentionMap) -> AttentionMap:
    """Not divided by √d: softmax(q·k + bias). Raises InputError where it is not divided as it is."""
    return rescored(m, WithoutScale())


def without_mask(m: AttentionMap, rules: Sequence[str] = ORDER) -> AttentionMap:
    """Every query reads every key: these rules of the mask are dropped, of "causal", "window", "prefix", "padding",
    "documents". By default those of order, so that padding and other packed texts stay unread.

    Raises InputError where the mask has none of them, or is written out and cannot be told apart.
    """
    return rescored(m, WithoutMask(rules))


def rescored(m: AttentionMap, change: Rescoring) -> AttentionMap:
    """The map under any other scoring, summed anew: the slow twin of those that a subtraction gives."""
    m = _at_this_moment(m)
    scoring = change.of(m.scoring)
    return _under(m, scoring, _anew(m, scoring), change.words)


def output(m: AttentionMap) -> Float[Tensor, "Tq Dv"]:
    """What the head says with these weights: A·V, in blocks. Raises LensError where the values were not kept."""
    m = _at_this_moment(m)
    v = m._v
    if v is None:
        raise LensError(f"{m.name} has no values to weigh; keep them: watch(model, receipts=True).")
    wide = torch.float64 if m.q.dtype == torch.float64 else torch.float32
    out = torch.zeros(m.shape[0], v.shape[-1], dtype=wide, device=m._lse.device)
    for rows, cols, tile in m.tiles():
        out[rows.start : rows.stop] += tile @ v[0, 0, cols.start : cols.stop].to(tile)
    return out


def _at_this_moment(m: AttentionMap) -> AttentionMap:
    """A map that grows no more: q, k and the log-sum-exp of one answer must be those of one moment."""
    if not isinstance(m, AttentionMap):
        raise InputError(f"what-ifs on the layer are asked of one head's map, seen.map(layer, head); {described(m)}.")
    return m.now if isinstance(m, GrowingMap) else m


# ── the new log-sum-exp ──────────────────────────────────────────────────────────────────────────────────────────


def _less(m: AttentionMap, scoring: Scoring, lost: OfRows) -> OfRows:
    """lse + log(1 − lost), where `lost` is the share of each row that goes; summed anew where that is most of it."""
    anew = _anew(m, scoring)

    def of_rows(rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        share = lost(rows)
        lse = _lse_of(m, rows).double() + torch.log1p(-share.clamp(max=SWITCH))
        most = share > SWITCH
        if bool(most.any()):
            lse[most] = anew(rows[most.to(rows.device)]).double()
        return lse

    return of_rows


def _anew(m: AttentionMap, scoring: Scoring) -> OfRows:
    def of_rows(rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        device = m._lse.device
        q = m.q[:, :, rows.to(m.q.device)].to(device)
        return log_sum_exp(q, m.k, scoring, rows.to(device))[0, 0]

    return of_rows


def _lse_of(m: AttentionMap, rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    if m._settle is not None:
        m._settle(rows)
    return m._lse[0, 0, rows.to(m._lse.device)]


class _Later:
    """Works the new log-sum-exp out, block by block of rows, when one of them is looked at.

    Two threads may look at once: both write the same numbers, and a block is ticked off after it is written.
    """

    def __init__(self, lse: Float[Tensor, "1 1 Tq"], of_rows: OfRows) -> None:
        self.lse, self.of_rows = lse, of_rows
        self.done = torch.zeros(-(-lse.shape[2] // BLOCK), dtype=torch.bool)

    def __call__(self, rows: Int[Tensor, " n"] | None) -> None:
        blocks = torch.arange(len(self.done)) if rows is None else torch.unique(rows.cpu() // BLOCK)
        for block in blocks[~self.done[blocks]].tolist():
            start, stop = block * BLOCK, min(self.lse.shape[2], (block + 1) * BLOCK)
            with torch.inference_mode():
                self.lse[0, 0, start:stop] = self.of_rows(torch.arange(start, stop)).to(self.lse)
            self.done[block] = True


def _under(m: AttentionMap, scoring: Scoring, of_rows: OfRows, words: str) -> AttentionMap:
    wide = torch.float64 if m.q.dtype == torch.float64 else torch.float32
    lse = torch.zeros(1, 1, m.shape[0], dtype=wide, device=m._lse.device)
    found = AttentionMap(
        m.q,
        m.k,
        lse,
        scoring,
        name=f"{m.name}, {words}",
        released=lambda: m._released(),
        gone=m._gone,
        settle=_Later(lse, of_rows),
        v=m._v,
    )
    found.words = m.words
    return found


def _indices(m: AttentionMap, indices: Sequence[int], axis: int) -> list[int]:
    size, word = m.shape[axis], ("query", "key")[axis]
    if not isinstance(indices, Iterable) or not all(type(index) is int for index in indices):
        raise InputError(f"{indices!r} is no list of {'queries' if axis == 0 else 'keys'}; give numbers, such as [3].")
    for index in indices:
        if not -size <= index < size:
            raise OutsideError(f"{word} {index} is outside {m.name}, which has {size}; choose 0…{size - 1}.")
    if not indices:
        raise InputError(f"no {word} was named; give at least one.")
    return sorted({index % size for index in indices})
