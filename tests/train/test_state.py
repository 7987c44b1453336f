"""A checkpoint is whole or it is not there: killed at any write, cut short, changed, or on a disk that is full."""

from __future__ import annotations

import errno
import math
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clearhead.errors import CheckpointError, TrainingError
from clearhead.train import state
from clearhead.train.state import State
from tests.train.killing import killed_while_writing
from tests.train.writer import write


def made(step: int, value: float = 1.0) -> State:
    tensors = {"a": torch.full((3, 4), value), "b": torch.arange(5)}
    return State(
        step=step,
        tokens=step * 10,
        model=tensors,
        optimiser=tensors,
        random=[state.random_state()],
        data=[{"at": step}],
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = state.save(tmp_path, made(7, 2.5))
    assert folder.name == "step-00000007" and state.newest(tmp_path) == folder
    told = state.load(folder)
    assert (told.step, told.tokens, told.data) == (7, 70, [{"at": 7}])
    assert torch.equal(told.model["a"], torch.full((3, 4), 2.5)) and torch.equal(told.model["b"], torch.arange(5))


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        state.save(tmp_path, made(step), keep=2)
    assert [path.name for path in state.checkpoints(tmp_path)] == ["step-00000003", "step-00000010"]


def test_later_ones_go_when_one_before_them_is_written(tmp_path: Path) -> None:
    """A run that went on from before them would else keep them in the place of its own."""
    for step in (1, 2, 4, 6):
        state.save(tmp_path, made(step), keep=9)
    for step in (4, 6):
        (tmp_path / state.name_of(step) / "model.safetensors").unlink()
    state.beside(tmp_path, 3).mkdir()
    state.beside(tmp_path, 9).mkdir()
    assert state.publish(tmp_path, made(3), {}, keep=1) == tmp_path / "step-00000003"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000009.tmp"]
    for step in (99_999_999, 100_000_000):  # by number, not by name
        state.save(tmp_path, made(step), keep=2)
    assert [path.name for path in state.checkpoints(tmp_path)] == ["step-99999999", "step-100000000"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_no_number_is_found(bad: float, dtype: torch.dtype) -> None:
    tensors = {
        "ids": torch.arange(3),
        "none": torch.zeros(0),
        "one": torch.tensor(2.0),
        "w": torch.ones(9, 9).to(dtype),
    }
    assert state.not_finite(tensors) is None
    tensors["w"][4, 4] = bad
    assert state.not_finite(tensors) == "w"


def test_one_that_is_not_whole_is_passed_over(tmp_path: Path) -> None:
    good = state.save(tmp_path, made(1), keep=9)
    flaws = {}
    for step, harm in enumerate(("cut", "changed", "gone", "manifest", "empty"), start=2):
        folder = state.save(tmp_path, made(step), keep=9)
        weights = folder / "model.safetensors"
        match harm:
            case "cut":
                weights.write_bytes(weights.read_bytes()[:-1])
            case "changed":
                data = bytearray(weights.read_bytes())
                data[-1] ^= 1
                weights.write_bytes(data)
            case "gone":
                weights.unlink()
            case "manifest":
                (folder / "manifest.json").write_text('{"step": 5, "files"')
            case "empty":
                shutil.rmtree(folder)
                folder.mkdir()
        flaws[folder.name] = harm
    said: list[str] = []
    assert state.newest(tmp_path, said.append) == good
    assert len(said) == len(flaws) and all(any(name in line for line in said) for name in flaws)
    with pytest.raises(CheckpointError, match=r"cannot be gone on from.*missing"):
        state.load(tmp_path / "step-00000004")


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = state.save(tmp_path, made(1))
    for broken in ("save_file", "_save_json", "sync_file"):
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(state, broken, full)
            with pytest.raises(TrainingError, match="disk is full; make room"):
                state.save(tmp_path, made(2))
        assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert state.newest(tmp_path) == good


def test_the_generators_go_on_where_they_were() -> None:
    random.gauss(0, 1)
    np.random.normal()
    kept = state.random_state()
    drawn = [torch.rand(3).tolist(), np.random.normal(size=3).tolist(), [random.gauss(0, 1), random.random()]]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    state.set_random_state(kept)
    assert drawn == [torch.rand(3).tolist(), np.random.normal(size=3).tolist(), [random.gauss(0, 1), random.random()]]


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_instant(tmp_path: Path, kills: int) -> None:
    """SIGKILL while it writes: what was said to be saved is there, whole; nobody has to lend a hand."""
    chance = random.Random(0)
    last, inside = -1, 0
    for _ in range(kills):
        promised = killed_while_writing(write, tmp_path, last + 1, chance.uniform(0, 0.03))
        inside += any(path.suffix == ".tmp" for path in tmp_path.iterdir())
        folder = state.newest(tmp_path)
        assert folder is not None
        told = state.load(folder)
        assert told.step >= promised and bool((told.model["w"] == told.step).all())
        last = told.step
    assert inside > kills // 4  # most came in the middle of a write
    assert len(state.checkpoints(tmp_path)) <= 3
