"""A process that dies is started again, with all others, and the run goes on by itself: `torchrun --max-restarts`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import clearhead
from clearhead.api.training import Run, read_recipe
from clearhead.cli import main
from clearhead.errors import TrainingError
from clearhead.train import state
from tests.api.verses import VERSES, contents
from tests.starting import started


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "verses.txt").write_text(VERSES * 8)
    path = tmp_path / "verses.toml"
    path.write_text(
        f"""
batch = 6
[data]
source = {{ kind = "text-files", paths = ["{tmp_path / "verses.txt"}"] }}
packing = {{ kind = "windows", length = 16 }}
[tokenizer]
kind = "new-tokenizer"
learn = "character"
[model]
kind = "gpt2"
n_layers = 2
n_heads = 2
d_model = 32
dropout = 0.1
[adapters]
kind = "lora"
train = ["embedding", "norm"]
[loop]
steps = 8
save_every = 4
precision = "float32"
[samples]
prompts = ["the old"]
every = 8
max_new_tokens = 5
"""
    )
    return path


def two_train(*arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    return started("-m", "clearhead", "train", *arguments, n=2, restarts=restarts)


def losses(run: Path) -> list[float]:
    return [
        line["loss"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in line
    ]


def taken(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def worker(agent: int, rank: int) -> int:
    """The process of this rank that torchrun has started."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == agent and f"\0RANK={rank}\0" in (folder / "environ").read_text():
                    return int(folder.name)
            except (OSError, ValueError):
                continue
    raise AssertionError(f"no process {rank} of {agent}")


def test_weights_that_are_divided_up_end_as_one_model(recipe: Path, tmp_path: Path) -> None:
    """fsdp, sharded checkpoints, adapters: RUN/model is whole and merged, as is what `export` makes of a checkpoint."""
    run = tmp_path / "run"
    with two_train(recipe, "processes=fsdp", "loop.checkpoints.kind=sharded", "--out", run) as process:
        said, told = process.communicate(timeout=300)
    assert process.returncode == 0, told[-9000:]
    assert said.splitlines()[-1] == str(run / "model") and "│ 'the old" in told and "perplexity" in told
    assert [len(list(folder.glob("shard-*"))) for folder in state.checkpoints(run)] == [2, 2]
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    one, other = (clearhead.load(folder) for folder in (run / "model", tmp_path / "out"))
    ours = dict(other.model.named_parameters())
    assert all(torch.equal(parameter, ours[name]) for name, parameter in one.model.named_parameters())
    assert one.generate("the old", max_new_tokens=5) in told


def test_a_run_that_was_started_again_goes_on(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the count of restarts, or, on a machine that counts none, by the name of the job."""
    told, folder = read_recipe(recipe, []), tmp_path / "run"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-1")
    for event in Run(told, folder).go():
        if event.step.step == 5:
            break
    assert Run(told, folder).done == 4
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-2")
    with pytest.raises(TrainingError, match="holds a run already"):
        Run(told, folder)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert Run(told, folder).done == 4
    before = contents(folder)
    for change in ("loop.steps=9", "loop.clip=0.5", "samples.every=0"):  # --resume may change these
        with pytest.raises(TrainingError, match=rf"another recipe \({change.split('=')[0]}\); go on with --resume"):
            Run(read_recipe(recipe, [change]), folder)
    assert contents(folder) == before
    assert Run(read_recipe(recipe, ["loop.steps=9"]), folder, resume=True).done == 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process to kill in /proc")
@pytest.mark.parametrize(("how", "kind"), [("ddp", "whole"), ("fsdp", "sharded")])
def test_a_killed_process_is_started_again_and_the_run_goes_on(
    recipe: Path, tmp_path: Path, how: str, kind: str
) -> None:
    """kill -9 in the middle: nobody lends a hand, and the curve is, bit for bit, that of a run that was left alone."""
    settings = [f"processes={how}", f"loop.checkpoints.kind={kind}", "loop.steps=120", "loop.save_every=10"]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    with two_train(recipe, *settings, "--out", calm) as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told[-9000:]
    with two_train(recipe, *settings, "--out", killed, restarts=1) as process:
        while taken(killed) < 25:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(worker(process.pid, 1), signal.SIGKILL)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told[-9000:]
    assert "going on from step-000000" in told
    assert losses(killed) == losses(calm) and len(losses(calm)) == 120
    ends = [clearhead.load(folder / "model").model for folder in (calm, killed)]
    assert all(torch.equal(a, b) for a, b in zip(ends[0].parameters(), ends[1].parameters(), strict=True))


@pytest.mark.slow
def test_a_new_bert_is_trained_by_two(recipe: Path, tmp_path: Path) -> None:
    """ddp waits for the gradient of every weight: a pooler that no head reads would end the run at its second step."""
    words = 'tokenizer={ kind = "new-tokenizer", learn = "wordpiece", vocab_size = 60 }'
    bert = [
        "model.kind=bert",
        "objective.kind=masked-language-model",
        words,
        "adapters.kind=full",
        "samples.prompts=[]",
    ]
    with two_train(recipe, *bert, "loop.steps=3", "--out", tmp_path / "run") as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told[-9000:]
    assert len(losses(tmp_path / "run")) == 3 and (tmp_path / "run" / "model" / "config.json").is_file()


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_after_one_step(recipe: Path, tmp_path: Path) -> None:
    """The terminal sends it to each of them, and torchrun once more."""
    run = tmp_path / "run"
    with two_train(recipe, "loop.steps=100000", "loop.checkpoints.kind=sharded", "--out", run) as process:
        while taken(run) < 20:
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert f"clearhead train --resume {run}" in told and told.count("stopping after this step") == 1
    newest = state.newest(run)
    assert newest is not None and newest.name == f"step-{len(losses(run)):08d}"
