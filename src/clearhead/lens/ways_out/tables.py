"""Tables. The strongest links of every head as one long table, a link a line, written as Parquet for any data tool.

    kind | layer | head | query | query_token | key | key_token | weight

Of each query the `k` keys that it reads most are listed, strongest first, or all that it gives at least `threshold`:
a row of weights sums to at most 1, so no more than 1/threshold of them can be. Weights are derived a tile at a time and
written a row group at a time, so that memory does not grow with the text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from clearhead.errors import InputError, MissingDependencyError
from clearhead.lens.kept.call import Kind
from clearhead.lens.look import Look
from clearhead.lens.ways_out.chosen import Layer, Source, check_source, layers_of, words_of
from clearhead.lens.ways_out.outputs import check_ending, check_path, whole_or_nothing

if TYPE_CHECKING:
    import pyarrow

ROWS = 256
"""Queries that are searched at once."""

LINES = 2**17
"""About so many lines make a row group."""


class Links(NamedTuple):
    """Some lines of the table: arrays of one length, and what all of them share."""

    kind: Kind | None
    layer: int | None
    head: Int[np.ndarray, " n"] | None
    query: Int[np.ndarray, " n"]
    key: Int[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]


def links(
    source: Source,
    *,
    k: int | None = 5,
    threshold: float = 0.0,
    kind: Kind | None = None,
    layer: int | None = None,
    head: int | None = None,
    batch: int = 0,
) -> Iterator[Links]:
    """The lines of the table, some at a time, in the order of kind, layer, query block, head, query, weight.

    k: at most so many keys of each query; None lists all that reach `threshold`, which then must be above 0.
    kind, layer, head: only these, all where None. batch: which text of a Seen.
    Weights of exactly 0, of keys that may not be read, are never listed. Raises InputError for a k or threshold that
    is none, OutsideError for a layer or head that is not there.
    """
    most = _most(k, threshold)
    for chosen in layers_of(source, kind, layer, head, batch):
        yield from _of_layer(chosen, most, threshold)


def write_parquet(
    path: str | os.PathLike[str],
    source: Source,
    *,
    k: int | None = 5,
    threshold: float = 0.0,
    kind: Kind | None = None,
    layer: int | None = None,
    head: int | None = None,
    batch: int = 0,
) -> int:
    """Write the table of links, all of it or nothing; returns its lines. What the arguments mean: `links`.

    Tokens stand beside their indices where they are known, which is of a Look; else these columns are null. Needs
    pyarrow (pip install 'clearhead[parquet]'). Raises LensError for a path that cannot be written to.
    """
    check_source(source)
    where = check_path(path, "table", "links.parquet")
    check_ending(where, ("parquet", "pq"), "Parquet file")
    arrow, parquet = _pyarrow(where)
    schema = _schema(arrow, source, {"k": k, "threshold": threshold})
    lines = 0
    with (
        whole_or_nothing(where) as out,
        parquet.ParquetWriter(out, schema, compression="zstd", use_dictionary=_WORDS) as table,
    ):
        for some in links(source, k=k, threshold=threshold, kind=kind, layer=layer, head=head, batch=batch):
            table.write_batch(_batch(arrow, schema, source, some))
            lines += len(some.weight)
    return lines


# ── the strongest keys of each query, streamed ───────────────────────────────────────────────────────────────────


def _most(k: int | None, threshold: float) -> int | None:
    """How many keys of one query can be listed at all; None where that is as many as there are."""
    if not 0.0 <= threshold <= 1.0:
        raise InputError(f"threshold={threshold} is no weight; choose one in 0…1.")
    if k is None and threshold == 0.0:
        raise InputError("k=None lists every weight there is, T×T lines a head; give a threshold, e.g. 0.01, or a k.")
    if k is not None and k < 1:
        raise InputError(f"k={k} lists nothing; choose 1 or more.")
    by_sum = int(1.0001 / threshold) + 1 if threshold > 0 else None
    return min((n for n in (k, by_sum) if n is not None), default=None)


def _of_layer(chosen: Layer, most: int | None, threshold: float) -> Iterator[Links]:
    """The lines of one layer: a block of queries at a time, all heads of it, gathered until they make a row group."""
    maps = chosen.maps
    tq, tk = next(iter(maps.values())).shape if maps else (0, 0)
    kept = min(most if most is not None else tk, tk)
    pending: list[tuple[np.ndarray, ...]] = []
    lines = 0
    for low in range(0, tq, ROWS):
        rows = range(low, min(tq, low + ROWS))
        for number, m in maps.items():
            weights, keys = (x.cpu().numpy() for x in m.top_rows(kept, rows))  # (q, kept)
            i, n = ((keys >= 0) & (weights >= threshold)).nonzero()
            pending.append((np.full(len(i), number), low + i, keys[i, n], weights[i, n]))
            lines += len(i)
        if lines >= LINES or (rows.stop == tq and lines):
            head, query, key, weight = (np.concatenate(column) for column in zip(*pending, strict=True))
            pending, lines = [], 0
            yield Links(chosen.kind, chosen.layer, None if chosen.kind is None else head, query, key, weight)


# ── Arrow ────────────────────────────────────────────────────────────────────────────────────────────────────────

_WORDS = ["kind", "query_token", "key_token"]


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError(f"{path} is a Parquet file, which pyarrow writes: {_INSTALL}") from None
    return pyarrow, pyarrow.parquet


_INSTALL = "pip install 'clearhead[parquet]'"


def _schema(arrow: Any, source: Source, asked: dict[str, Any]) -> pyarrow.Schema:
    about = {"schema": 1, **asked}
    if isinstance(source, Look):
        about |= {"text": source.text, "target": source.target}
    columns = {
        "kind": arrow.string(),
        "layer": arrow.int32(),
        "head": arrow.int32(),
        "query": arrow.int32(),
        "query_token": arrow.string(),
        "key": arrow.int32(),
        "key_token": arrow.string(),
        "weight": arrow.float32(),
    }
    return arrow.schema(list(columns.items()), metadata={"clearhead": json.dumps(about)})


def _batch(arrow: Any, schema: Any, source: Source, some: Links) -> pyarrow.RecordBatch:
    n = len(some.weight)
    rows, cols = words_of(source, some.kind)
    columns = [
        arrow.array([some.kind] * n, arrow.string()),
        arrow.nulls(n, arrow.int32()) if some.layer is None else arrow.array(np.full(n, some.layer, np.int32)),
        arrow.nulls(n, arrow.int32()) if some.head is None else arrow.array(some.head.astype(np.int32)),
        arrow.array(some.query.astype(np.int32)),
        _taken(arrow, rows, some.query),
        arrow.array(some.key.astype(np.int32)),
        _taken(arrow, cols, some.key),
        arrow.array(some.weight.astype(np.float32)),
    ]
    return arrow.record_batch(columns, schema=schema)


def _taken(arrow: Any, words: Sequence[str] | None, at: Int[np.ndarray, " n"]) -> Any:
    if words is None:
        return arrow.nulls(len(at), arrow.string())
    return arrow.array(words, arrow.string()).take(arrow.array(at))
