"""Notebooks. What a map, or a look, shows of itself when it ends a cell: a small picture with its caption.

It is plain HTML and SVG, without a script and without matplotlib, on paper of its own, so that it reads alike on a
light page and on a dark one. Its size and its work are bounded: of a text too long to derive at once, every n-th query
and key is drawn, and the caption says so.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from clearhead.lens.ways_out import colours, shades
from clearhead.lens.ways_out.glyphs import label

if TYPE_CHECKING:
    from clearhead.lens.look import Look
    from clearhead.lens.maps.attention_map import AttentionMap
    from clearhead.lens.seen import Seen

NAMED = 40
"""Up to so many tokens each has its name, and each cell says its weight when it is pointed at."""

SIDE = 320
"""The side of a larger map, in dots."""

THUMB = 32

WORK = 2**25
"""So many weights are derived for one picture at most: some tenths of a second."""

STYLE = (
    f"background:{colours.PAPER};color:{colours.INK};border:1px solid {colours.LINE};border-radius:6px;"
    "padding:12px 16px;display:inline-block;max-width:100%;overflow-x:auto;font:13px/1.4 system-ui,sans-serif"
)


def map_html(m: AttentionMap) -> str:
    """One head's map as a piece of HTML."""
    if m._released():
        return _card(f"<b>{html.escape(m.name)}</b>", "", "Released: its q, k and log-sum-exp were given back.")
    cells, note = _cells(m, SIDE, WORK)
    rows, cols = m.words if m.words is not None else (None, None)
    named = rows is not None and cols is not None and max(m.shape) <= NAMED
    end = shades.scale_end(cells, named)
    picture = _named(cells, end, rows, cols) if named and rows and cols else _plain(cells, end)
    caption = ["Each row reads the columns.", f"{m.shape[0]:,} × {m.shape[1]:,} weights{note}."]
    if (cells == 0).any():
        caption.append("Blank: may not be read.")
    return _card(f"<b>{html.escape(m.name)}</b>", picture + _legend(end, bool((cells > end).any())), " ".join(caption))


def heads_html(source: Look | Seen) -> str:
    """All heads of a look, or of what was seen, as a piece of HTML: a picture for each kind of attention."""
    from clearhead.lens.look import Look
    from clearhead.lens.ways_out.chosen import in_words, layers_of

    seen = source.seen if isinstance(source, Look) else source
    title = f"<b>{html.escape(source.name)}</b> " if isinstance(source, Look) and source.name else ""
    if isinstance(source, Look):
        title += f"<span>{html.escape(label(' '.join(source.text.split()), 120))}</span>"
    kinds = seen.kinds
    if not kinds or seen.nbytes == 0:
        return _card(title, "", "Nothing is kept here: nothing was seen, or it was released.")
    parts = []
    for kind in kinds:
        layers = list(layers_of(source, kind))
        heads = sum(len(layer.maps) for layer in layers)
        columns = sorted({head for layer in layers for head in layer.maps})
        picture, note, shape = _grid([layer.maps for layer in layers], columns, WORK // max(1, heads * len(kinds)))
        numbers = [layer.layer or 0 for layer in layers]
        said = f"{kind}: {in_words(layers)}, {shape[0]:,} × {shape[1]:,} weights each{note}."
        parts.append(_numbered(picture, numbers, columns) + _caption(said))
    how = "A line for each layer; in a head each row reads the columns. One head: <code>.map(layer, head)</code>."
    return _card(title, "".join(parts) + _legend(1.0), how)


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cells(m: AttentionMap, side: int, work: int) -> tuple[Float[np.ndarray, "h w"], str]:
    """The map in at most side × side cells: pooled, or, where deriving it all is too much work, every n-th weight."""
    tall, wide = m.shape
    if tall * wide <= work:
        pooled = max(tall, wide) > side
        weights = m.pool(side, side, how="max") if pooled else m.dense()
        note = ", pooled: a spot is the largest of its block" if pooled else ""
    else:
        rows, cols = range(0, tall, -(-tall // side)), range(0, wide, -(-wide // side))
        weights = m.tile(rows, cols)
        note = f", of which every {_nth(rows.step)} query and {_nth(cols.step)} key is drawn"
    cells: np.ndarray = weights.float().cpu().numpy()
    return cells, note


def _nth(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _grid(
    layers: list[dict[int, AttentionMap]], heads: list[int], work: int
) -> tuple[UInt8[np.ndarray, "h w"], str, tuple[int, int]]:
    """These heads of all layers as one image of places on the scale, a column each; 0 is paper."""
    drawn = [{head: _cells(m, THUMB, work) for head, m in maps.items()} for maps in layers]
    tall, wide = (max(cells.shape[axis] for maps in drawn for cells, _ in maps.values()) for axis in (0, 1))
    gap = 1 + max(tall, wide) // 16
    image = np.zeros(((tall + gap) * len(drawn), (wide + gap) * len(heads)), np.uint8)
    for line, maps in enumerate(drawn):
        for head, (cells, _) in maps.items():
            top, left = line * (tall + gap), heads.index(head) * (wide + gap)
            image[top : top + cells.shape[0], left : left + cells.shape[1]] = shades.places(cells, 1.0)
    first = next(iter(layers[0].values()))
    return image, next(iter(drawn[0].values()))[1], first.shape


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def png(image: UInt8[np.ndarray, "h w"]) -> bytes:
    """Places on the scale as a PNG with a palette (PNG specification, 11.2); place 0 is clear."""
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 3, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in image)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", shades.palette()[:, :3].tobytes()),
        (b"tRNS", b"\0"),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _image(
    image: UInt8[np.ndarray, "h w"], x: float | int, y: float | int, width: float | int, height: float | int
) -> str:
    data = base64.b64encode(png(image)).decode()
    return (
        f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def _svg(width: float | int, height: float | int, inside: str, what: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(what)}" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}" style="display:block;max-width:none" '
        f'font-size="12" fill="{colours.INK}">{inside}</svg>'
    )


def _named(cells: Float[np.ndarray, "h w"], end: float, rows: Sequence[str], cols: Sequence[str]) -> str:
    """A cell and a name for each token; a cell that is pointed at says who reads whom, and how much."""
    side = 22 if len(cols) <= 24 else 16
    above, before = [label(word, 12) for word in cols], [label(word, 12) for word in rows]
    left = 12 + 7.2 * max(map(len, before))
    top = 12 + 7.2 * max(map(len, above))
    parts = [_image(shades.places(cells, end), left, top, side * len(cols), side * len(rows))]
    for i, word in enumerate(before):
        y = top + (i + 0.5) * side
        parts.append(f'<text x="{left - 6:g}" y="{y:g}" text-anchor="end" dy=".35em">{html.escape(word)}</text>')
    for j, word in enumerate(above):
        x, y = left + (j + 0.5) * side, top - 6
        parts.append(
            f'<text x="{x:g}" y="{y:g}" dy=".35em" transform="rotate(-90 {x:g} {y:g})">{html.escape(word)}</text>'
        )
    for (i, j), weight in np.ndenumerate(cells):
        if weight >= 0.005:
            said = html.escape(f"{before[i]} → {above[j]} {weight:.4f}")
            place = f'x="{left + j * side:g}" y="{top + i * side:g}" width="{side}" height="{side}"'
            parts.append(f'<rect {place} fill-opacity="0"><title>{said}</title></rect>')
    return _svg(left + side * len(cols) + 2, top + side * len(rows) + 2, "".join(parts), "attention weights")


def _plain(cells: Float[np.ndarray, "h w"], end: float) -> str:
    times = max(1.0, SIDE / max(cells.shape))
    height, width = cells.shape[0] * times, cells.shape[1] * times
    frame = f'<rect x=".5" y=".5" width="{width + 1:g}" height="{height + 1:g}" fill="none" stroke="{colours.LINE}"/>'
    inside = _image(shades.places(cells, end), 1, 1, width, height) + frame
    return _svg(width + 2, height + 2, inside, "attention weights")


def _numbered(image: UInt8[np.ndarray, "h w"], layers: list[int], heads: list[int]) -> str:
    """The heads, with the numbers of layers and heads beside them."""
    columns = len(heads)
    wide, tall = image.shape[1] / columns, image.shape[0] / len(layers)
    times = 48 / max(wide, tall) if columns <= 16 else 30 / max(wide, tall)
    wide, tall = wide * times, tall * times
    parts = [_image(image, 24, 18, wide * columns, tall * len(layers))]
    style = f'fill="{colours.SOFT}" font-size="11"'
    for n, layer in enumerate(layers):
        parts.append(f'<text x="18" y="{18 + (n + 0.5) * tall:g}" dy=".35em" text-anchor="end" {style}>{layer}</text>')
    for n, head in enumerate(heads):
        parts.append(f'<text x="{24 + (n + 0.5) * wide:g}" y="12" text-anchor="middle" {style}>{head}</text>')
    return _svg(26 + wide * columns, 20 + tall * len(layers), "".join(parts), "heads")


def _legend(end: float, more: bool = False) -> str:
    strip = np.arange(1, 256, dtype=np.uint8)[None]
    marks = []
    for tick, said in colours.ticks(end, more).items():
        x = 200 * colours.place(tick, end)
        anchor = "start" if x == 0 else "end" if x == 200 else "middle"
        marks.append(f'<text x="{x + 1:g}" y="26" text-anchor="{anchor}">{said}</text>')
    frame = f'<rect x=".5" y="4.5" width="201" height="9" fill="none" stroke="{colours.LINE}"/>'
    inside = f'<g font-size="11" fill="{colours.SOFT}">{_image(strip, 1, 5, 200, 8)}{frame}{"".join(marks)}'
    return _svg(250, 30, f'{inside}<text x="210" y="13">weight</text></g>', "which colour is which weight")


def _caption(words: str) -> str:
    return f'<div style="color:{colours.SOFT};margin:4px 0 8px">{words}</div>'


def _card(title: str, inside: str, caption: str) -> str:
    return f'<div style="{STYLE}"><div style="margin-bottom:8px">{title}</div>{inside}{_caption(caption)}</div>'
