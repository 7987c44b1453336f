"""From a recipe to batches: streams that are saved and gone on with, batches by tokens, what does not go together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearhead.api.building import built
from clearhead.api.feeding import batches
from clearhead.api.recipe import Recipe
from clearhead.api.training import Run, read_recipe
from clearhead.cli import main
from clearhead.errors import ClearheadError, ConfigError, TrainingError
from clearhead.train import state
from clearhead.train.data import cache as caches
from clearhead.train.data.order import ByLength
from clearhead.train.distributed import Processes
from clearhead.train.feed import Ahead, StreamFeed
from clearhead.train.recipe import filled, told, with_changes
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("as_a_user")

LINES = [
    f"the {old} {cat} sat on the {mat}" + " again" * n
    for n, old in enumerate(("old", "new", "red"))
    for cat in ("cat", "dog")
    for mat in ("mat", "hat", "rug")
]

BASE: dict[str, Any] = {
    "batch": 4,
    "parts": 2,
    "data": {"packing": {"kind": "blocks", "length": 16}},
    "tokenizer": {"kind": "new-tokenizer", "learn": "byte", "special": ["<eos>"]},
    "model": {"kind": "gpt2", "n_layers": 1, "n_heads": 2, "d_model": 16, "context": 64, "dropout": 0.1},
    "loop": {"steps": 7, "save_every": 3, "precision": "float32", "optimiser": {"kind": "adamw", "rate": 1e-2}},
    "evaluation": {"every": 7, "batches": 2},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))


def recipe(folder: Path, *changes: str) -> Recipe:
    (folder / "lines.txt").write_text("\n".join(LINES))
    (folder / "held.txt").write_text("\n".join(LINES[::5]))
    data = {**BASE["data"], "source": {"kind": "text-lines", "paths": [str(folder / "lines.txt")]}}
    return filled(Recipe, with_changes({**BASE, "data": data}, changes))


def held(folder: Path) -> str:
    return f'data.validation={{ kind = "text-lines", paths = ["{folder / "held.txt"}"] }}'


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("packing", ["blocks", "documents"])
def test_a_stream_is_gone_on_with_bit_for_bit(tmp_path: Path, packing: str) -> None:
    """N + M steps are N, a stop, M; with parts, over the data's end, and with rows that wait to be drawn."""
    changes = ["data.stream={ shuffle = 5 }", held(tmp_path), f"data.packing.kind={packing}", "loop.steps=13"]
    if packing == "documents":
        changes.append('data.packing={ kind = "documents" }')
        changes.remove("data.packing.kind=documents")
    straight, stopped, said = tmp_path / "straight", tmp_path / "stopped", []
    whole = Run(recipe(tmp_path, *changes), straight, say=said.append)
    list(whole.go())
    assert isinstance(whole.batches.feed, StreamFeed)
    assert any(line.startswith("a stream of rows to learn from, ") for line in said)
    assert 2 * len(LINES) < 13 * 4  # more than two epochs
    for event in Run(recipe(tmp_path, *changes), stopped).go():
        if event.step.step == 7:
            break  # two steps after the last checkpoint
    again = Run(read_recipe(stopped / "run.json", []), stopped, resume=True)
    assert again.done == 6
    list(again.go())
    assert losses(stopped) == losses(straight)
    ends = [state.load(path).model for path in (state.newest(straight), state.newest(stopped)) if path is not None]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert len(list((tmp_path / "cache").glob("*/ids.bin"))) == 1  # of the rows that are evaluated on


@pytest.mark.slow
def test_a_stream_over_two_processes_is_the_stream_of_one(tmp_path: Path) -> None:
    """Also where two stop and one goes on."""
    told_recipe = recipe(tmp_path, "data.stream=true", held(tmp_path), "model.dropout=0.0")
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"recipe": told(told_recipe)}))
    list(Run(told_recipe, tmp_path / "one").go())
    script = Path(__file__).with_name("together.py")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [*command, str(path), str(tmp_path / "two"), "4"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    list(Run(read_recipe(tmp_path / "two" / "run.json", []), tmp_path / "two", resume=True).go())
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_a_stream_of_other_data_is_not_gone_on_with(tmp_path: Path) -> None:
    changes = ["data.stream=true", held(tmp_path), "loop.steps=2"]
    list(Run(recipe(tmp_path, *changes), tmp_path / "run").go())
    with (tmp_path / "lines.txt").open("a") as file:
        file.write("\none more line")
    with pytest.raises(TrainingError, match="not the one that was saved: its files"):
        Run(read_recipe(tmp_path / "run" / "run.json", ["loop.steps=4"]), tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match=r"reads? a stream; go on with the same data\.stream"):
        Run(read_recipe(tmp_path / "run" / "run.json", ["data.stream=false"]), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["data.validation=none"], "data.stream needs data.validation: a stream has no last rows"),
        (['data.packing={ kind = "windows", length = 16 }'], "data.packing of kind 'windows' needs all of the data"),
        (['data.packing={ kind = "fitted", length = 16 }'], "choose 'blocks' or 'documents'"),
        (['data.packing={ kind = "documents" }', "data.by_length=true"], "data.by_length needs the lengths of all"),
        (['data.packing={ kind = "documents" }', "batch_tokens=99"], "batch_tokens needs the lengths of all rows"),
        (["data.held_out=0.3"], "data.held_out is a share of the data, and data.stream has no end"),
        (["data.stream={ shuffle = -1 }"], "data.stream.shuffle=-1 should be a number of rows"),
        (["data.stream={ shufle = 1 }"], "data.stream.shufle is no setting; did you mean 'shuffle'?"),
        (["data.stream=3"], "data.stream=3 should be true or false"),
        (['data.source={ kind = "dataset", name = "somebody/something" }'], "data.stream stores none of it; learn one"),
    ],
)
def test_what_a_stream_cannot_do_is_said_by_the_recipes_names(tmp_path: Path, changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Run(recipe(tmp_path, "data.stream=true", held(tmp_path), *changes), tmp_path / "run")
    assert said in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_stream_without_a_look_at_validation_rows(tmp_path: Path) -> None:
    run = Run(recipe(tmp_path, "data.stream=true", "evaluation.batches=0", "loop.steps=2"), tmp_path / "run")
    assert [event.validation for event in run.go()] == [None, None]


# ── batches by tokens ────────────────────────────────────────────────────────────────────────────────────────────────

TEXTS = ['data.packing={ kind = "documents" }']


def test_a_batch_of_tokens_is_the_same_for_any_number_of_processes_and_parts(tmp_path: Path) -> None:
    """And holds no more than it says, with its padding."""
    parts = built(recipe(tmp_path, *TEXTS))

    def feed(rank: int = 0, world: int = 1, n: int = 1) -> Ahead:
        told_recipe = recipe(tmp_path, *TEXTS, "batch_tokens=130", f"parts={n}")
        found = batches(told_recipe, parts, Processes("alone", rank, world), quiet=True).feed
        assert isinstance(found, Ahead)
        return found

    sizes = set()
    for step in range(5):
        (whole,) = feed().at(step)
        ids = whole.inputs["input_ids"]
        assert (ids.shape[1] + 1) * len(ids) <= 130
        sizes.add(len(ids))
        for world, n in ((1, 3), (2, 1), (3, 2)):
            shares = [feed(rank, world, n).at(step) for rank in range(world)]
            assert tuple(row for share in shares for batch in share for row in batch.rows) == whole.rows
            assert sum(batch.n_labels for share in shares for batch in share) == whole.n_labels
            assert len({len(share) for share in shares}) == 1
    assert len(sizes) > 1


def test_the_loss_of_batches_of_tokens_does_not_change_with_parts(tmp_path: Path) -> None:
    changes = [*TEXTS, "batch_tokens=130", "model.dropout=0.0"]
    for n in (1, 3):
        list(Run(recipe(tmp_path, *changes, f"parts={n}"), tmp_path / str(n)).go())
    assert losses(tmp_path / "1") == pytest.approx(losses(tmp_path / "3"), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_share_batches_of_tokens_of_a_row(tmp_path: Path, how: str) -> None:
    """A batch may have fewer rows than there are processes: nobody waits for ever, and the loss is the same."""
    changes = [*TEXTS, "batch_tokens=55", "model.dropout=0.0", "evaluation.batches=0"]
    list(Run(recipe(tmp_path, *changes), tmp_path / "one").go())
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"recipe": told(recipe(tmp_path, *changes, f"processes={how}"))}))
    script = Path(__file__).with_name("together.py")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [*command, str(path), str(tmp_path / "two"), "7"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["batch_tokens=100"], "batch_tokens is for rows that are documents"),
        (["data.by_length=true"], "data.by_length is for rows that are documents"),
        (
            [*TEXTS, "batch_tokens=20"],
            "tokens, more than batch_tokens = 20 hold; give more, or cut texts with data.enc",
        ),
        ([*TEXTS, "batch_tokens=0"], "batch_tokens=0 should be"),
        ([*TEXTS, "model.context=16"], "and the model reads 17; cut texts with data.encoder.longest = 17, or"),
        (['model={ kind = "recurrent" }'], "data.packing of kind 'blocks' keeps texts apart that share a row"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_is_trained(
    tmp_path: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(ClearheadError) as caught:
        Run(recipe(tmp_path, *changes), tmp_path / "run")
    assert said in str(caught.value)


def test_what_the_model_reads_may_be_as_long_as_it_says(tmp_path: Path) -> None:
    longest = max(map(len, LINES)) + 1  # with eos
    Run(recipe(tmp_path, *TEXTS, f"model.context={longest - 1}"), tmp_path / "documents")
    with pytest.raises(ConfigError, match=f"reads {longest - 1};"):
        Run(recipe(tmp_path, *TEXTS, f"model.context={longest - 2}"), tmp_path / "no")


def test_the_order_is_what_the_recipe_says(tmp_path: Path) -> None:
    parts = built(recipe(tmp_path, *TEXTS))
    for change in ("batch_tokens=130", "data.by_length=true"):
        feed = batches(recipe(tmp_path, *TEXTS, change), parts, Processes("alone"), quiet=True).feed
        assert isinstance(feed, Ahead) and isinstance(feed._feed._order, ByLength)
        lengths = [np.diff((batch.inputs["input_ids"] != 256).sum(1)) for step in range(4) for batch in feed.at(step)]
        assert all((each >= 0).all() for each in lengths)


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_process_of_a_machine_reads_the_cache_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others take what it has looked at; what they read is the same data, or they do not begin."""
    parts, told_recipe = built(recipe(tmp_path)), recipe(tmp_path)
    made = batches(told_recipe, parts, Processes("alone"), quiet=True)
    check, looked = caches._check, []

    def noted(file: Path, size: int, digest: str, verify: bool) -> None:
        looked.append(verify)
        check(file, size, digest, verify)

    monkeypatch.setattr(caches, "_check", noted)
    for rank, local, looks in ((0, "0", True), (1, "1", False), (2, "0", True), (3, "1", False)):
        monkeypatch.setenv("LOCAL_RANK", local)
        looked.clear()
        found = batches(told_recipe, parts, Processes("alone", rank, 4), quiet=True)
        assert looked and any(looked) == looks and found.fingerprint == made.fingerprint

    monkeypatch.setattr(Processes, "all_told", lambda self, value: [value, "another"])
    with pytest.raises(TrainingError, match="the processes read different data"):
        batches(told_recipe, parts, Processes("alone"), quiet=True)


# ── made ahead ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_makes_its_batches_ahead_and_leaves_no_thread(tmp_path: Path) -> None:
    def threads() -> int:
        return sum(each.name.startswith("batches") for each in threading.enumerate())

    run = Run(recipe(tmp_path), tmp_path / "run")
    assert isinstance(run.batches.feed, Ahead) and threads() == 0
    going = run.go()
    next(going)
    assert threads() == 1
    going.close()  # as when a for loop is left
    assert threads() == 0
    list(run.go())
    assert threads() == 0 and run.done == 7

    run = Run(recipe(tmp_path), tmp_path / "broken")
    run.trainer.optimisers.step = lambda factor: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        list(run.go())
    assert threads() == 0


def test_validation_rows_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    """The ids of both are looked at."""
    run = recipe(tmp_path, held(tmp_path))
    (tmp_path / "held.txt").write_text("é\n" * 50)
    parts = built(run)
    object.__setattr__(parts.model.config, "vocab_size", 150)  # é's bytes are 195 and 169
    with pytest.raises(TrainingError, match="tokenizer and model do not belong together"):
        batches(run, parts, Processes("alone"), quiet=True)


def test_main_says_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"recipe": told(recipe(tmp_path))}))
    code = main(["train", str(path), "data.stream=true", "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert code == 2 and "data.stream needs data.validation" in said.splitlines()[-1]
