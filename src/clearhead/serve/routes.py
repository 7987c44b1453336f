"""The routes. What any client can ask, of the page or not: JSON for words and rankings, float32 for maps.

    GET  /api/models                                 names that can be looked at, and what each opens with
    POST /api/look {text, target?, model?, …}        run the model; an id, the tokens, the heads there are
    GET  /api/looks/{id}                             the same again
    GET  /api/looks/{id}/row     ?layer head row     what one token reads
    GET  /api/looks/{id}/column  ?layer head col     who reads one token
    GET  /api/looks/{id}/top     ?layer head row k   a token's strongest weights; without row, the head's
    GET  /api/looks/{id}/ask     ?query key          all heads, ranked by that link
    GET  /api/looks/{id}/thumbs  ?size layer         float32: every head, pooled by max
    GET  /api/looks/{id}/pool    ?layer head height width how       float32: one head, pooled
    GET  /api/looks/{id}/tile    ?layer head rows=a:b cols=c:d      float32: one head, exact

A model of two texts that is given no target writes one; a translator that is told its languages takes
source_language and target_language with them. All but `models` and `look` take `kind=` too, needed where a model has
several. Binary answers are little-endian float32, row by row; the header X-Shape gives their lengths, slowest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from clearhead.lens.look import Look
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.seen import Kind
from clearhead.serve.asked import Query, body
from clearhead.serve.explorer import Explorer
from clearhead.serve.opening import opening
from clearhead.serve.refusals import Refusal


async def models(request: Request) -> Response:
    """The names that can be looked at, which are in memory, and where the page begins, with each of them."""
    Query(request).done()
    explorer = _explorer(request)
    names = {"models": explorer.offered, "loaded": explorer.loaded, "default": explorer.default}
    others = {name: opening(name) for name in explorer.offered if name != explorer.default}
    first = request.app.state.opening
    return _json({**names, "opening": first, "openings": {explorer.default: first, **others}})


async def look(request: Request) -> Response:
    """Run the model over a text, or find the look that was kept of it."""
    explorer = _explorer(request)
    Query(request).done()
    asked = await body(request, explorer.limits)
    question = explorer.question(**asked)
    kept = await explorer.look(question, request.is_disconnected)
    return _json({"id": kept.id, **kept.facts})


async def again(request: Request) -> Response:
    """What `look` answered."""
    Query(request).done()
    kept = _explorer(request).shelf.get(request.path_params["id"])
    return _json({"id": kept.id, **kept.facts})


async def row(request: Request) -> Response:
    """What one token reads: a weight for each token."""
    query = Query(request)
    head, i = _head(request, query), query.number("row")
    query.done()
    weights = await _explorer(request).derive(lambda: _numbers(head.row(i)), request.is_disconnected)
    return _json({"row": i, "weights": weights})


async def column(request: Request) -> Response:
    """Who reads one token: a weight from each token."""
    query = Query(request)
    head, j = _head(request, query), query.number("col")
    query.done()
    weights = await _explorer(request).derive(lambda: _numbers(head.column(j)), request.is_disconnected)
    return _json({"col": j, "weights": weights})


async def top(request: Request) -> Response:
    """A token's strongest weights, or, without `row`, those of the whole head."""
    explorer, query = _explorer(request), Query(request)
    head, i, k = _head(request, query), query.maybe("row"), query.number("k", 10, least=1, most=explorer.limits.top)
    query.done()
    if i is None:
        _check_swept(request, 1, head.shape)
    cells = await explorer.derive(lambda: head.hottest(k) if i is None else head.top(i, k), request.is_disconnected)
    return _json({"cells": [cell._asdict() for cell in cells]})


async def ask(request: Request) -> Response:
    """All heads of a kind, ranked by the weight that one word gives to another."""
    query = Query(request)
    kind, reads, read = query.kind(), query.place("query"), query.place("key")
    query.done()
    seen = _look(request)
    if kind is None and len(seen.kinds) > 1:
        raise Refusal(422, f"kind= is missing; this model has {', '.join(seen.kinds)}.")
    links = await _explorer(request).derive(lambda: seen.ask(reads, read, kind), request.is_disconnected)
    ranked = [{"layer": link.layer, "head": link.head, "weight": _finite(link.weight)} for link in links]
    return _json({"query": reads, "key": read, "kind": links[0].kind, "links": ranked})


async def thumbs(request: Request) -> Response:
    """Every head of every layer, or of one, as a small picture: the max of each cell, so that no link is lost."""
    explorer, query = _explorer(request), Query(request)
    kind, size = query.kind(), query.number("size", 32, least=1, most=explorer.limits.thumb_side)
    only = query.maybe("layer")
    query.done()
    seen = _look(request)
    layers = range(seen.n_layers(kind)) if only is None else range(only, only + 1)
    heads, shape = seen.n_heads(kind, layers[0]), seen.map(layers[0], 0, kind).shape
    if any(seen.n_heads(kind, layer) != heads for layer in layers):
        raise Refusal(422, "the layers of this model differ in their heads; ask layer by layer, with layer=.")
    height, width = min(size, shape[0]), min(size, shape[1])
    if len(layers) * heads * height * width > explorer.limits.thumb_cells:
        raise Refusal(413, f"{len(layers)}×{heads} pictures of {size}×{size} are too many; ask for a smaller size=.")
    _check_swept(request, len(layers) * heads, shape)

    def work() -> bytes:
        return b"".join(
            _float32(seen.map(layer, head, kind).pool(height, width)) for layer in layers for head in range(heads)
        )

    return _binary(await explorer.derive(work, request.is_disconnected), (len(layers), heads, height, width))


async def pool(request: Request) -> Response:
    """One head at a glance: each cell the max (or mean) of a block of its weights."""
    explorer, query = _explorer(request), Query(request)
    head, how = _head(request, query), query.how()
    side = math.isqrt(explorer.limits.tile_cells)
    height, width = (min(query.number(name, 256, least=1, most=side), n) for name, n in _sides(head))
    query.done()
    _check_swept(request, 1, head.shape)
    data = await explorer.derive(lambda: _float32(head.pool(height, width, how)), request.is_disconnected)
    return _binary(data, (height, width))


async def tile(request: Request) -> Response:
    """A rectangle of one head's weights, exact."""
    explorer, query = _explorer(request), Query(request)
    head = _head(request, query)
    rows, cols = query.span("rows", head.shape[0]), query.span("cols", head.shape[1])
    query.done()
    if len(rows) * len(cols) > explorer.limits.tile_cells:
        most = explorer.limits.tile_cells
        raise Refusal(413, f"{len(rows)}×{len(cols)} weights are more than {most:,}; ask for less, or for /pool.")
    data = await explorer.derive(lambda: _float32(head.tile(rows, cols)), request.is_disconnected)
    return _binary(data, (len(rows), len(cols)))


ROUTES = [
    Route("/api/models", models, methods=["GET"]),
    Route("/api/look", look, methods=["POST"]),
    Route("/api/looks/{id:str}", again, methods=["GET"]),
    *(
        Route(f"/api/looks/{{id:str}}/{answer.__name__}", answer, methods=["GET"])
        for answer in (row, column, top, ask, thumbs, pool, tile)
    ),
]

# ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _explorer(request: Request) -> Explorer:
    explorer = request.app.state.explorer
    assert isinstance(explorer, Explorer)
    return explorer


def _look(request: Request) -> Look:
    return _explorer(request).shelf.get(request.path_params["id"]).look


def _head(request: Request, query: Query) -> AttentionMap:
    kind: Kind | None = query.kind()
    layer, head = query.number("layer"), query.number("head")
    return _look(request).map(layer, head, kind)


def _sides(head: AttentionMap) -> Iterable[tuple[str, int]]:
    return zip(("height", "width"), head.shape, strict=True)


def _check_swept(request: Request, heads: int, shape: tuple[int, int]) -> None:
    most, swept = _explorer(request).limits.swept_cells, heads * shape[0] * shape[1]
    if swept > most:
        less = "ask layer by layer, with layer=" if heads > 1 else "ask for tiles and rows instead"
        raise Refusal(413, f"this sweeps {swept:,} weights; at most {most:,} are derived for one answer: {less}.")


def _finite(weight: float) -> float | None:
    return weight if math.isfinite(weight) else None


def _numbers(weights: Float[Tensor, " n"]) -> list[float | None]:
    return [_finite(weight) for weight in weights.tolist()]


def _float32(weights: Float[Tensor, "h w"]) -> bytes:
    return weights.to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False).tobytes()


def _json(value: object) -> JSONResponse:
    return JSONResponse(value, headers={"Cache-Control": "no-store"})


def _binary(data: bytes, shape: tuple[int, ...]) -> Response:
    headers = {"X-Shape": ",".join(map(str, shape)), "X-Dtype": "float32-le", "Cache-Control": "no-store"}
    return Response(data, media_type="application/octet-stream", headers=headers)
