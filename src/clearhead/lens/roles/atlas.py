"""The atlas. All heads of a model as one picture: a row a layer, a column a head, a colour a role.

A head with several roles has the colour of the most telling (the order of `Role`), and a dot for each other. Colours go
by kin: blues for places, greens for words, reds for copies, greys for rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearhead.errors import MissingDependencyError
from clearhead.lens.roles.names import MEANING, Role
from clearhead.lens.roles.report import Finding, Roles
from clearhead.lens.ways_out import glyphs, outputs
from clearhead.lens.ways_out.colours import INK, PAPER, SOFT, ink_on, rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: dict[Role, str] = {
    Role.INDUCTION: "#b8321a",
    Role.DUPLICATE: "#ef8a5b",
    Role.COREFERENCE: "#0b6b5d",
    Role.SYNTAX: "#5fb27a",
    Role.RARE: "#8a5cc2",
    Role.PREVIOUS: "#174a8c",
    Role.NEXT: "#4a90d9",
    Role.POSITIONAL: "#a8cdf0",
    Role.SEPARATOR: "#77726a",
    Role.FIRST: "#bdb5a6",
}
NONE = "#f6f1e7"

NAMED = 24
"""With so many heads a layer, or fewer, cells have room for a word."""


def check_path(path: str | Path) -> Path:
    """The path, where a picture can be written to it, told before models have run. Raises InputError, LensError or
    MissingDependencyError where it cannot."""
    outputs.check_drawn(path)
    _figure()
    return outputs.check_path(path, "picture", "roles.png")


def draw(roles: Roles, path: str | Path, title: str = "") -> Path:
    """Draw the atlas to a PNG, SVG or PDF file, by its ending. Needs matplotlib.

    title: whose heads they are. Raises LensError where the file cannot be written, MissingDependencyError without
    matplotlib.
    """
    where = check_path(path)
    figure = _draw(roles, title)
    with outputs.whole_or_nothing(where) as out:
        figure.savefig(out, format=where.suffix.lower()[1:], dpi=200)
    return where


def by_head(roles: Roles) -> dict[tuple[int, int], list[list[Finding]]]:
    """The findings of each head that has any: a list for each of its roles, the most telling role first, and in it the
    clearest finding first."""
    order = list(Role)
    found: dict[tuple[int, int], dict[Role, list[Finding]]] = {}
    for one in sorted(roles.findings, key=lambda one: one.beside - one.score):
        found.setdefault((one.layer, one.head), {}).setdefault(one.role, []).append(one)
    return {head: [own[role] for role in sorted(own, key=order.index)] for head, own in found.items()}


def _figure() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("pictures need matplotlib: pip install 'clearhead[plot]'.") from None
    return Figure


MIDDLE = {"ha": "center", "va": "center"}
CELL, LINE = 0.46, 0.33
"""Inches: a head, and a line of the legend."""


def _draw(roles: Roles, title: str) -> Figure:
    left, top, legend = 0.85, 0.95, 4.1
    cell = CELL if roles.heads <= NAMED else CELL / 2
    grid_width, grid_height = roles.heads * cell, roles.layers * cell
    shown = [role for role in Role if _was_looked_for(roles, role)]
    found = by_head(roles)
    height = top + max(grid_height + 0.5, LINE * (len(shown) + 1)) + 0.2
    width = left + grid_width + legend
    figure = _figure()(figsize=(width, height), facecolor=PAPER)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    known = glyphs.labels([f"What the heads of {title or 'this model'} do"], 120)
    _write(axes, left, 0.38, known.words[0], 14, INK, fonts=known.fonts, weight="bold")
    dots = " · a dot: one more role" if any(len(own) > 1 for own in found.values()) else ""
    _write(axes, left, 0.64, roles.heading() + dots, 7.5, SOFT)
    for layer in range(roles.layers):
        y = top + layer * cell
        _write(axes, left - 0.1, y + cell / 2, f"layer {layer}", 7.5, SOFT, ha="right", va="center")
        for head in range(roles.heads):
            _cell(axes, left + head * cell, y, cell, found.get((layer, head), ()))
    for head in range(0, roles.heads, 1 if cell == CELL else 4):
        _write(axes, left + (head + 0.5) * cell, top + grid_height + 0.16, str(head), 7.5, SOFT, **MIDDLE)
    _write(axes, left + grid_width / 2, top + grid_height + 0.36, "head", 7.5, SOFT, **MIDDLE)
    _legend(axes, roles, found, shown, left + grid_width + 0.35, top)
    return figure


def _write(
    axes: Any, x: float, y: float, words: str, size: float | int, colour: str, *, fonts: Sequence[str] = (), **more: Any
) -> None:
    """Some words, in the fonts that the other pictures have; never read as maths."""
    family = list(fonts or glyphs.base_fonts())
    axes.text(x, y, words, fontsize=size, color=colour, family=family, parse_math=False, **more)


def _cell(axes: Any, x: float, y: float, cell: float, own: Sequence[list[Finding]]) -> None:
    colour = COLOURS[own[0][0].role] if own else NONE
    _square(axes, x, y, cell, colour)
    if cell < CELL or not own:
        return
    for number, other in enumerate(own[1:]):
        fill = COLOURS[other[0].role]
        axes.plot(x + cell - 0.09 - 0.09 * number, y + 0.09, "o", markersize=4, color=fill, mec=PAPER, mew=0.7)
    ink = ink_on(rgb(colour))
    _write(axes, x + cell / 2, y + cell / 2 + 0.01, _words(own[0]), 6.2, ink, linespacing=1.1, **MIDDLE)


def _square(axes: Any, x: float, y: float, cell: float, colour: str, edge: str = "none") -> None:
    from matplotlib.patches import FancyBboxPatch

    gap = 0.025 * cell / CELL + 0.01
    box = FancyBboxPatch(
        (x + gap, y + gap),
        cell - 2 * gap,
        cell - 2 * gap,
        boxstyle=f"round,pad=0,rounding_size={0.12 * cell}",
        facecolor=colour,
        edgecolor=edge,
        linewidth=1.0 if edge != "none" else 0,
    )
    axes.add_patch(box)


def _legend(
    axes: Any,
    roles: Roles,
    found: dict[tuple[int, int], list[list[Finding]]],
    shown: Sequence[Role],
    x: float,
    y: float,
) -> None:
    """The roles that were looked for, with what they mean and how many heads have them; one that none has is hollow."""
    for role in shown:
        count = sum(any(each[0].role is role for each in own) for own in found.values())
        _square(axes, x, y + 0.02, 0.24, COLOURS[role] if count else PAPER, COLOURS[role])
        ink = INK if count else SOFT
        weight = "bold" if count else "normal"
        _write(axes, x + 0.36, y + 0.07, role.value, 8.5, ink, va="center", weight=weight)
        _write(axes, x + 0.36, y + 0.215, MEANING[role], 6.8, SOFT, va="center")
        word = "none" if not count else "1 head" if count == 1 else f"{count} heads"
        _write(axes, x + 3.5, y + 0.07, word, 8, ink, va="center", ha="right")
        y += LINE
    _square(axes, x, y + 0.02, 0.24, NONE)
    bare = roles.layers * roles.heads - len(found)
    _write(axes, x + 0.36, y + 0.14, "none of these", 8.5, SOFT, va="center")
    _write(axes, x + 3.5, y + 0.14, f"{bare} heads" if bare != 1 else "1 head", 8, SOFT, va="center", ha="right")


def _was_looked_for(roles: Roles, role: Role) -> bool:
    if role is Role.SYNTAX:
        return bool(roles.relations)
    if role is Role.COREFERENCE:
        return roles.coreference is not None
    return any(scores.role is role and scores.queries for scores in roles.scores)


def _words(own: Sequence[Finding]) -> str:
    """What a cell says: the relations that a syntactic head is best at, two at most; a distance; or the score."""
    first = own[0]
    if first.role is Role.SYNTAX:
        names = list(dict.fromkeys(one.detail.partition(" ")[0].rpartition(":")[2] for one in own))
        return "\n".join(name[:8] for name in names[:2])
    return first.detail if first.role is Role.POSITIONAL else f"{first.score:.2f}".removeprefix("0")
