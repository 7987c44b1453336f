"""clearhead train: refusals of one line, runs that are stopped and gone on with, and what is said on the way."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from clearhead.api import training
from clearhead.checkpoint import hub
from clearhead.cli.progress import spell
from clearhead.errors import UnknownModelError
from clearhead.train.loop import Trainer
from tests.api.verses import contents, laid_out
from tests.cli.conftest import Run
from tests.starting import finished

pytestmark = pytest.mark.usefixtures("as_a_user")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.chdir(folder)
    laid_out(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a recipe to begin, or --resume RUN to go on"),
        (["verses.toml", "--resume", "run"], "not both"),
        (["verses.toml", "--out", ""], "--out is empty; name the run's folder"),
        (["--resume", " "], "--resume is empty; name the run's folder"),
        (["--resume", "run", "--out", "other"], "leave --out out"),
        (["verses.toml", "--out", "verses.txt"], "verses.txt is a file, and a run needs a folder"),
        (["verse.toml"], "there is no recipe verse.toml; did you mean verses.toml?"),
        (["loop.steps=3"], "there is no recipe loop.steps=3"),
        (["--resume", "nosuch"], "there is no run nosuch; looked in "),
        (["--resume", "."], "has no run.json, so it is not what a run wrote"),
        (
            ["verses.toml", "model.kind=bert"],
            "objective.kind='causal-language-model' is not for model.kind='bert'; choose",
        ),
        (
            ["verses.toml", "loop.seed=99999999999999999999"],
            "loop.seed=99999999999999999999 should be 0 or more, and below",
        ),
        (
            ["verses.toml", "data.source.paths=lost.txt"],
            "data.source.paths: there is no file or folder lost.txt; paths be",
        ),
    ],
)
def test_refusals(run: Run, here: Path, arguments: list[str], said: str) -> None:
    before = contents(here.parent)
    told = run("train", *arguments)
    assert told.code == 2 and told.out == "" and told.err.count("\n") == 1
    assert said in told.err, told.err
    assert contents(here.parent) == before


def test_the_other_processes_of_a_machine_refuse_in_silence(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    for arguments in (["verses.toml", "loop.steps=0"], ["--resume", "nosuch"], ["verses.toml", "model.context=4"]):
        told = run("train", *arguments)
        assert (told.code, told.out, told.err) == (2, "", "")


def signalled(monkeypatch: pytest.MonkeyPatch, *at: int) -> None:
    """Have Ctrl-C pressed in these steps, as often as each is named."""
    step = Trainer.step

    def interrupted(self: Trainer) -> object:
        for _ in range(at.count(self.done)):
            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)


def test_ctrl_c_and_the_hint_remembers_what_was_changed(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("train", "verses.toml", "--out", "run")
    assert first.code == 0 and first.out.endswith("/run/model\n")
    assert "tokenised" in first.err and "trained to step 4 in 0:0" in first.err and "step 4/4" in first.err

    finished = run("train", "--resume", "run")
    assert finished.code == 0 and finished.out == first.out
    assert "run is finished: all of its 4 steps are taken" in finished.err
    assert "clearhead train --resume run loop.steps=8" in finished.err

    with monkeypatch.context() as patch:
        signalled(patch, 5)
        stopped = run("train", "--resume", "run", "loop.steps=8")
    assert stopped.code == 130 and "from here on loop.steps = 8; it was 4" in stopped.err
    assert stopped.err.endswith(
        "stopped after step 6 and saved run/step-00000006; go on with:\n  clearhead train --resume run\n"
    )
    gone_on = run("train", "--resume", "run")
    assert gone_on.code == 0 and "step 8/8" in gone_on.err and "going on from step-00000006" in gone_on.err
    assert json.loads((here / "run" / "run.json").read_text())["changes"] == [{"after": 4, "loop.steps": [4, 8]}]
    steps = [json.loads(line)["step"] for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(8))

    again = run("train", "verses.toml", "--out", "run")
    assert again.code == 2 and "run holds a run already; go on with --resume run, or name another" in again.err
    refused = run("train", "--resume", "run", "loop.steps=9", "model.d_model=32")
    assert refused.code == 2 and "model.d_model=32 cannot be gone on with" in refused.err
    model = run("generate", "the old", "--model", "run")
    assert model.code == 2 and "run is the folder of a training run; its model is run/model." in model.err


def test_ctrl_c_twice_and_before_the_first_step(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        signalled(patch, 1, 1)
        told = run("train", "verses.toml", "--out", "run")
    assert told.code == 130 and "Traceback" not in told.err and not list((here / "run").glob("step-*"))

    def pressed(*_: object) -> object:
        raise KeyboardInterrupt

    before = contents(here)
    with monkeypatch.context() as patch:
        patch.setattr(training, "built", pressed)
        told = run("train", "verses.toml", "--out", "other")
    assert told.code == 130 and "stopped before the first step; other is as it was" in told.err
    assert contents(here) == before
    begun = run("train", "--resume", "run")
    assert begun.code == 0 and "run was stopped before its first checkpoint; it begins again at step 0" in begun.err


def test_what_takes_long_is_said_first_and_nothing_is_measured_where_nothing_is_held_out(run: Run, here: Path) -> None:
    changes = ["tokenizer.learn=byte-bpe", "tokenizer.vocab_size=270", "evaluation.batches=0", "loop.steps=1"]
    told = run("train", "verses.toml", *changes)
    assert told.code == 0 and told.out.endswith("/runs/verses/model\n")
    assert told.err.startswith("learning a byte-bpe tokenizer of 270 tokens from the data\nlearned 270 tokens in ")
    assert "measuring" not in told.err


def test_a_recipes_own_keys_are_left_as_they_are(run: Run, here: Path) -> None:
    """`vocab_size` is an option of another command."""
    told = run("train", "verses.toml", "tokenizer.learn=byte-bpe", "tokenizer.vocab_size=0")
    assert told.code == 2 and "tokenizer.vocab_size=0 lies outside" in told.err


def test_a_name_that_is_nearly_a_models(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str, *_: object, **__: object) -> Path:
        raise UnknownModelError(f"{name!r} is nowhere.")

    monkeypatch.setattr(hub, "download", nowhere)
    told = run("generate", "text", "--model", "Mini-LM")
    assert told.code == 2 and "'Mini-LM': did you mean 'minilm'? 'Mini-LM' is nowhere." in told.err
    assert "did you mean" not in run("generate", "text", "--model", "someone/something").err


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0:00"), (42, "0:42"), (725, "12:05"), (11220, "3:07:00"), (184020, "2 d 3:07:00")]
)
def test_times_are_spelt_as_clocks_do(seconds: float, said: str) -> None:
    assert spell(seconds) == said


@pytest.mark.slow
def test_of_two_processes_one_speaks(here: Path) -> None:
    told = finished("-m", "clearhead", "train", "verses.toml", "--out", "run", n=2, cwd=here)
    assert told.returncode == 0 and told.stdout.endswith("/run/model\n") and told.stdout.count("\n") == 1, told.stderr[
        -2000:
    ]
    ours = [line for line in told.stderr.splitlines() if "parameters;" in line or "trained to step 4" in line]
    assert len(ours) == 2, told.stderr
    refused = finished("-m", "clearhead", "train", "verses.toml", "model.d_model=0", n=2, cwd=here)
    assert refused.returncode and refused.stderr.count("clearhead: model.d_model=0 lies outside") == 1
