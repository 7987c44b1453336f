"""Sharded checkpoints: what is read is what was, whoever reads it; no pickle; killed at any instant; a full disk."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from clearhead.errors import CheckpointError, TrainingError
from clearhead.train import sharded, state
from clearhead.train.distributed import Processes
from clearhead.train.loop import Loop, Trainer
from clearhead.train.optimiser import AdamW, Muon
from clearhead.train.precision import Chosen
from clearhead.train.state import Sharded
from tests.train.killing import killed_while_writing
from tests.train.support import Random, tiny
from tests.train.writer import write_sharded


def trainer(*, steps: int = 6, keep: int = 9, **settings: Any) -> Trainer:
    loop = Loop(steps=steps, keep=keep, checkpoints=Sharded(), **settings)
    return Trainer(tiny(dropout=0.1), Random(), loop, precision=Chosen(torch.float32, "a test"))


@pytest.mark.parametrize("optimiser", [AdamW(), Muon()], ids=["adamw", "muon"])
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, optimiser: AdamW | Muon) -> None:
    """From what was saved while the steps after it were taken."""
    straight = trainer(optimiser=optimiser)
    losses = []
    for step in straight.steps():
        losses.append(step.loss)
        if straight.done == 3:
            straight.save(tmp_path)
    straight.settle()
    again = trainer(optimiser=optimiser)
    folder = state.newest(tmp_path)
    assert folder is not None and folder.name == "step-00000003" and state.is_sharded(folder)
    again.resume(folder)
    assert again.done == 3 and again.n_tokens == straight.n_tokens // 2
    assert [step.loss for step in again.steps()] == losses[3:]
    ends = straight.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_only_the_newest_stay_and_one_that_is_begun_is_not_yet_there(tmp_path: Path) -> None:
    one = trainer(keep=2)
    for _ in one.steps():
        one.save(tmp_path)
        assert len(state.checkpoints(tmp_path)) <= 2
    one.settle()
    assert [path.name for path in state.checkpoints(tmp_path)] == ["step-00000005", "step-00000006"]
    assert sorted(path.name for path in state.checkpoints(tmp_path)[0].iterdir()) == [
        "manifest.json",
        "shard-00001-model-00001-of-00001.safetensors",
        "state.json",
    ]


def test_no_pickle_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where somebody has laid one."""
    one = trainer(steps=1)
    list(one.steps())
    folder = one.save(tmp_path)
    one.settle()

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    for name in (".metadata", "__0.metadata", "shard-00002-model-00001-of-00001.distcp"):
        (folder / name).write_bytes(pickle.dumps(Harm()))

    def unread(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, unread)
    monkeypatch.setattr(torch, "load", unread)
    trainer(steps=1).resume(folder)
    assert not (tmp_path / "harm").exists()


def test_one_that_is_not_whole_is_passed_over(tmp_path: Path) -> None:
    one = trainer(steps=4)
    for _ in one.steps():
        one.save(tmp_path)
    one.settle()
    good, cut, changed, gone = state.checkpoints(tmp_path)
    shard = "shard-00001-model-00001-of-00001.safetensors"
    (cut / shard).write_bytes((cut / shard).read_bytes()[:-1])
    data = bytearray((changed / shard).read_bytes())
    data[-1] ^= 1
    (changed / shard).write_bytes(data)
    (gone / shard).unlink()
    said: list[str] = []
    assert state.newest(tmp_path, said.append) == good
    assert [line.split(": ")[1] for line in said] == [
        f"{shard} is missing",
        f"{shard} is not what was written",
        f"{shard} is not as long as it was written",
    ]
    with pytest.raises(CheckpointError, match="its parts cannot be read"):
        trainer().resume(cut)


def test_later_ones_that_were_passed_over_go(tmp_path: Path) -> None:
    """Also where the one before them is written while the next step is taken."""
    one = trainer(steps=4)
    for _ in one.steps():
        one.save(tmp_path)
    one.settle()
    for path in state.checkpoints(tmp_path)[2:]:
        (path / "manifest.json").unlink()
    again = trainer(steps=4, keep=1)
    newest = state.newest(tmp_path)
    assert newest is not None
    again.resume(newest)
    again.step()
    again.save(tmp_path)
    again.step()
    again.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_another_models_is_refused(tmp_path: Path) -> None:
    one = trainer(steps=1)
    list(one.steps())
    folder = one.save(tmp_path)
    one.settle()
    wide, longer = tiny(), tiny()
    wide.head.register_parameter("more", torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(CheckpointError, match=r"of another model: only the model has head\.more"):
        sharded.load(folder, wide, Processes("alone"))
    name, parameter = next(iter(longer.named_parameters()))
    parameter.data = torch.zeros(parameter.shape[0] + 1, *parameter.shape[1:])
    with pytest.raises(CheckpointError, match=rf"of another model: its {name} is \("):
        sharded.load(folder, longer, Processes("alone"))


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer()
    steps = one.steps()
    next(steps)
    good = one.save(tmp_path)
    one.settle()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in ((safetensors.torch, "save"), (state, "_save_json"), (state, "put_in_place")):
        next(steps)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            one.save(tmp_path)
            with pytest.raises(TrainingError, match=r"step \d could not be saved in .*: the disk is full; make room"):
                one.settle()
        assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert state.newest(tmp_path) == good
    next(steps)  # and where there is room again, all is well
    assert one.save(tmp_path).name == "step-00000005"
    one.settle()
    assert state.newest(tmp_path) == tmp_path / "step-00000005"


def test_the_folder_says_where_each_slice_lies(tmp_path: Path) -> None:
    one = trainer(steps=1)
    list(one.steps())
    folder = one.save(tmp_path)
    one.settle()
    with safetensors.safe_open(folder / "shard-00001-model-00001-of-00001.safetensors", "pt") as file:
        places = json.loads(file.metadata()["DCP_SHARDING_INFO"])
        assert set(places) == set(file.keys())
    assert {name.split(".")[0] for name in places} == {"model", "optimiser", "random-0"}


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_instant(tmp_path: Path, kills: int) -> None:
    """SIGKILL while the thread writes: what was said to be saved is there, whole."""
    chance = random.Random(0)
    last, inside = -1, 0
    for _ in range(kills):
        promised = killed_while_writing(write_sharded, tmp_path, last + 1, chance.uniform(0, 0.03))
        inside += any(path.suffix == ".tmp" for path in tmp_path.iterdir())
        folder = state.newest(tmp_path)
        assert folder is not None
        model = torch.nn.Module()
        model.register_parameter("w", torch.nn.Parameter(torch.zeros(50_000)))
        told = sharded.load(folder, model, Processes("alone"))
        assert told.step >= promised and bool((told.model["w"] == told.step).all())
        last = told.step
    assert inside > kills // 4
    assert len(state.checkpoints(tmp_path)) <= 3
