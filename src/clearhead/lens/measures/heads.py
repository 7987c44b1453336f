"""Measures. What a head does, in numbers: how widely it reads, how far away, and what it rests on.

One pass over the tiles of a map gives them all (`Reading`): a number for each query, and for each key how much it
receives. `measure` does so for every head of a look and gives one table. Nothing T×T is made. The same measures hold
for what a head moves rather than where it looks: see `values.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.errors import InputError, OutsideError
from clearhead.lens.given import described
from clearhead.lens.index import indices
from clearhead.lens.look import Look, seen_in
from clearhead.lens.maps.derived import count
from clearhead.lens.measures.padding import first_token, real_queries
from clearhead.lens.seen import Kind, Seen
from clearhead.model.kernels import Scoring


@runtime_checkable
class Tiled(Protocol):
    """What is measured: weights that come tile by tile. An AttentionMap, or one weighted by its values."""

    name: str
    shape: tuple[int, int]

    @property
    def scoring(self) -> Scoring: ...
    def tiles(self) -> Iterator[tuple[range, range, Float[Tensor, "q k"]]]:
        """Every tile in which something may be read: queries, keys, weights of 0 or more."""
        ...


@dataclass(frozen=True, eq=False)
class Reading:
    """What one pass over a map gives. Shares are of all that a query gives away, what a learned sink takes included:
    S_i = Σ_j A[i, j] + sink_i, which is 1 for weights. Query i stands at position i + offset of its mask.

    entropy      −Σ_j p ln p in nats, p = A[i, j]/S_i, the sink's share one of them: 0 reads one place, ln n n alike
    distance     Σ_j A[i, j]·|i − j| / Σ_j A[i, j], in tokens
    sink         the share that a learned sink takes (1 − Σ_j A[i, j]); 0 where the head has none
    previous, same, next   the share of the token before, of the token itself, and of the one after
    first        the share of the first token
    separators   the share of the separators, as they were given
    reads        whether the query counts and may read anything; the others have zeros, and count in no mean
    received     Σ_i A[i, j] of each key, over the queries that count
    readers      how many of them may read that key: received/readers is what it gets of those who could give
    """

    entropy: Float[Tensor, " Tq"]
    distance: Float[Tensor, " Tq"]
    sink: Float[Tensor, " Tq"]
    previous: Float[Tensor, " Tq"]
    same: Float[Tensor, " Tq"]
    next: Float[Tensor, " Tq"]
    first: Float[Tensor, " Tq"]
    separators: Float[Tensor, " Tq"]
    reads: Bool[Tensor, " Tq"]
    received: Float[Tensor, " Tk"]
    readers: Int[Tensor, " Tk"]

    def mean(self, name: str, queries: Bool[Tensor, " Tq"] | None = None) -> float:
        """The mean of a measure over the queries that may read something (and are among `queries`); 0 without any."""
        _check_name(name, OF_QUERIES)
        counted = self.reads if queries is None else self.reads & queries
        values: Tensor = getattr(self, name)[counted]
        return float(values.double().mean()) if len(values) else 0.0

    @property
    def received_share(self) -> Float[Tensor, " Tk"]:
        """What each key gets on average of a query that may read it: Σ_i A[i, j] / readers."""
        return self.received / self.readers.clamp(min=1)


OF_QUERIES = [field.name for field in fields(Reading)][:8]
"""What is measured of each query, by name."""


def read(
    m: Tiled, *, separators: Iterable[int] = (), first: int = 0, queries: Bool[Tensor, " Tq"] | None = None
) -> Reading:
    """Measure a map in one pass over its tiles, O(Tq + Tk) numbers kept.

    separators: the keys that count as such, e.g. [SEP] and full stops. first: the first token, where a text's padding
    stands before it. queries: those that count, all by default; padding, which reads as others do, should not
    (`padding.real_queries`). Raises OutsideError for keys that the map does not have.
    """
    if not isinstance(m, Tiled):
        raise InputError(f"one head's map is measured here, seen.map(layer, head); {described(m)}.")
    tq, tk = m.shape
    stops = _flags(m, separators, tk)
    _flags(m, (first,), tk)
    shift = m.scoring.mask.offset
    sums: dict[str, Tensor] = {}
    readers = torch.zeros(tk, dtype=torch.long)
    reads = torch.zeros(tq, dtype=torch.bool)
    received = torch.zeros(tk)

    def add(name: str, rows: slice, values: Tensor) -> None:
        sums.setdefault(name, torch.zeros(tq, dtype=torch.float64))[rows] += values.double().cpu()

    for name in ("total", "entropy", "distance", "previous", "same", "next", "first", "separators"):
        add(name, slice(0, 0), torch.zeros(0))
    counted = torch.ones(tq, dtype=torch.bool) if queries is None else queries.cpu()
    for rows, cols, tile in m.tiles():
        here, there = slice(rows.start, rows.stop), slice(cols.start, cols.stop)
        i = torch.arange(rows.start, rows.stop, device=tile.device)
        j = torch.arange(cols.start, cols.stop, device=tile.device)
        if not bool(counted[here].all()):
            tile = tile * counted[here, None].to(tile.device)
        add("total", here, tile.sum(1))
        add("entropy", here, torch.special.entr(tile).sum(1))
        add("distance", here, (tile * (i[:, None] + shift - j[None, :]).abs()).sum(1))
        for name, step in (("previous", -1), ("same", 0), ("next", 1)):
            diagonal = rows.start + shift + step - cols.start  # the tile's own: column − row
            values = tile.diagonal(diagonal)
            low = rows.start + max(0, -diagonal)
            add(name, slice(low, low + len(values)), values)
        if first in cols:
            add("first", here, tile[:, first - cols.start])
        add("separators", here, tile[:, stops[there].to(tile.device)].sum(1))
        received[there] += tile.sum(0).cpu()
        allowed = m.scoring.mask.allowed(i, j)
        may = torch.ones(1, 1, 1, 1, dtype=torch.bool) if allowed is None else allowed.cpu()
        may = may.expand(1, 1, len(rows), len(cols))[0, 0] & counted[here, None]
        readers[there] += may.sum(0)
        reads[here] |= may.any(1)
    return _reading(m, sums, reads, received, readers)


def _reading(m: Tiled, sums: dict[str, Tensor], reads: Tensor, received: Tensor, readers: Tensor) -> Reading:
    total = sums.pop("total")
    sink = torch.zeros_like(total)
    if m.scoring.sinks is not None:
        sink = (1 - total).clamp(min=0) * reads
    whole = total + sink
    safe = torch.where(whole > 0, whole, 1.0)
    spread = (safe.log() + (sums.pop("entropy") + torch.special.entr(sink)) / safe).clamp(min=0) * (whole > 0)
    distance = sums.pop("distance") / torch.where(total > 0, total, 1.0)
    shares = {name: (value / safe).float() for name, value in sums.items()}
    return Reading(
        entropy=spread.float(),
        distance=distance.float(),
        sink=(sink / safe).float(),
        reads=reads,
        received=received,
        readers=readers,
        **shares,
    )


def _flags(m: Tiled, keys: Iterable[int], size: int) -> Bool[Tensor, " Tk"]:
    flags = torch.zeros(size, dtype=torch.bool)
    for key in indices(keys, "a key"):
        if not 0 <= key < size:
            raise OutsideError(f"key {key} is outside {m.name}, which has {size}; choose 0…{size - 1}.")
        flags[key] = True
    return flags


def _check_name(name: object, names: Sequence[str]) -> None:
    if name not in names:
        raise InputError(f"{name!r} is no measure; choose one of {', '.join(names)}.")


# ── every head at once ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class HeadMeasures:
    """The means of one head over a text's queries, as in `Reading`. In cross-attention, where query and key count
    different texts, distance, previous, same and next are None.

    most_read: the key that receives most of the queries that may read it; most_received: that share.
    """

    kind: Kind
    layer: int
    head: int
    entropy: float
    distance: float | None
    sink: float
    previous: float | None
    same: float | None
    next: float | None
    first: float
    separators: float
    most_read: int
    most_received: float


OF_HEADS = [field.name for field in fields(HeadMeasures)][3:]
"""The measures of a head, by name."""


class Measures(Sequence[HeadMeasures]):
    """The measures of every head, a row each; `print` shows the table, `to_dict` gives its columns."""

    def __init__(self, rows: Iterable[HeadMeasures]) -> None:
        self._rows = tuple(rows)

    def __getitem__(self, index: int | slice) -> HeadMeasures | Measures:  # type: ignore[override]
        return Measures(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def best(self, name: str, n: int = 1) -> Measures:
        """The n heads with the largest value of a measure, the largest first. Raises InputError for no such measure."""
        _check_name(name, OF_HEADS)
        rated = [row for row in self._rows if getattr(row, name) is not None]
        return Measures(sorted(rated, key=lambda row: -getattr(row, name))[: count(n)])

    def to_dict(self) -> dict[str, list[object]]:
        """The columns by name, each a list with an entry a head."""
        return {field.name: [getattr(row, field.name) for row in self._rows] for field in fields(HeadMeasures)}

    def to_rows(self) -> list[dict[str, object]]:
        """A dict for each head."""
        return [asdict(row) for row in self._rows]

    def __str__(self) -> str:
        names = OF_HEADS
        several = len({row.kind for row in self._rows}) > 1
        lines = [["head", *(name.replace("_", " ") for name in names)]]
        for row in self._rows:
            head = f"{row.kind} {row.layer}.{row.head}" if several else f"{row.layer}.{row.head}"
            lines.append([head, *(_shown(getattr(row, name)) for name in names)])
        widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
        return "\n".join(
            "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    __repr__ = __str__


def measure(
    seen: Seen | Look,
    kind: Kind | None = None,
    *,
    separators: Iterable[int] | None = None,
    batch: int = 0,
    call: int = -1,
) -> Measures:
    """Every head of every layer that was kept, measured over one text, in order. Padding counts nowhere.

    kind: one of several; None takes them all.

    separators: the keys that count as such; None takes, of a Look, the special tokens but the first, and the marks
    . , ; : ! ? as tokens of their own; of a Seen, which knows no words, none.
    """
    inner = seen_in(seen, "measure")
    kinds: Iterable[Kind] = inner.kinds if kind is None and inner.kinds else (kind,)  # type: ignore[assignment]
    given = None if separators is None else tuple(separators)
    rows = []
    for each in kinds:
        stops = given if given is not None else _separators(seen, each)
        for layer in inner.layers(each):
            one = inner.call(layer, each, call)
            one.check_batch(batch)
            tokens, first = real_queries(one, batch), first_token(one, batch)
            for head in one.heads:
                reading = read(one.map(head, batch), separators=stops, first=first, queries=tokens)
                rows.append(_measured(reading, each, layer, head))
    return Measures(rows)


def _measured(reading: Reading, kind: Kind, layer: int, head: int) -> HeadMeasures:
    share = reading.received_share
    place = int(share.argmax()) if len(share) else 0

    def at_a_distance(name: str) -> float | None:
        return None if kind == "cross" else reading.mean(name)

    return HeadMeasures(
        kind=kind,
        layer=layer,
        head=head,
        entropy=reading.mean("entropy"),
        distance=at_a_distance("distance"),
        sink=reading.mean("sink"),
        previous=at_a_distance("previous"),
        same=at_a_distance("same"),
        next=at_a_distance("next"),
        first=reading.mean("first"),
        separators=reading.mean("separators"),
        most_read=place,
        most_received=float(share[place]) if len(share) else 0.0,
    )


MARKS = frozenset(".,;:!?…。、，；：！？")


def is_separator(label: str, special: bool) -> bool:
    """Whether a token separates: a special token, or marks that end or divide a sentence."""
    word = label.strip()
    return special or (bool(word) and set(word) <= MARKS)


def _separators(seen: Seen | Look, kind: Kind) -> tuple[int, ...]:
    if not isinstance(seen, Look):
        return ()
    labels = seen.sides(kind)[1]
    offsets = seen.target_offsets if seen.target is not None and kind == "decoder" else seen.offsets
    both = zip(labels, offsets, strict=True)
    return tuple(at for at, (label, (a, b)) in enumerate(both) if at and is_separator(label, a == b))


def _shown(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
