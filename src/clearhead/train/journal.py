"""The journal: what happened in a run, a JSON line a time, and the curve that is drawn from it.

    {"step": 199, "loss": 2.31, "norm": 0.84, "rate": 0.001, "tokens": 154368, "tokens_per_s": 16230.0, "seconds": 9.5}
    {"step": 199, "validation_loss": 2.40}

Steps count from 0; `tokens` and `seconds` are of the run so far. A run that goes on from a checkpoint first forgets the
lines that came after it, so that each step stands there once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clearhead.errors import MissingDependencyError, TrainingError


class Journal:
    """Lines of RUN/metrics.jsonl; `done` steps are kept of what is there already."""

    def __init__(self, run: Path, done: int = 0) -> None:
        self.path = run / "metrics.jsonl"
        kept = [line for line in read(run) if line["step"] < done] if done else []
        try:
            run.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
            os.replace(temporary, self.path)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror}.") from None

    def write(self, step: int, **values: object) -> None:
        """Add a line. Raises TrainingError where the disk is full."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror}.") from None


def read(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's journal; a last one that was cut off by a crash is left out."""
    lines = []
    try:
        text = (run / "metrics.jsonl").read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("step"), int):
            lines.append(told)
    return lines


def curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The losses by step: of training, and of validation where there was any."""
    found: dict[str, list[tuple[int, float]]] = {"training": [], "validation": []}
    for line in lines:
        for key, name in (("loss", "training"), ("validation_loss", "validation")):
            if isinstance(line.get(key), int | float):
                found[name].append((line["step"] + 1, float(line[key])))
    return {name: points for name, points in found.items() if points}


def smoothed(points: list[tuple[int, float]], bins: int) -> list[tuple[float, float]]:
    """The means of at most `bins` runs of neighbouring points, so that a long curve can be read."""
    size = -(-len(points) // bins)
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def draw(run: Path) -> Path:
    """RUN/curve.png: loss against steps. Raises MissingDependencyError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            'the curve is drawn by matplotlib, which is not installed; pip install "clearhead[plot]" brings it.'
        ) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    found = curves(read(run))
    for name, colour in (("training", "#9aa7b8"), ("validation", "#c2410c")):
        if name in found:
            points = smoothed(found[name], 400) if name == "training" else found[name]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, label=name)
            axes.annotate(
                f"{points[-1][1]:.3f}", points[-1], (6, 0), textcoords="offset points", color=colour, va="center"
            )
    axes.set_xlabel("steps")
    axes.set_ylabel("loss (nats a label)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if found:
        axes.legend(frameon=False)
    path = run / "curve.png"
    figure.savefig(path, dpi=150)
    return path


BARS = " ▁▂▃▄▅▆▇█"


def sketch(points: list[tuple[int, float]], width: int = 60, height: int = 8) -> str:
    """The curve in characters, its highest and lowest loss at the left."""
    if not points:
        return ""
    values = [y for _, y in smoothed(points, width)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    levels = [round((value - low) / span * (height * 8 - 1)) + 1 for value in values]
    rows = []
    for row in range(height - 1, -1, -1):
        cells = "".join(BARS[min(8, max(0, level - row * 8))] for level in levels)
        label = f"{high:.3f}" if row == height - 1 else f"{low:.3f}" if row == 0 else ""
        rows.append(f"{label:>8} ┤{cells}")
    return "\n".join(rows)
