"""Pictures. One head's map, or all heads side by side, as PNG or SVG, drawn by matplotlib.

Each row reads the columns. A map of few tokens has a cell and a name for each; one of many is pooled, each spot the
largest weight of its block, and says so. What may not be read, a weight of exactly 0, is left unpainted. Colours lie on
one scale (`colours.py`), whose legend is in the picture; where no weight of a map is near 1 its scale ends earlier.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from clearhead.errors import InputError, MissingDependencyError
from clearhead.lens.counting import numbered
from clearhead.lens.kept.call import Kind
from clearhead.lens.look import Look
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.ways_out import colours, glyphs, shades
from clearhead.lens.ways_out.chosen import Layer, Source, check_source, in_words, layers_of, words_of
from clearhead.lens.ways_out.outputs import check_ending, check_path, whole_or_nothing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 64
"""Up to so many tokens each has its name beside the map."""

FINEST = 512
"""A larger map is pooled to so many rows or columns."""

THUMB = 48
"""The side of a head among all heads, in dots; of few heads, twice as many."""

DPI = 160


class Drawn(NamedTuple):
    """A picture, and what it shows in a few words."""

    figure: Figure
    caption: str


def write_picture(
    path: str | os.PathLike[str],
    source: Source,
    *,
    kind: Kind | None = None,
    layer: int | None = None,
    head: int | None = None,
    batch: int = 0,
    words: tuple[Sequence[str], Sequence[str]] | None = None,
    model: str = "",
) -> str:
    """Write a picture, .png or .svg by the path's ending, all of it or nothing; returns what it shows in a few words.

    With layer and head, or of an AttentionMap: that head's map. Without: all heads, of one layer where it is named. A
    head without its layer is refused.
    words: the tokens of the rows and of the columns, where the source does not know them. model: its name, for the
    title.
    Needs matplotlib (pip install 'clearhead[plot]'). Raises LensError for a path that cannot be written to.
    """
    check_source(source)
    where = check_path(path, "picture", "head.png")
    ending = check_ending(where, ("png", "svg"), "picture")
    if isinstance(source, AttentionMap) or head is not None:
        drawn = draw_map(source, kind=kind, layer=layer, head=head, batch=batch, words=words, model=model)
    else:
        drawn = draw_heads(source, kind=kind, layer=layer, batch=batch, model=model)
    import matplotlib

    plain: dict[str, Any] = {"Date": None} if ending == "svg" else {}
    steady: Any = {"svg.hashsalt": "clearhead", "svg.fonttype": "path"}  # the same look, the same bytes
    with whole_or_nothing(where) as out, matplotlib.rc_context(steady):
        drawn.figure.savefig(out, format=ending, dpi=DPI, bbox_inches="tight", pad_inches=0.25, metadata=plain)
    return drawn.caption


# ── one head ─────────────────────────────────────────────────────────────────────────────────────────────────────


def draw_map(
    source: Source,
    *,
    kind: Kind | None = None,
    layer: int | None = None,
    head: int | None = None,
    batch: int = 0,
    words: tuple[Sequence[str], Sequence[str]] | None = None,
    model: str = "",
) -> Drawn:
    """One head's map as a matplotlib figure, and what it shows. Raises InputError where layer or head is missing."""
    if not isinstance(source, AttentionMap) and (layer is None or head is None):
        given, missing = (f"head={head}", "layer") if layer is None else (f"layer={layer}", "head")
        raise InputError(f"{given} alone is no one map; give {missing}=… too, or leave head out for all heads.")
    chosen = next(layers_of(source, kind, layer, head, batch))
    ((number, m),) = chosen.maps.items()
    rows, cols = words if words is not None else words_of(source, chosen.kind)
    tall, wide = m.shape
    named = max(tall, wide) <= NAMED and rows is not None and cols is not None
    pooled = max(tall, wide) > FINEST
    weights = m.pool(min(tall, FINEST), min(wide, FINEST), how="max") if pooled else m.dense()
    cells: np.ndarray = weights.float().cpu().numpy()
    end = shades.scale_end(cells, named)
    where = m.name if chosen.layer is None else f"layer {chosen.layer}, head {number}"
    title = _title(model or _name(source), chosen.kind if _several(source) else None, where)
    parts = ["each row reads the columns"]
    if pooled:
        size = f"{cells.shape[0]} × {cells.shape[1]}"
        parts.append(f"{tall:,} × {wide:,} weights, pooled to {size}: each spot is the largest of its block")
    if (cells == 0).any():
        parts.append("blank: may not be read")
    sheet = _Sheet(cells.shape, _side(cells.shape, named), DPI)
    sheet.paint(shades.painted(cells, end))
    if named and rows is not None and cols is not None:
        parts += sheet.name(rows, cols, cells)
    else:
        sheet.number(m.shape)
    sheet.head(title, _quoted(source, chosen.kind), "; ".join(parts))
    sheet.legend(end, more=bool((cells > end).any()))
    return Drawn(sheet.figure, f"{where}, {tall:,} × {wide:,} weights" + (" pooled" if pooled else ""))


def _side(shape: tuple[int, int], named: bool) -> float:
    """A cell's side in inches: room for a name, as long as the picture stays one that a page can hold."""
    most = max(shape)
    return min(0.34, max(0.135, 6.5 / most)) if named else 6.0 / most


# ── all heads ────────────────────────────────────────────────────────────────────────────────────────────────────


def draw_heads(
    source: Source, *, kind: Kind | None = None, layer: int | None = None, batch: int = 0, model: str = ""
) -> Drawn:
    """Every head of one kind of attention, a line for each layer, as a matplotlib figure, and what it shows.

    Maps of more tokens than dots are pooled, each spot the largest weight of its block; the scale is one for all.
    """
    if kind is None and not isinstance(source, AttentionMap):
        kind = (source.seen if isinstance(source, Look) else source)._kind(None)  # says which there are, where several
    layers = list(layers_of(source, kind, layer, batch=batch))
    heads = sorted({head for each in layers for head in each.maps})
    numbers, columns = [each.layer or 0 for each in layers], len(heads)
    few = columns <= 6
    step, dots = 1.1 if few else 0.62 if columns <= 16 else 0.4, 2 * THUMB if few else THUMB
    picture, shape = _thumbs(layers, heads, dots)
    tall, wide = picture.shape[0] / len(numbers), picture.shape[1] / columns
    sheet = _Sheet(picture.shape[:2], step / max(tall, wide), DPI)
    sheet.paint(picture)
    sheet.places([(n + 0.5) * tall for n in range(len(numbers))], numbers, 0)
    sheet.places([(n + 0.5) * wide for n in range(columns)], heads, 1)
    line = "a line for each layer; in a head each row reads the columns"
    if max(shape) > dots:
        line += f"; {shape[0]:,} × {shape[1]:,} weights each, pooled: a spot is the largest of its block"
    title = _title(model or _name(source), kind if _several(source) else None, _which(layers, layer))
    sheet.head(title, _quoted(source, kind), line)
    sheet.legend(1.0)
    return Drawn(sheet.figure, in_words(layers))


def _which(layers: Sequence[Layer], layer: int | None) -> str:
    """Which heads a picture shows: all heads, or the layers and heads that were asked for, or kept."""
    numbers = [each.layer or 0 for each in layers]
    some = layer is not None or numbers != list(range(len(numbers)))
    where = f" of {numbered(numbers, 'layer')}" if some else ""
    heads = sorted({head for each in layers for head in each.maps})
    whole = all(len(each.maps) == each.n_heads for each in layers)
    return f"{'all heads' if whole else numbered(heads, 'head')}{where}"


def _thumbs(
    layers: Sequence[Layer], heads: Sequence[int], side: int, gap: int = 4
) -> tuple[UInt8[np.ndarray, "h w 4"], tuple[int, int]]:
    """These heads of all layers as one image, a column each, and the shape of a map."""
    lines: list[dict[int, np.ndarray]] = []
    shape = (0, 0)
    for each in layers:
        maps = {head: _thumb(m, side) for head, m in each.maps.items()}
        shape = next(iter(each.maps.values())).shape
        lines.append(maps)
    tall, wide = (max(x.shape[axis] for maps in lines for x in maps.values()) + gap for axis in (0, 1))
    picture = np.zeros((tall * len(lines), wide * len(heads), 4), np.uint8)
    for line, maps in enumerate(lines):
        for head, image in maps.items():
            top, left = line * tall + gap // 2, heads.index(head) * wide + gap // 2
            picture[top : top + image.shape[0], left : left + image.shape[1]] = image
    return picture, shape


def _thumb(m: AttentionMap, side: int) -> UInt8[np.ndarray, "h w 4"]:
    """One head in about side × side dots, with a thin frame, so that pale heads stand apart."""
    cells = m.pool(side, side, how="max").float().cpu().numpy()
    image = shades.painted(cells, 1.0)
    times = max(1, side // max(cells.shape))
    framed = np.pad(image.repeat(times, 0).repeat(times, 1), ((1, 1), (1, 1), (0, 0)))
    framed[[0, -1]] = framed[:, [0, -1]] = (*colours.rgb(colours.LINE), 255)
    return framed


# ── the sheet they are drawn on ──────────────────────────────────────────────────────────────────────────────────


class _Sheet:
    """A picture's one pair of axes, its words around them, and its legend; places are counted in cells."""

    def __init__(self, shape: tuple[int, int], side: float, dpi: int) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingDependencyError("pictures are drawn by matplotlib: pip install 'clearhead[plot]'") from None
        self.rows, self.cols = shape
        self.side = side
        self.figure = Figure(figsize=(self.cols * side, self.rows * side), dpi=dpi, facecolor=colours.PAPER)
        self.canvas: Any = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, self.cols), ylim=(self.rows, 0), xticks=[], yticks=[])
        self.axes.patch.set_visible(False)
        self.axes.spines[:].set_visible(False)
        self.top = self.left = 0.0  # how far words reach beyond the axes, in inches

    def write(
        self,
        x: float | int,
        y: float | int,
        words: str,
        size: float | int,
        colour: str,
        fonts: Sequence[str] = (),
        **more: Any,
    ) -> Any:
        """Some words, `x` and `y` in inches from the upper left corner of the map, downwards; never read as maths."""
        from matplotlib.font_manager import FontProperties

        weight = more.pop("weight", "normal")
        font = FontProperties(family=list(fonts or glyphs.base_fonts()), size=size, weight=weight)
        tall, wide = self.rows * self.side, self.cols * self.side
        return self.figure.text(
            x / wide, 1 - y / tall, words, color=colour, fontproperties=font, parse_math=False, **more
        )

    def paint(self, image: UInt8[np.ndarray, "h w 4"]) -> None:
        """The cells, as large as the axes."""
        self.axes.imshow(image, extent=(0, self.cols, self.rows, 0), aspect="auto", interpolation="none")

    def name(self, rows: Sequence[str], cols: Sequence[str], cells: Float[np.ndarray, "h w"]) -> list[str]:
        """Tokens at both sides, thin lines between cells, weights in cells with room; returns what has to be said."""
        side = self.side
        size = min(10.0, 0.62 * side * 72)
        for n in range(1, self.rows):
            self.axes.axhline(n, color=colours.PAPER, linewidth=0.7)
        for n in range(1, self.cols):
            self.axes.axvline(n, color=colours.PAPER, linewidth=0.7)
        left, above = glyphs.labels(rows), glyphs.labels(cols)
        for n, word in enumerate(left.words):
            self.write(-0.07, (n + 0.5) * side, word, size, colours.INK, left.fonts, ha="right", va="center_baseline")
        for n, word in enumerate(above.words):
            x = (n + 0.5) * side
            style = {"rotation": 90, "ha": "center", "va": "bottom", "rotation_mode": "default"}
            self.write(x, -0.07, word, size, colours.INK, above.fonts, **style)
        self._measure()
        if side >= 0.3:
            self._weigh(cells)
        missing = left.missing + above.missing
        return [f"{glyphs.BOX}: {missing} letters that no font on this machine has"] if missing else []

    def _weigh(self, cells: Float[np.ndarray, "h w"]) -> None:
        end = shades.scale_end(cells, True)
        ramp = colours.ramp()
        for (i, j), weight in np.ndenumerate(cells):
            if weight < 0.095:
                continue
            ink = colours.ink_on(ramp[round(colours.place(float(weight), end) * (len(ramp) - 1))])
            number = f"{weight:.2f}".lstrip("0")
            x, y = (j + 0.5) * self.side, (i + 0.5) * self.side
            self.write(x, y, number, 6.5, ink, ha="center", va="center")

    def number(self, shape: tuple[int, int]) -> None:
        """Indices along both sides, of a map whose tokens are too many to name."""
        for axis, size in enumerate(shape):
            length = (self.rows, self.cols)[axis] * self.side
            step = _step(size, 8)
            for index in range(0, size, step):
                at = (index + 0.5) / size * length
                if axis == 0:
                    self.write(-0.08, at, f"{index:,}", 8, colours.SOFT, ha="right", va="center")
                    self._tick((-0.05, at), (-0.015, at))
                else:
                    self.write(at, -0.08, f"{index:,}", 8, colours.SOFT, ha="center", va="bottom")
                    self._tick((at, -0.05), (at, -0.015))
        self.frame()
        self._measure()

    def _tick(self, start: tuple[float | int, float], end: tuple[float | int, float]) -> None:
        from matplotlib.lines import Line2D

        tall, wide = self.rows * self.side, self.cols * self.side
        xs, ys = [start[0] / wide, end[0] / wide], [1 - start[1] / tall, 1 - end[1] / tall]
        self.figure.add_artist(Line2D(xs, ys, color=colours.SOFT, linewidth=0.6))

    def frame(self) -> None:
        """A line around the map."""
        self.axes.spines[:].set(visible=True, color=colours.LINE, linewidth=0.8)

    def places(self, places: Sequence[float], numbers: Sequence[int], axis: int) -> None:
        """Numbers of layers (axis 0) or heads (1) beside the cells where their pictures are."""
        for at, number in zip(places, numbers, strict=True):
            if axis == 0:
                self.write(-0.06, at * self.side, str(number), 8, colours.SOFT, ha="right", va="center")
            else:
                self.write(at * self.side, -0.05, str(number), 8, colours.SOFT, ha="center", va="bottom")
        self._measure()

    def _measure(self) -> None:
        """How far the words at both sides reach."""
        renderer = self.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer) for text in self.figure.texts]
        dpi = self.figure.dpi
        self.left = max(0.0, *(-box.x0 / dpi for box in boxes))
        self.top = max(0.0, *(box.y1 / dpi - self.rows * self.side for box in boxes))

    def head(self, title: str, quoted: str, line: str) -> None:
        """The title, under it what was read, where it is known, and how to read the picture: on one line if it fits."""
        letters = int(max(2.5, self.left + self.cols * self.side) * 14)
        both = f"{quoted} · {line}" if quoted else line
        parts = [both] if len(both) <= letters else [part for part in (quoted, line) if part]
        lines = [each for part in parts for each in textwrap.wrap(part, letters)]
        above = -self.top - 0.2
        for n, each in enumerate(lines):
            fonts = glyphs.labels([each], len(each)).fonts
            self.write(-self.left, above - 0.165 * (len(lines) - 1 - n), each, 8.5, colours.SOFT, fonts, va="baseline")
        title_at = above - 0.165 * len(lines) - 0.07
        known = glyphs.labels([title], 200)
        self.write(-self.left, title_at, known.words[0], 13, colours.INK, known.fonts, weight="bold", va="baseline")

    def legend(self, end: float, more: bool = False) -> None:
        """Which colour is which weight, under the map."""
        tall, wide = self.rows * self.side, self.cols * self.side
        length = min(2.4, max(1.6, wide))
        strip = self.figure.add_axes((0.0, -0.32 / tall, length / wide, 0.09 / tall))
        ramp = np.array(colours.ramp(), np.uint8)[None]
        strip.imshow(ramp, extent=(0, 1, 0, 1), aspect="auto", interpolation="none")
        strip.set(xticks=[], yticks=[])
        strip.spines[:].set(color=colours.LINE, linewidth=0.8)
        for tick, said in colours.ticks(end, more).items():
            x = colours.place(tick, end) * length
            style = {"ha": "left" if x == 0 else "right" if x == length else "center", "va": "top"}
            self.write(x, tall + 0.37, said, 8, colours.SOFT, **style)
        self.write(length + 0.12, tall + 0.275, "weight", 8, colours.SOFT, va="center")


def _step(size: int, most: int) -> int:
    """A round step between indices, so that about `most` of them are written."""
    power = 10 ** max(0, len(str(size // most)) - 1)
    return next(step for step in (power, 2 * power, 5 * power, 10 * power) if size / step <= most)


def _title(model: str, kind: Kind | None, where: str) -> str:
    return " · ".join(part for part in (model, f"{kind} {where}" if kind is not None else where) if part)


def _name(source: Source) -> str:
    return source.name if isinstance(source, Look) else ""


def _quoted(source: Source, kind: Kind | None) -> str:
    """What was read, or who reads whom; nothing where it is not known."""
    if not isinstance(source, Look):
        return ""
    target = f"“{_short(source.target)}”" if source.target is not None else ""
    text = f"“{_short(source.text)}”"
    if not target or kind == "encoder":
        return text
    return target if kind == "decoder" else f"{target} reads {text}"


def _short(text: str) -> str:
    return glyphs.label(" ".join(text.split()), 90)


def _several(source: Source) -> bool:
    return not isinstance(source, AttentionMap) and len(source.kinds) > 1
