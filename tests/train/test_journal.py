"""The journal: each step stands there once, whatever crashed; its curve as a picture and in characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearhead.errors import TrainingError
from clearhead.train.journal import Journal, curves, draw, read, sketch, smoothed


def written(run: Path, steps: range, done: int = 0) -> None:
    journal = Journal(run, done)
    for step in steps:
        journal.write(step, loss=5 / (step + 1))
        if step % 5 == 4:
            journal.write(step, validation_loss=6 / (step + 1))


def test_a_run_that_goes_on_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    written(tmp_path, range(12))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')  # the crash
    written(tmp_path, range(8, 20), done=8)
    found = curves(read(tmp_path))
    assert [step for step, _ in found["training"]] == list(range(1, 21))
    assert [step for step, _ in found["validation"]] == [5, 10, 15, 20]


def test_a_new_run_begins_anew(tmp_path: Path) -> None:
    written(tmp_path, range(12))
    written(tmp_path, range(2))
    assert len(read(tmp_path)) == 2 and read(tmp_path / "nowhere") == []


def test_curves(tmp_path: Path) -> None:
    written(tmp_path, range(1000))
    points = curves(read(tmp_path))["training"]
    drawn = sketch(points, width=40, height=5).splitlines()
    assert len(drawn) == 5 and all(len(line) == 50 for line in drawn) and "█" in drawn[0]
    assert smoothed([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(1.5, 2.0), (3.0, 5.0)]
    assert sketch([]) == "" and len(sketch([(1, 2.0)]).splitlines()) == 8
    assert draw(tmp_path).stat().st_size > 5_000


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(TrainingError, match="cannot be written"):
        Journal(tmp_path / "run")
