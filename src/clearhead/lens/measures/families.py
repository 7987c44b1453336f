"""Families. Which heads read alike: the Jensen-Shannon distance between their rows, and a map of all heads by it.

    JS(P, Q) = H((P + Q)/2) − ½ H(P) − ½ H(Q)       averaged over the queries of a text, in nats: 0 … ln 2

(Clark et al. 2019, §6; they sum over tokens where we average.) Heads of one layer tend to be kin, and those that
rest on [SEP] are a clan of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import InputError, MissingDependencyError
from clearhead.lens.look import Look, seen_in
from clearhead.lens.maps.derived import count
from clearhead.lens.measures.padding import real_queries
from clearhead.lens.seen import Call, Kind, Seen
from clearhead.lens.ways_out import outputs
from clearhead.lens.ways_out.colours import INK, LINE, PAPER, SOFT

CELLS = 2**22
"""Rows are derived so many that a block, of all heads, has about this many numbers."""


@dataclass(frozen=True, eq=False)
class Families:
    """The distance between any two heads of a kind, over one text. heads: (layer, head) of each row and column."""

    kind: Kind
    heads: tuple[tuple[int, int], ...]
    distances: Float[Tensor, "n n"]

    def nearest(self, layer: int, head: int, n: int = 3) -> list[tuple[int, int, float]]:
        """The n heads that read most like this one: (layer, head, distance), the nearest first."""
        if (layer, head) not in self.heads:
            raise InputError(f"head {layer}.{head} is not among the {len(self.heads)} heads that were compared.")
        own = self.heads.index((layer, head))
        order = [at for at in self.distances[own].argsort().tolist() if at != own]
        return [(*self.heads[at], float(self.distances[own, at])) for at in order[: count(n)]]

    def embed(self) -> np.ndarray:
        """Each head as a point in the plane, (n, 2): classical scaling of the distances (Torgerson 1952).

        The root of JS is a metric (Endres & Schindelin 2003); it is what the plane's distances stand for. Axes are
        turned so that the farthest point of each is on its positive side.
        """
        squared = self.distances.double().numpy()
        n = len(squared)
        centre = np.eye(n) - 1 / n
        values, vectors = np.linalg.eigh(-0.5 * centre @ squared @ centre)
        axes = vectors[:, ::-1][:, :2] * np.sqrt(np.clip(values[::-1][:2], 0, None))
        points = np.zeros((n, 2))
        points[:, : axes.shape[1]] = axes
        farthest = np.abs(points).argmax(axis=0)
        points *= np.where(points[farthest, [0, 1]] < 0, -1.0, 1.0)
        return points

    def picture(self, path: str | Path) -> Path:
        """Draw the heads in the plane, coloured by layer, to a PNG, SVG or PDF file. Needs matplotlib."""
        return _draw(self, path)


def families(seen: Seen | Look, kind: Kind | None = None, *, batch: int = 0, call: int = -1) -> Families:
    """Compare every head of a kind that was kept with every other over one text, in blocks of rows.

    A learned sink counts as one more place to read. Queries that may read nothing are left out, and so is padding.
    """
    inner = seen_in(seen, "families")
    calls = [inner.call(layer, kind, call) for layer in inner.layers(kind)]
    kind = calls[0].kind
    heads = tuple((step.layer, head) for step in calls for head in step.heads)
    sums = torch.zeros(len(heads), len(heads), dtype=torch.float64)
    queries = 0
    sinks = any(step.scoring.sinks is not None for step in calls)
    for rows in _blocks(calls, len(heads)):
        reaches = [step.scoring.mask.reach(rows, step.shape[1]) for step in calls]  # each layer may have its window
        cols = range(min(r.start for r in reaches), max(r.stop for r in reaches))
        weights = torch.cat([_places(step, rows, cols, batch, sinks) for step in calls])  # (n, q, k + 1)
        queries += int((weights.sum(-1) > 0.5).any(0).sum())
        own = torch.special.entr(weights).sum((1, 2))
        for a in range(len(heads)):
            middle = 0.5 * (weights[a] + weights[a:])
            both = torch.special.entr(middle).sum((1, 2)) - 0.5 * (own[a] + own[a:])
            sums[a, a:] += both.double().cpu()
    distances = torch.triu(sums, 1).clamp(min=0) / max(1, queries)
    return Families(kind, heads, (distances + distances.T).float())


def _blocks(calls: list[Call], n: int) -> Iterator[range]:
    tq, tk = calls[0].shape
    step = max(1, CELLS // max(1, n * tk))
    for low in range(0, tq, step):
        yield range(low, min(tq, low + step))


def _places(call: Call, rows: range, cols: range, batch: int, sinks: bool) -> Float[Tensor, "H q k1"]:
    """The tokens' rows of a layer's heads, over all that any layer could read, the sink last, where any layer has one.

    The rows of padding are zeros.
    """
    weights = torch.stack([call.map(head, batch).tile(rows, cols).cpu() for head in call.heads])
    if sinks:
        left = (1 - weights.sum(-1, keepdim=True)).clamp(min=0)
        weights = torch.cat((weights, left if call.scoring.sinks is not None else torch.zeros_like(left)), dim=-1)
    return weights * real_queries(call, batch)[rows.start : rows.stop, None]


def _draw(found: Families, path: str | Path) -> Path:
    outputs.check_drawn(path)
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("pictures need matplotlib: pip install 'clearhead[plot]'.") from None
    where = outputs.check_path(path, "picture", "families.png")
    points = found.embed()
    layers = sorted({layer for layer, _ in found.heads})
    shades = colormaps["viridis"](np.linspace(0.05, 0.9, len(layers)))
    figure = Figure(figsize=(7.2, 6.0), dpi=160, layout="constrained", facecolor=PAPER)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=PAPER)
    for layer, shade in zip(layers, shades, strict=True):
        own = [at for at, head in enumerate(found.heads) if head[0] == layer]
        axes.scatter(points[own, 0], points[own, 1], s=26, color=[shade], linewidths=0, label=f"layer {layer}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=7, colors=SOFT)
    axes.set_xlabel("√JS, first axis", fontsize=8, color=INK)
    axes.set_ylabel("second axis", fontsize=8, color=INK)
    axes.set_title(f"Heads that read alike stand together ({found.kind})", fontsize=11, loc="left", color=INK)
    if len(layers) <= 12:
        axes.legend(fontsize=7, frameon=False, ncols=math.ceil(len(layers) / 6), labelcolor=INK)
    if len(found.heads) <= 200:
        canvas.draw()  # from now on it is known where everything stands
        _name(axes, [f"{layer}.{head}" for layer, head in found.heads], axes.transData.transform(points))
    with outputs.whole_or_nothing(where) as out:
        figure.savefig(out, format=where.suffix.lower()[1:])
    return where


def _name(axes: Any, words: list[str], places: np.ndarray) -> None:
    """A name beside each point, in dots: the nearest free place around it; one that is far off has a line to it."""
    dots = axes.figure.dpi / 72
    size, dot = 6.0, 3.2 * dots
    wide, tall = 0.56 * size * dots, 0.86 * size * dots  # of a letter: figures and a point, in any font
    taken = [(x - dot, y - dot, x + dot, y + dot) for x, y in places]
    legend = axes.get_legend()
    if legend is not None:
        box = legend.get_window_extent()
        taken.append((box.x0, box.y0, box.x1, box.y1))
    frame = axes.get_window_extent()
    far = np.hypot(*(places[:, None] - places[None]).T).clip(min=1.0)
    order = np.argsort(-(1 / far).sum(0)).tolist()  # where it is crowded first, as long as there is room
    for at in order:
        x, y = places[at]
        width = wide * len(words[at])
        for ring, turn in product(range(12), range(16)):
            away, angle = dot + (1 + 3 * ring) * dots, math.pi / 8 * turn
            across, up = math.cos(angle), math.sin(angle)
            middle = x + across * (away + width / 2), y + up * (away + tall / 2)
            box = (middle[0] - width / 2, middle[1] - tall / 2, middle[0] + width / 2, middle[1] + tall / 2)
            inside = frame.x0 < box[0] and box[2] < frame.x1 and frame.y0 < box[1] and box[3] < frame.y1
            if inside and not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        offset = ((middle[0] - x) / dots, (middle[1] - y) / dots)
        line = {"arrowstyle": "-", "color": LINE, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2} if ring > 1 else None
        axes.annotate(
            words[at],
            axes.transData.inverted().transform(places[at]),
            offset,
            textcoords="offset points",
            fontsize=size,
            color=SOFT,
            ha="center",
            va="center",
            arrowprops=line,
        ).set_in_layout(False)


Box = tuple[float, float, float, float]


def _overlap(a: Box, b: Box) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
