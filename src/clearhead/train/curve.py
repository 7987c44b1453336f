"""The curve: a run's losses against its steps, as a picture and in characters. It is drawn from the journal's lines.

Each loss is named where it ends, in its own colour, with its last figure; names that would lie on one another are
moved apart. Training is drawn as the mean of neighbouring steps (and, in the picture, faintly as it was), what was
held out as it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from clearhead.errors import MissingDependencyError
from clearhead.train.journal import read

Points = list[tuple[int, float]]

NAMES = {"training": "loss", "held out": "validation_loss"}
"""What is drawn, and what the journal calls it."""


def curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """The losses by step, counted from 1: of training, and of what was held out where there was any."""
    found: dict[str, Points] = {
        name: [(line["step"] + 1, float(line[key])) for line in lines if isinstance(line.get(key), int | float)]
        for name, key in NAMES.items()
    }
    return {name: points for name, points in found.items() if points}


def smoothed(points: Points, bins: int) -> list[tuple[float, float]]:
    """The means of at most `bins` runs of neighbouring points, so that a long curve can be read."""
    size = -(-len(points) // bins)
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def apart(wanted: Sequence[float], room: float, low: float, high: float) -> list[float]:
    """Places as near to the wanted ones as can be, in their order, `room` from one another, within low … high."""
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    places = [min(max(place, low), high) for place in wanted]
    for before, after in pairwise(order):
        gap = places[after] - places[before]
        if gap < room:
            places[before] -= (room - gap) / 2
            places[after] += (room - gap) / 2
    for way, edge in ((1, low), (-1, high)):  # what was pushed over an edge pushes back
        for n in order[::way]:
            places[n] = max(places[n], edge) if way == 1 else min(places[n], edge)
            edge = places[n] + way * room
    return places


# ── the picture ──────────────────────────────────────────────────────────────────────────────────────────────────

COLOURS = {"training": "#3b6ea5", "held out": "#c2410c"}
INK, FAINT = "#333a44", "#d9dde3"
MEANS = 120
"""Points of the line through noisy training losses."""


def draw(run: Path) -> Path:
    """RUN/curve.png. Raises MissingDependencyError without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    except ImportError:
        raise MissingDependencyError(
            'the curve is drawn by matplotlib, which is not installed; pip install "clearhead[plot]" brings it.'
        ) from None
    found = curves(read(run))
    figure = Figure(figsize=(7.2, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    axes = figure.add_subplot()
    for name, points in found.items():
        colour = COLOURS[name]
        if name == "training":
            means = smoothed(points, MEANS)
            axes.plot(*zip(*smoothed(points, 2000), strict=True), color=colour, linewidth=0.7, alpha=0.22)
            axes.plot(*zip(*means, strict=True), color=colour, linewidth=1.8, solid_capstyle="round")
        else:
            few = len(points) <= 40
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, marker="o" if few else "", markersize=4)
            axes.plot(*_lowest(points), "o", markersize=9, fillstyle="none", color=colour)
    losses = [loss for points in found.values() for _, loss in points]
    if losses and 0 < min(losses) < max(losses) / 300:
        axes.set_yscale("log")  # most of it would else run along the floor
    axes.set_xlabel("steps", color=INK)
    axes.set_ylabel("loss (nats a label)", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa3ae")
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.015)
    figure.suptitle(_title(run, found), x=0.02, ha="left", fontsize=11, color=INK)
    _name_ends(figure, axes, found)
    path = run / "curve.png"
    figure.savefig(path, dpi=150)
    return path


def _title(run: Path, found: Mapping[str, Points]) -> str:
    """What a reader would ask first: how low it came, and when."""
    name = run.resolve().name
    if "held out" not in found:
        return name
    step, best = _lowest(found["held out"])
    return f"{name}: held out {_short(best)} at its lowest, after {step:,} steps"


def _short(loss: float) -> str:
    return f"{loss:.3f}" if loss >= 0.1 else f"{loss:.2g}"


def _lowest(points: Points) -> tuple[int, float]:
    return min(points, key=lambda point: point[1])


def _name_ends(figure: Any, axes: Any, found: Mapping[str, Points]) -> None:
    """The name and the last figure of each curve, to the right of its end."""
    ends = {name: smoothed(points, MEANS)[-1] if name == "training" else points[-1] for name, points in found.items()}
    labels = [f"{name} {_short(y)}" for name, (_, y) in ends.items()]
    right = max((x for x, _ in ends.values()), default=0)
    for label in labels:  # once to make room for them, then where they belong
        aside = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(label, (right, 0), (10, 0), **aside, fontsize=9.5, alpha=0)
    figure.draw_without_rendering()
    points_a_pixel = 72 / figure.dpi
    heights = [float(axes.transData.transform(end)[1]) * points_a_pixel for end in ends.values()]
    low, high = (float(edge) * points_a_pixel for edge in (axes.bbox.y0, axes.bbox.y1))
    for name, label, end, height, place in zip(
        ends, labels, ends.values(), heights, apart(heights, 15.0, low, high), strict=True
    ):
        axes.annotate(
            label,
            (right, end[1]),
            (10, place - height),
            textcoords="offset points",
            color=COLOURS[name],
            fontsize=9.5,
            va="center",
        )


# ── in characters ────────────────────────────────────────────────────────────────────────────────────────────────

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille: the bit of each of a cell's 4 × 2 dots."""


def sketch(found: Mapping[str, Points], width: int = 56, height: int = 9) -> str:
    """The curves in characters: training as a line of dots, what was held out as ●, each named at its end."""
    if not found:
        return ""
    last = max(points[-1][0] for points in found.values())
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, points in found.items():
        few = points[:: -max(1, len(points) // 12)][::-1]  # the last one among them
        lines[name] = smoothed(points, width) if name == "training" else [(float(x), y) for x, y in few]
    values = [y for points in lines.values() for _, y in points]
    low, high = min(values), max(values)

    def across(step: float, n: int) -> int:
        return min(n - 1, int((step - 1) / max(last - 1, 1) * (n - 1) + 0.5))

    def down(loss: float, n: int) -> float:
        return (high - loss) / ((high - low) or 1.0) * (n - 1)

    dots = [[0] * width for _ in range(height)]
    for x, top, bottom in _strokes([(across(x, 2 * width), down(y, 4 * height)) for x, y in lines.get("training", [])]):
        for row in range(top, bottom + 1):
            dots[row // 4][x // 2] |= DOTS[row % 4][x % 2]
    cells = [[chr(0x2800 + dot) if dot else " " for dot in row] for row in dots]
    for step, loss in lines.get("held out", []):
        cells[round(down(loss, 4 * height)) // 4][across(step, width)] = "●"

    wanted = [down(points[-1][1], 4 * height) / 4 - 0.5 for points in lines.values()]
    ends = ["" for _ in range(height)]
    for (name, drawn), place in zip(lines.items(), apart(wanted, 1.0, 0.0, height - 1.0), strict=True):
        ends[int(place + 0.5)] = f" {'● ' if name == 'held out' else ''}{name} {drawn[-1][1]:.3f}"
    edge = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    told = [
        f"{edge.get(row, ''):>8} {'┤' if row in edge else '│'}{''.join(cells[row])}{ends[row]}".rstrip()
        for row in range(height)
    ]
    steps = f"{last:,} steps"
    return "\n".join([*told, f"{'':>8} └{'─' * width}", f"{'':>10}1{steps:>{width - 1}}"])


def _strokes(points: list[tuple[int, float]]) -> Iterator[tuple[int, int, int]]:
    """A line through points, column by column: where it begins and ends in each."""
    before = points[0][1] if points else 0.0
    for (x0, y0), (x1, y1) in pairwise([points[0], *points] if points else []):
        for x in range(x0 if x0 == x1 else x0 + 1, x1 + 1):
            y = y1 if x0 == x1 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
            yield x, round(min(before, y)), round(max(before, y))
            before = y
