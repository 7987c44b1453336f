"""The journal: what happened in a run, a JSON line a time; `curve.py` draws it, `trackers.py` show it.

    {"step": 199, "loss": 2.31, "norm": 0.84, "rate": 0.001, "tokens": 154368, "tokens_per_s": 16230.0, "seconds": 9.5}
    {"step": 199, "validation_loss": 2.40}

Steps count from 0; `tokens` and `seconds` are of the run so far; a loss that is no number is null. A run that goes on
from a checkpoint first forgets the lines that came after it, so that each step stands there once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearhead._disk import put_text, sync_file
from clearhead.errors import TrainingError
from clearhead.train.trackers import Choice, opened


class Journal:
    """Lines of RUN/metrics.jsonl; `done` steps are kept of what is there already.

    tracker: is told each line, too. about: what a tracker shows of the run, its recipe. seconds: what the lines that
    are kept say that the run took before.
    """

    def __init__(
        self, run: Path, done: int = 0, tracker: Choice | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.path = run / "metrics.jsonl"
        before = read(run) if done else []
        kept = [line for line in before if line["step"] < done]
        try:
            run.mkdir(parents=True, exist_ok=True)
            put_text("".join(map(_spelled, kept)), self.path)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror}.") from None
        self.seconds = float(kept[-1].get("seconds", 0.0)) if kept else 0.0
        told = 1 + max((line["step"] for line in before), default=-1)
        self.tracker = opened(tracker, run, about or {}, kept, told) if tracker is not None else None

    def write(self, step: int, **values: object) -> None:
        """Add a line. Raises TrainingError where the disk is full."""
        line = {key: _number(value) for key, value in {"step": step, **values}.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_spelled(line))
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror}.") from None
        if self.tracker is not None:
            self.tracker.tell(line)

    def sync(self) -> None:
        """Bring the lines to the disk: before a checkpoint, so that it never has steps of which they say nothing.
        Raises TrainingError where the disk is full."""
        try:
            sync_file(self.path)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror}.") from None

    def close(self) -> None:
        """Have the tracker write what it still has to."""
        if self.tracker is not None:
            self.tracker.close()


def _number(value: object) -> object:
    """The value; None for what is no number, which JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _spelled(line: Mapping[str, object]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def read(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's journal; a last one that was cut off by a crash is left out."""
    lines = []
    try:
        text = (run / "metrics.jsonl").read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            told = json.loads(line, parse_constant=lambda _: None)  # NaN, of an older journal
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("step"), int):
            lines.append(told)
    return lines
