"""A run from its recipe to a model that transformers loads; stopped in the middle, and gone on with."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import clearhead
from clearhead.api import training
from clearhead.api.recipe import Recipe
from clearhead.api.training import Run, read_recipe
from clearhead.cli import main
from clearhead.errors import ClearheadError, TrainingError
from clearhead.train import state
from clearhead.train.journal import Journal
from clearhead.train.loop import Trainer
from clearhead.train.precision import Chosen, Peak
from clearhead.train.recipe import filled, with_changes
from tests.api.verses import VERSES, laid_out
from tests.starting import started

pytestmark = pytest.mark.usefixtures("as_a_user")

DECODER: dict[str, Any] = {
    "batch": 8,
    "data": {"packing": {"kind": "windows", "length": 16}},
    "tokenizer": {"kind": "new-tokenizer", "learn": "character"},
    "model": {"kind": "gpt2", "n_layers": 2, "n_heads": 2, "d_model": 32, "dropout": 0.1},
    "loop": {"steps": 8, "save_every": 4, "precision": "float32", "optimiser": {"kind": "adamw", "rate": 1e-2}},
    "evaluation": {"every": 4, "batches": 2},
    "samples": {"prompts": ["the old"], "every": 8, "max_new_tokens": 5},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))


def recipe(tmp_path: Path, *changes: str, base: dict[str, Any] = DECODER, text: str = VERSES * 8) -> Recipe:
    (tmp_path / "verses.txt").write_text(text)
    source = {"kind": "text-files", "paths": [str(tmp_path / "verses.txt")]}
    tables = {**base, "data": {"source": source, **base["data"]}}
    return filled(Recipe, with_changes(tables, changes))


def test_a_run_becomes_a_folder_that_transformers_reads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said: list[str] = []
    run = Run(recipe(tmp_path, "loop.steps=30"), tmp_path / "run", say=said.append)
    events = list(run.go())
    folder = run.finish()
    assert folder is not None and len(events) == 30
    assert events[-1].validation is not None and events[-1].validation < 0.8 * events[0].step.loss
    assert events[-1].samples[0].startswith("the old") and events[-1].saved is not None
    assert any("float32: as asked" in line for line in said) and any("100.00%" in line for line in said)
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["recipe"]["loop"]["steps"] == 30 and told["versions"]["torch"] == torch.__version__

    lm = clearhead.load(folder)
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([lm.tokenizer.encode("the new dog").ids])
    assert tokenizer("the new dog", return_tensors="pt")["input_ids"].tolist() == ids.tolist()
    written = theirs.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert tokenizer.decode(written[0, ids.shape[1] :]) == lm.generate("the new dog", max_new_tokens=5)


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in journal(folder)]


def going_on(folder: Path, *changes: str, say: Callable[[str], None] = lambda _: None) -> Run:
    return Run(read_recipe(folder / "run.json", list(changes)), folder, resume=True, say=say)


def test_a_run_that_is_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    list(Run(recipe(tmp_path), straight).go())
    for event in Run(recipe(tmp_path), stopped).go():
        if event.step.step == 5:
            break  # two steps after the last checkpoint
    again = Run(read_recipe(stopped / "run.json", []), stopped, resume=True)
    assert again.done == 4
    list(again.go())
    assert losses(stopped) == losses(straight)
    ends = [state.load(path).model for path in (state.newest(straight), state.newest(stopped)) if path is not None]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_checkpoint_that_is_not_written_takes_its_line_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is written, and synced, first; who goes on from the checkpoint before does not find it."""
    folder, did = tmp_path / "run", []

    def noted(kind: type, name: str, says: str) -> None:
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *words, **more: (did.append(says), real(self, *words, **more))[1])

    noted(Journal, "write", "line")
    noted(Journal, "sync", "sync")
    noted(Trainer, "save", "save")
    list(Run(recipe(tmp_path, "loop.steps=4"), folder).go())
    assert did == ["line"] * 4 + ["sync", "save"]
    before = journal(folder)
    with monkeypatch.context() as patch, pytest.raises(TrainingError, match="disk is full"):
        patch.setattr(state, "save", full)
        list(going_on(folder, "loop.steps=8").go())
    assert [line["step"] for line in journal(folder)] == list(range(8))
    list(going_on(folder, "loop.steps=8").go())
    assert [line["step"] for line in journal(folder)] == list(range(8)) and journal(folder)[:4] == before
    seconds = [line["seconds"] for line in journal(folder)]
    assert seconds == sorted(seconds) and seconds[3] > 0


def full(*_: object, **__: object) -> None:
    raise TrainingError("the disk is full")


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    list(Run(recipe(tmp_path, "loop.steps=4", "loop.keep=1"), folder).go())
    too_fast = ["loop.optimiser.rate=1e30", "loop.steps=60", "loop.save_every=2", "evaluation.every=2"]
    with pytest.raises(TrainingError, match=r"in the 19 steps before: the run has diverged\. Go on from its last"):
        list(going_on(folder, *too_fast).go())
    assert [path.name for path in state.checkpoints(folder)] == ["step-00000004"]
    assert not (folder / "model").exists() and "NaN" not in (folder / "metrics.jsonl").read_text()
    assert [line["loss"] for line in journal(folder)][-1] is None
    last = list(going_on(folder, "loop.optimiser.rate=1e-3", "loop.steps=8").go())[-1]
    assert last.saved == folder / "step-00000008" and last.validation is not None and last.validation < 10


def test_what_was_held_out_has_a_loss_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing that the last update made is kept."""
    folder = tmp_path / "run"
    run = Run(recipe(tmp_path), folder)
    monkeypatch.setattr(Run, "evaluate", lambda self: 2.0 if self.done < 8 else math.nan)
    with pytest.raises(TrainingError, match=r"the loss of what was held out is nan after step 7: the run has diverged"):
        list(run.go())
    assert [path.name for path in state.checkpoints(folder)] == ["step-00000004"]


def test_a_checkpoint_waits_for_a_sound_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "sound", property(lambda self: self.done not in (4, 5)))
    saved = [event.step.step for event in Run(recipe(tmp_path), tmp_path / "run").go() if event.saved is not None]
    assert saved == [5, 7]


def test_weights_that_are_no_numbers_do_not_leave_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    run = Run(recipe(tmp_path), folder)
    list(run.go())
    good = state.load(folder / "step-00000008")
    next(run.built.model.parameters()).data[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"model is not written, for its .*weight is not all numbers"):
        run.finish()
    assert not (folder / "model").exists()
    bad = {**good.model, "decoder.norm.weight": torch.full((32,), math.inf)}
    state.save(folder, replace(good, model=bad))
    capsys.readouterr()
    assert main(["export", str(folder), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "step-00000008 is not exported, for its decoder.norm.weight is not all" in said
    assert not (tmp_path / "out").exists()


def test_the_precision_is_that_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was quicker is measured once: elsewhere, or at another time, it might come out otherwise."""
    monkeypatch.setattr(training, "peak_of", lambda *_: Peak(1e12, "a test"))
    quicker = {"auto": Chosen(torch.bfloat16, "is quicker"), "float32": Chosen(torch.float32, "as asked")}
    monkeypatch.setattr(training, "choose", lambda asked, _: quicker[asked])
    folder, said = tmp_path / "run", []
    list(Run(recipe(tmp_path, "loop.precision=auto", "loop.steps=2"), folder).go())
    quicker["auto"] = Chosen(torch.float32, "is quicker now")
    assert going_on(folder, "loop.steps=4", say=said.append).trainer.precision.name == "bfloat16"
    assert any("in bfloat16: as the run began" in line for line in said)
    assert going_on(folder, "loop.steps=4", "loop.precision=float32").trainer.precision.why == "as asked"
    told = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**told, "device": "xpu:0"}))
    assert going_on(folder, "loop.steps=4").trainer.precision.why == "is quicker now"


def test_a_run_of_sharded_checkpoints_is_evaluated_as_any_other(tmp_path: Path) -> None:
    found = []
    for kind in ("whole", "sharded"):
        list(Run(recipe(tmp_path, f"loop.checkpoints.kind={kind}"), tmp_path / kind).go())
        found.append(clearhead.evaluate(tmp_path / kind))
    assert found[0].scores == found[1].scores and "after 8 of 8 steps" in found[1].read


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    list(Run(recipe(tmp_path), tmp_path / "run").go())
    with pytest.raises(TrainingError, match="holds a run already; go on with --resume"):
        Run(recipe(tmp_path), tmp_path / "run")


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    long = "loop.steps=100000", "loop.save_every=100000"
    with started("-m", "clearhead", "train", laid_out(tmp_path), *long, "--out", run, cwd=tmp_path) as process:
        assert process.stderr is not None
        while not ((run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text()) > 500):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130 and f"clearhead train --resume {run}" in said and "Traceback" not in said
    newest = state.newest(run)
    assert newest is not None
    done = state.load(newest).step
    assert main(["train", "--resume", str(run), f"loop.steps={done + 2}"]) == 0
    assert len(losses(run)) == done + 2 and (run / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["modle.d_model=3"], "modle is no setting; did you mean 'model'?"),
        (["model.d_model=33"], "d_model=33 does not divide"),
        (["data.packing.length=100000"], "too few for a window"),
        (["data.source.paths=['nowhere.txt']"], "nowhere.txt"),
        (["objective.kind=masked-language-model"], "mask"),
        (["objective.kind=sequence-classification"], "has no labels for this objective"),
        (["data.held_out=0.999"], "too few to hold"),
        (["data.by_length=true"], "by_length is for rows that are documents"),
        (["processes=ddp"], "torchrun"),
        (["batch=0"], "should be 1 or more"),
    ],
)
def test_a_recipe_that_cannot_be_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = laid_out(tmp_path)
    assert main(["train", str(path), *changes, "loop.steps=2", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert said in told.splitlines()[-1] and "Traceback" not in told
    assert not state.checkpoints(tmp_path / "run")


def test_what_to_train_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train"]) == 2 and "give a recipe" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path)]) == 2 and "not what a run wrote" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "no.toml")]) == 2 and "no recipe" in capsys.readouterr().err


def test_a_rate_that_diverges_is_reported(tmp_path: Path) -> None:
    run = Run(recipe(tmp_path, "loop.optimiser.rate=1e30", "loop.on_spike=stop", "loop.clip=none"), tmp_path / "run")
    with pytest.raises(ClearheadError, match=r"step \d+ \(rows .*(loss|norm) is"):
        list(run.go())
