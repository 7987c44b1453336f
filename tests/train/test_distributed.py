"""Several processes: the curve of one, checkpoints that any number of processes goes on from, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from clearhead.errors import ConfigError
from clearhead.train import sharded, state
from clearhead.train.distributed import Processes, _met, processes
from tests.starting import finished
from tests.train.support import tiny
from tests.train.together import main


def torchrun(n: int, script: str, *arguments: object) -> None:
    done = finished(Path(__file__).with_name(script), *arguments, n=n)
    assert done.returncode == 0, done.stderr[-3000:]


def curve(folder: Path) -> list[list[float]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    folder = tmp_path_factory.mktemp("alone")
    main(folder, "alone", 8, 8)
    return curve(folder)


def weights(run: Path) -> Mapping[str, torch.Tensor]:
    newest = state.newest(run)
    assert newest is not None
    if state.is_sharded(newest):
        return sharded.load(newest, tiny(), Processes("alone"), what=("model",)).model
    return state.load(newest).model


def agrees(one: list[list[float]], other: list[list[float]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a[0] == b[0] and a[3] == b[3]
        assert a[1] == pytest.approx(b[1], rel=1e-5) and a[2] == pytest.approx(b[2], rel=1e-4)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_have_the_curve_of_one(tmp_path: Path, how: str, alone: list[list[float]]) -> None:
    """And a run that they saved, each its part where the model is divided up, goes on with one. By Muon, too: the rows
    of a matrix may lie with two processes, and what is made orthogonal is the whole matrix.

    They meet twice: a group that ended with its DDP would wait for itself (`distributed._left`).
    """
    adam, muon, one = (tmp_path / name for name in ("adam", "muon", "one"))
    for folder in (adam, muon, one):
        folder.mkdir()
    by_adam = adam, how, 8, 5, "sharded" if how == "fsdp" else "whole"
    torchrun(2, "together.py", *by_adam, "and", muon, how, 6, 3, "whole", "muon")
    assert len(list(adam.glob("step-00000005/shard-*"))) == (2 if how == "fsdp" else 0)
    main(adam, "alone", 8, 8)
    agrees(curve(adam), alone)
    for folder in (one, muon):
        main(folder, "alone", 6, 6, "whole", "muon")
    agrees(curve(muon), curve(one))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "sharded"])
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_run_of_two_goes_on_with_two_bit_for_bit_and_with_three(
    tmp_path: Path, how: str, kind: str, alone: list[list[float]]
) -> None:
    straight, killed, three = (tmp_path / name for name in ("straight", "killed", "three"))
    for folder in (straight, killed, three):
        folder.mkdir()
    torchrun(2, "together.py", straight, how, 8, 8, kind)
    torchrun(2, "together.py", killed, how, 8, 3, kind)
    torchrun(2, "together.py", killed, how, 8, 8, kind)
    assert curve(killed) == curve(straight)
    first, second = (weights(folder) for folder in (straight, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    torchrun(2, "together.py", three, how, 8, 3, kind)
    torchrun(3, "together.py", three, how, 8, 8, kind)
    agrees(curve(three), alone)


def test_several_processes_need_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="torchrun"), processes("ddp"):
        pass
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2"), patch.setenv("RANK", "0")
        with pytest.raises(ConfigError, match="'alone', and torchrun has started 2"), processes("alone"):
            pass
    with processes() as one:
        assert one.size == 1 and one.first and one.how == "alone"


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_one_alone_computes_on_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, there: bool, device: str
) -> None:
    """From Python as from the command line."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert Processes("alone").device.type == device
    with processes() as one:
        assert one.device.type == device


def test_processes_that_are_started_again_do_not_meet_the_dead() -> None:
    """torchrun keeps its store: what the processes before have said is still there."""
    store = dist.HashStore()
    names = []
    for _ in range(2):
        with ThreadPoolExecutor(3) as threads:
            met = [threads.submit(_met, store, rank, 3) for rank in range(3)]
            names.append({each.result(timeout=30) for each in met})
    assert all(len(each) == 1 for each in names) and names[0] != names[1]
