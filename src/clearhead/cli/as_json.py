"""`clearhead look --json`. One object on stdout, stable: fields may be added, none is renamed, removed or re-used.

    clearhead       the version that wrote it
    schema          1
    model           {"name", "device", "dtype", "kernel"}
    text, target    what was read; target is null but for encoder-decoders
    tokens, offsets                  the text's tokens, and the characters [start, end) that each was read from
    target_tokens, target_offsets    the target's, empty where there is none
    kinds           [{"kind", "layers", "heads": [a number for each layer], "rows", "columns"}]

    with --layer and --head:
    kind, layer, head
    rows            the weights, rows[i][j] is what token i reads of token j: every digit float32 has
    links           the strongest, as below

    with --ask:
    kind
    ask             {"query": {"word", "tokens"}, "key": {"word", "tokens"}}
    links           all heads, ranked: [{"kind", "layer", "head", "weight"}]

    with neither:
    links           each layer's strongest: [{"kind", "layer", "head", "query", "key", "weight"}], tokens by index

    left_out        [{"kind", "queries": [tokens], "keys": [tokens], "itself": bool}], what `links` does not list
                    (empty with --all-links and --ask)

Tokens of `query` are the target's where kind is "decoder" or "cross" and there is a target; tokens of `key` where it is
"decoder". A weight that is not a number, of a model that overflowed, is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from clearhead import __version__
from clearhead.cli.links import Found, LeftOut, best_of_layer, strongest
from clearhead.lens.look import Look
from clearhead.lens.seen import Kind
from clearhead.serve.facts import Readable

Write = Callable[[str], object]

ROWS = 256
"""Rows are derived and written so many at a time."""


def write_json(
    write: Write,
    lm: Readable,
    seen: Look,
    kinds: list[Kind],
    *,
    layer: int | None,
    head: int | None,
    ask: tuple[str, str] | None,
    top: int | None,
    all_links: bool,
) -> None:
    """Write what was asked for, as the page above says."""
    said = _facts(lm, seen)
    rows: Iterable[list[float]] | None = None
    if ask is not None:
        said |= {"kind": kinds[0], "ask": _asked(seen, kinds[0], *ask), "left_out": []}
        said["links"] = [
            {"kind": link.kind, "layer": link.layer, "head": link.head, "weight": _finite(link.weight)}
            for link in seen.ask(*ask, kind=kinds[0])
        ]
    elif layer is not None and head is not None:
        kind = kinds[0]
        left = LeftOut.of(seen, kind, nothing=all_links)
        links = strongest(seen.seen.call(layer, kind), [head], left, top or 10)[head]
        said |= {"kind": kind, "layer": layer, "head": head}
        said["left_out"] = _left_out({kind: left})
        said["links"] = [_link(link) for link in links]
        rows = _rows(seen, kind, layer, head)
    else:
        lefts = {kind: LeftOut.of(seen, kind, nothing=all_links) for kind in kinds}
        said["left_out"] = _left_out(lefts)
        said["links"] = [
            _link(link)
            for kind in kinds
            for n in range(seen.n_layers(kind))
            for link in best_of_layer(seen, kind, n, lefts[kind], top or 3)
        ]
    _dump(write, said, rows)


def _facts(lm: Readable, seen: Look) -> dict[str, Any]:
    call = seen.seen.call(0, seen.kinds[0])
    q = call.tensors[0]
    return {
        "clearhead": __version__,
        "schema": 1,
        "model": {
            "name": lm.name,
            "device": str(q.device),
            "dtype": str(q.dtype).removeprefix("torch."),
            "kernel": call.kernel,
        },
        "text": seen.text,
        "target": seen.target,
        "tokens": seen.tokens,
        "offsets": seen.offsets,
        "target_tokens": seen.target_tokens,
        "target_offsets": seen.target_offsets,
        "kinds": [
            {
                "kind": kind,
                "layers": seen.n_layers(kind),
                "heads": [seen.n_heads(kind, n) for n in range(seen.n_layers(kind))],
                "rows": len(seen.sides(kind)[0]),
                "columns": len(seen.sides(kind)[1]),
            }
            for kind in seen.kinds
        ],
    }


def _asked(seen: Look, kind: Kind, query: str, key: str) -> dict[str, Any]:
    both = seen.target is not None
    return {
        "query": {"word": query, "tokens": seen.find(query, target=both and kind != "encoder")},
        "key": {"word": key, "tokens": seen.find(key, target=both and kind == "decoder")},
    }


def _left_out(lefts: dict[Kind, LeftOut]) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "queries": out.queries.nonzero()[:, 0].tolist(),
            "keys": out.keys.nonzero()[:, 0].tolist(),
            "itself": out.itself,
        }
        for kind, out in lefts.items()
        if out.sentence() is not None
    ]


def _link(link: Found) -> dict[str, Any]:
    return {**link._asdict(), "weight": _finite(link.weight)}


def _rows(seen: Look, kind: Kind, layer: int, head: int) -> Iterable[list[float]]:
    m = seen.map(layer, head, kind)
    for low in range(0, len(m), ROWS):
        yield from m[low : low + ROWS].tolist()


def _dump(write: Write, said: dict[str, Any], rows: Iterable[list[float]] | None) -> None:
    """The object, a field a line; the rows are written as they are derived, so that no T×T list is held."""
    fields = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in said.items()]
    write("{\n" + ",\n".join(fields))
    if rows is not None:
        write(',\n"rows": [')
        for n, row in enumerate(rows):
            write((",\n" if n else "\n") + json.dumps([_finite(weight) for weight in row]))
        write("\n]")
    write("\n}\n")


def _finite(weight: float) -> float | None:
    return weight if math.isfinite(weight) else None
