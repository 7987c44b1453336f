"""The picture of forgetting: what is remembered against how far back it lies, and what a step of training takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearhead.errors import MissingDependencyError
from clearhead.lab.forgetting import CHANCE, Memory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER, INK, SOFT, LINE = "#fffdf9", "#1f1b16", "#6a6157", "#e5ddd0"
COLOURS = {"Transformer": "#c2500f", "RNN": "#2b6a99", "LSTM": "#3f7d4e", "GRU": "#8a5a9e"}
TICKS = [step * 10**power for power in range(-2, 6) for step in (1, 2, 5)]
MARKS = {"Transformer": "o", "RNN": "v", "LSTM": "s", "GRU": "D"}


def draw(memories: Sequence[Memory], title: str, path: Path) -> Path:
    """Write both plots, side by side, with the title over them. Raises MissingDependencyError without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator
    except ImportError:
        raise MissingDependencyError(
            'the picture is drawn by matplotlib, which is not installed; pip install "clearhead[plot]" brings it.'
        ) from None
    style: dict[Any, Any] = {"text.color": INK, "axes.edgecolor": LINE, "font.family": "sans-serif", "font.size": 10}
    style |= dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), SOFT)
    with rc_context(style):
        figure = Figure(figsize=(12, 4.6), facecolor=PAPER)
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.045, right=0.865, top=0.78, bottom=0.13, wspace=0.5)
        figure.suptitle(title, x=0.045, y=0.955, ha="left", fontsize=14, fontweight="bold", color=INK)
        right_answers = {memory.name: _scaled(memory.accuracy, 100.0) for memory in memories}
        _lines(left, right_answers)
        left.axhline(100 * CHANCE, color=SOFT, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        start = min(memories[0].accuracy), 100 * CHANCE
        left.annotate("guessing", start, (0, 4), textcoords="offset points", color=SOFT)
        left.set_ylim(0, 104)
        left.set_yticks(range(0, 101, 20))
        left.set_title("Right answers, in %", loc="left", fontsize=10.5, color=INK, pad=10)
        left.set_xlabel("tokens between the mark and the question")
        _name_ends(left, right_answers, "{:.0f} %")
        milliseconds = {memory.name: _scaled(memory.seconds, 1000.0) for memory in memories}
        _lines(right, milliseconds)
        every = [value for points in milliseconds.values() for value in points.values()]
        right.set_yscale("log")
        right.set_ylim(0.85 * min(every), 1.1 * max(every))
        right.set_yticks([tick for tick in TICKS if min(every) <= tick <= max(every)])
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_locator(NullLocator())
        right.set_title("A training step on 16 texts, in milliseconds", loc="left", fontsize=10.5, color=INK, pad=10)
        right.set_xlabel("tokens in a text")
        _name_ends(right, milliseconds, "{:.3g} ms")
        figure.savefig(path, dpi=170, facecolor=PAPER)
    return path


def _scaled(values: Mapping[int, float], factor: float) -> dict[int, float]:
    return {place: factor * value for place, value in values.items()}


def _lines(axes: Axes, values: Mapping[str, Mapping[int, float]]) -> None:
    """A line a model, over distances or lengths that double."""
    axes.set_facecolor(PAPER)
    axes.set_xscale("log", base=2)
    places = sorted(next(iter(values.values())))
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, pad=6)
    for name, points in values.items():
        front = name == "Transformer"
        axes.plot(
            places,
            [points[place] for place in places],
            color=COLOURS[name],
            linewidth=2.6 if front else 1.7,
            marker=MARKS[name],
            markersize=5.5 if front else 4.5,
            markeredgecolor=PAPER,
            markeredgewidth=0.8,
            zorder=4 if front else 3,
            clip_on=False,
            label=name,
        )


def _name_ends(axes: Axes, values: Mapping[str, Mapping[int, float]], form: str) -> None:
    """Each line's name where it ends; names that would lie on one another are moved apart. Limits are set before."""
    at = max(next(iter(values.values())))
    ends = {name: points[at] for name, points in values.items()}
    ordered = sorted(ends, key=lambda name: ends[name])
    heights = [float(axes.transData.transform((at, ends[name]))[1]) for name in ordered]
    step = 14 * axes.figure.dpi / 72  # a line of text
    apart = spread(heights, step)
    for name, height, moved in zip(ordered, heights, apart, strict=True):
        axes.annotate(
            f"{name}  {form.format(ends[name])}",
            (at, ends[name]),
            (11, (moved - height) * 72 / axes.figure.dpi),
            textcoords="offset points",
            color=COLOURS[name],
            va="center",
            fontsize=9.5,
            fontweight="bold" if name == "Transformer" else "normal",
            annotation_clip=False,
        )


def spread(heights: Sequence[float], step: float) -> list[float]:
    """Ascending heights moved apart to at least `step`, each group about its own middle."""
    groups: list[tuple[float, int]] = []  # middle and how many
    for height in heights:
        groups.append((height, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < step * (groups[-1][1] + groups[-2][1]) / 2:
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    return [middle + step * (place - (n - 1) / 2) for middle, n in groups for place in range(n)]
