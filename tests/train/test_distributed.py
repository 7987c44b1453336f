"""Several processes: the curve of one, checkpoints that any number of processes goes on from, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clearhead.errors import ConfigError
from clearhead.train import state
from clearhead.train.distributed import processes
from tests.conftest import ROOT
from tests.train.together import main


def torchrun(n: int, folder: Path, how: str, steps: int, stop: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    command += [str(Path(__file__).with_name("together.py")), str(folder), how, str(steps), str(stop)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def curve(folder: Path) -> list[list[float]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    folder = tmp_path_factory.mktemp("alone")
    main(folder, "alone", 8, 8)
    return curve(folder)


def agrees(one: list[list[float]], other: list[list[float]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a[0] == b[0] and a[3] == b[3]
        assert a[1] == pytest.approx(b[1], rel=1e-5) and a[2] == pytest.approx(b[2], rel=1e-4)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_have_the_curve_of_one(tmp_path: Path, how: str, alone: list[list[float]]) -> None:
    """And a run that they saved goes on with one."""
    torchrun(2, tmp_path, how, 8, 5)
    main(tmp_path, "alone", 8, 8)
    agrees(curve(tmp_path), alone)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_run_of_two_goes_on_with_two_bit_for_bit_and_with_three(
    tmp_path: Path, how: str, alone: list[list[float]]
) -> None:
    straight, killed, three = (tmp_path / name for name in ("straight", "killed", "three"))
    for folder in (straight, killed, three):
        folder.mkdir()
    torchrun(2, straight, how, 8, 8)
    torchrun(2, killed, how, 8, 3)
    torchrun(2, killed, how, 8, 8)
    assert curve(killed) == curve(straight)
    a, b = (state.newest(folder) for folder in (straight, killed))
    assert a is not None and b is not None
    first, second = state.load(a).model, state.load(b).model
    assert all(torch.equal(first[name], second[name]) for name in first)
    torchrun(2, three, how, 8, 3)
    torchrun(3, three, how, 8, 8)
    agrees(curve(three), alone)


def test_several_processes_need_torchrun() -> None:
    with pytest.raises(ConfigError, match="torchrun"), processes("ddp"):
        pass
    with processes() as one:
        assert one.size == 1 and one.first and one.how == "alone"
