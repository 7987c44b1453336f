"""Maps in the terminal. A grid of weights with words beside and above it, painted as large as the terminal allows.

A cell is four or three columns wide and says its weight in hundredths where that fits; then two wide, then one; then
the map is pooled, each half of a character the largest weight of its block. Where there are no colours, shades stand
for them. A weight of exactly 0, a key that may not be read, is left unpainted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from rich.text import Text

from clearhead.cli import ember
from clearhead.lens.maps.attention_map import AttentionMap

LABEL = 14
"""The widest label beside a map."""

TALL = 10
"""The tallest label above it, where words are spelled downwards."""


def grid(
    weights: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], cell: int, colours: bool
) -> Text:
    """The weights as painted cells, `cell` columns wide each, with labels on both sides."""
    side = max(map(len, rows))
    picture = Text(no_wrap=True)
    for line in _heading(columns, cell):
        picture.append(" " * (side + 1) + line + "\n", "dim")
    for label, row in zip(rows, weights, strict=True):
        picture.append(f"{label:>{side}} ")
        for weight in row:
            picture.append(*_cell(weight, cell, colours))
        picture.append("\n")
    return picture


def cell_width(columns: int, room: int) -> int:
    """How wide a cell can be: 4, 3, 2, 1, or 0 where even one character a key is too much."""
    return next((width for width in (4, 3, 2, 1) if columns * width <= room), 0)


def head_map(m: AttentionMap, rows: Sequence[str], columns: Sequence[str], width: int, colours: bool) -> Text:
    """One head's map, as large as `width` allows; says so where it is pooled."""
    labels = [f"{clip(word, LABEL - 4)} {i}" for i, word in enumerate(rows)]
    room = max(8, width - max(map(len, labels)) - 1)
    cell = cell_width(m.shape[1], room)
    if cell and m.shape[0] <= 2 * room:
        return grid(m.dense().tolist(), labels, [word.strip() for word in columns], cell, colours)
    return _pooled(m, labels, room, colours)


def legend(colours: bool) -> Text:
    """Which colour is which weight."""
    line = Text("weight ", "dim")
    for tick in ember.TICKS:
        line.append(*(("  ", f"on {ember.colour(tick)}") if colours else (ember.shade(tick) * 2, "")))
        line.append(f" {tick:g}  ", "dim")
    return line


def bar(weight: float, width: int, colours: bool) -> Text:
    """A weight as a length."""
    full, part = divmod(round(weight * width * 8), 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else ""), "#c8691f" if colours else "")


def clip(word: str, width: int) -> str:
    """A token as a label: without the space before it, and cut where it is long."""
    word = "".join(c if c.isprintable() else "·" for c in word.strip()) or "␣"
    return word if len(word) <= width else word[: width - 1] + "…"


def _cell(weight: float, width: int, colours: bool) -> tuple[str, str]:
    number = f"{round(100 * weight):>{width}}" if width > 2 and weight >= 0.005 else " " * width
    if weight == 0.0:
        return "·".rjust(width), "dim"
    if colours:
        return number, f"{ember.ink(weight)} on {ember.colour(weight)}"
    return (number, "") if width > 2 else (ember.shade(weight) * width, "")


def _heading(columns: Sequence[str], cell: int) -> list[str]:
    if all(len(word) < cell for word in columns):
        return ["".join(f"{word:>{cell}}" for word in columns)]
    words = [clip(word, TALL) for word in columns]
    tall = max(map(len, words))
    return ["".join(word.rjust(tall)[line].rjust(cell) for word in words) for line in range(tall)]


def _pooled(m: AttentionMap, labels: Sequence[str], room: int, colours: bool) -> Text:
    width = min(room, m.shape[1])
    lines = max(1, min((width + 1) // 2, (m.shape[0] + 1) // 2))
    pooled = m.pool(2 * lines if colours else lines, width, how="max").tolist()
    per_line = 2 if len(pooled) > lines else 1
    side = max(map(len, labels))
    picture = Text(no_wrap=True)
    picture.append(" " * (side + 1) + _ticks(width, m.shape[1]) + "\n", "dim")
    for line, start in enumerate(range(0, len(pooled), per_line)):
        first = start * m.shape[0] // len(pooled)
        picture.append(f"{labels[first]:>{side}} ")
        upper, *rest = islice(pooled, start, start + per_line)
        for a, b in zip(upper, rest[0] if rest else upper, strict=True):
            picture.append(*_halves(a, b, colours))
        picture.append("\n")
        assert line < lines
    picture.append(
        f"{m.shape[0]}×{m.shape[1]} weights, pooled to {len(pooled)}×{width}: each spot is the largest of its block.\n",
        "dim",
    )
    return picture


def _halves(upper: float, lower: float, colours: bool) -> tuple[str, str]:
    if not colours:
        return ember.shade(max(upper, lower)), ""
    if upper == lower == 0.0:
        return " ", ""
    if lower == 0.0:
        return "▀", ember.colour(upper)
    if upper == 0.0:
        return "▄", ember.colour(lower)
    return "▀", f"{ember.colour(upper)} on {ember.colour(lower)}"


def _ticks(width: int, keys: int) -> str:
    """The index of every tenth column or so, where it begins."""
    line = ""
    for at in range(0, width, 10):
        number = str(at * keys // width)
        if at + len(number) <= width:
            line = line.ljust(at) + number
    return line
