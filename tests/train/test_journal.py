"""The journal: each step stands there once, whatever crashed; its curve as a picture and in characters."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from clearhead.errors import TrainingError
from clearhead.train.curve import apart, curves, draw, sketch, smoothed
from clearhead.train.journal import Journal, read


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
    assert [step for step, _ in found["held out"]] == [5, 10, 15, 20]


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    """JSON has no NaN; journals of before had, and are read all the same."""
    journal = Journal(tmp_path)
    for step, loss in enumerate((3.0, math.nan, 2.0)):
        journal.write(step, loss=loss, norm=math.inf if step == 1 else 1.0, spike="odd")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert lines[1] == {"step": 1, "loss": None, "norm": None, "spike": "odd"}
    (tmp_path / "metrics.jsonl").write_text(text.replace("null", "NaN"))
    assert read(tmp_path) == lines
    Journal(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == text
    found = curves(read(tmp_path))
    assert found == {"training": [(1, 3.0), (3, 2.0)]} and "training 2.000" in sketch(found)
    assert draw(tmp_path).stat().st_size > 5_000


def test_the_time_is_that_of_the_whole_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.seconds == 0
    for step in range(6):
        journal.write(step, loss=1.0, seconds=2.5 * (step + 1))
    assert Journal(tmp_path, 4).seconds == 10
    assert Journal(tmp_path).seconds == 0


def test_a_new_run_begins_anew(tmp_path: Path) -> None:
    written(tmp_path, range(12))
    written(tmp_path, range(2))
    assert len(read(tmp_path)) == 2 and read(tmp_path / "nowhere") == []


def test_curves(tmp_path: Path) -> None:
    written(tmp_path, range(1000))
    found = curves(read(tmp_path))
    drawn = sketch(found, width=40, height=6).splitlines()
    assert len(drawn) == 8 and all(line[9] in "┤│└ " for line in drawn)
    assert drawn[0].startswith("   0.763 ┤") and drawn[5].startswith("   0.005 ┤") and drawn[7].endswith("1,000 steps")
    assert "training 0.005" in drawn[4] + drawn[5] and "● held out 0.006" in drawn[4] + drawn[5]
    assert all(any("⠁" <= one <= "⣿" for one in line) for line in drawn[:6])
    assert any("●" in line[10:50] for line in drawn[:6])
    assert smoothed([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(1.5, 2.0), (3.0, 5.0)]
    assert sketch({}) == "" and len(sketch({"training": [(1, 2.0)]}).splitlines()) == 11
    assert draw(tmp_path).stat().st_size > 5_000


def test_names_at_the_ends_of_curves_keep_apart() -> None:
    within = 5.0, 0.0, 100.0
    assert apart([10.0, 30.0], *within) == [10, 30]
    assert apart([20.0, 21.0], *within) == [18, 23]
    assert apart([21.0, 20.0], *within) == [23, 18]
    assert apart([0.0, 0.0], *within) == [0, 5] and apart([99.0, 100.0], *within) == [95, 100]


def test_the_names_in_a_picture_do_not_overlap(tmp_path: Path) -> None:
    import matplotlib.figure

    journal = Journal(tmp_path)
    for step in range(50):
        journal.write(step, loss=2 + 1 / (step + 1), **({"validation_loss": 2.001} if step == 49 else {}))
    figures: list[matplotlib.figure.Figure] = []
    figure = matplotlib.figure.Figure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure", lambda **how: figures.append(figure(**how)) or figures[-1])
        draw(tmp_path)
    [axes] = figures[0].axes
    one, other = (text.get_window_extent() for text in axes.texts if text.get_alpha() != 0)
    assert not one.overlaps(other)


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(TrainingError, match="cannot be written"):
        Journal(tmp_path / "run")
