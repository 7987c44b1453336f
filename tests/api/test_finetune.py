"""Fine-tuning by a recipe that is written for you: from MiniLM on a small table, and what the recipe says of data."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import clearhead
from clearhead.api.finetune import recipe_for
from clearhead.api.recipe import Checkpoint, Recipe
from clearhead.api.training import read_recipe
from clearhead.api.written import as_toml
from clearhead.cli import main
from clearhead.errors import ClearheadError
from clearhead.train.adapters import LoRA
from clearhead.train.data.encoders import Labelled, Scored, Tagged
from clearhead.train.data.packing import Blocks
from clearhead.train.recipe import filled
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("as_a_user")

GOOD, BAD = ("a joy", "so warm and bright", "great fun", "lovely"), ("dull", "a cold mess", "no fun", "so sad and grey")
TINY = ["loop.precision=float32", "batch=8", "loop.save_every=100"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))


def reviews(folder: Path, rows: int = 40, *, header: str = "sentence,label\n") -> Path:
    lines = [f"{(GOOD, BAD)[n % 2][n // 2 % 4]} {n},{('good', 'bad')[n % 2]}\n" for n in range(rows)]
    (folder / "reviews.csv").write_text(header + "".join(lines))
    return folder / "reviews.csv"


def test_from_minilm_on_a_small_table(tmp_path: Path) -> None:
    said: list[str] = []
    table = reviews(tmp_path)
    run = tmp_path / "run"
    lm = clearhead.finetune("minilm", table, run, epochs=1, changes=TINY, say=said.append)
    assert lm.config.head is not None and lm.classify("great fun")[0].label in ("good", "bad")
    assert any("2 labels in 40 rows: bad 20, good 20" in line for line in said)
    recipe = read_recipe(run / "recipe.toml", [])
    assert recipe == read_recipe(run / "run.json", [])
    assert recipe.loop.steps == 4 and recipe.data.encoder == Labelled(
        labels=("bad", "good"), text="sentence", longest=512
    )
    found = clearhead.evaluate(run)
    assert found["accuracy"] == clearhead.evaluate(lm, table.with_name("held.csv").parent / _last(table, 4))["accuracy"]


def _last(table: Path, rows: int) -> Path:
    """The last rows of a table by themselves."""
    lines = table.read_text().splitlines(keepends=True)
    path = table.with_name("last.csv")
    path.write_text(lines[0] + "".join(lines[-rows:]))
    return path


def test_lora_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, run = reviews(tmp_path, 16), tmp_path / "run"
    words = ["finetune", "minilm", str(table), *TINY, "--lora", "--epochs", "1", "--out", str(run)]
    assert main([*words, "--dry-run"]) == 0
    recipe = capsys.readouterr().out
    assert not run.exists() and filled(Recipe, tomllib.loads(recipe)).adapters == LoRA(
        targets=("q_proj", "k_proj", "v_proj", "o_proj", "up", "down")
    )
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(run / "model") and "accuracy" in said.err and "training" in said.err
    assert (run / "recipe.toml").read_text().endswith(recipe)
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["name"] == "accuracy"
    assert main(words) == 2 and "holds a run already" in capsys.readouterr().err


def test_what_to_learn_follows_from_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ann B-PER\nleft O\n\nOslo B-LOC\nis O\n\n" * 4)
    tagged = recipe_for("minilm", tmp_path / "a.conll")
    assert tagged.recipe.data.encoder == Tagged(labels=("O", "B-LOC", "B-PER"), longest=512)
    (tmp_path / "scores.jsonl").write_text(
        "".join(json.dumps({"text": f"text {n}", "label": f"{n / 7:.3f}"}) + "\n" for n in range(40))
    )
    scored = recipe_for("minilm", tmp_path / "scores.jsonl")
    assert scored.recipe.data.encoder == Scored(score="label", longest=512)
    (tmp_path / "tale.txt").write_text("once upon a time " * 200)
    tale = recipe_for("alice", tmp_path / "tale.txt", epochs=1, lora=True)
    assert isinstance(tale.recipe.data.packing, Blocks) and "has that head" in tale.notes[0]
    assert isinstance(tale.recipe.model, Checkpoint) and isinstance(tale.recipe.adapters, LoRA)
    assert tale.recipe.adapters.train == ()
    sorted_table = tmp_path / "sorted.csv"
    sorted_table.write_text("text,label\n" + "".join(f"a {n},{'one' if n < 30 else 'two'}\n" for n in range(40)))
    notes = recipe_for("minilm", sorted_table, changes=["batch=4"]).notes
    assert any("shuffle the file, or give --validation" in note for note in notes)
    assert len(recipe_for("minilm", sorted_table, validation=sorted_table).notes) == 2


@pytest.mark.parametrize(
    ("content", "how", "said"),
    [
        ("text,label\na,b\nc,b\n", {}, "one value only, 'b'"),
        ("a,b\nc,d\n", {"task": "sequence-classification"}, "which column is the text"),
        ("a,b\nc,d\n", {}, "does not say what to learn"),
        ("text,label\na,b\nc,d\n", {"epochs": 0}, "epochs=0 should be above 0"),
        ("text,label\na,b\nc,d\n", {"task": "labels"}, "is no task"),
        ("text,label\na,b\nc,d\n", {"changes": ["loop.stepps=3"]}, "did you mean 'steps'"),
        ("text,label\na,b\nc,d\n", {"task": "sequence-to-sequence"}, "which column is the source"),
        ("text,label\n" + "".join(f"a,b{n}\n" for n in range(1001)), {}, "more than 1,000 different values"),
    ],
)
def test_what_cannot_be_learned(tmp_path: Path, content: str, how: dict[str, object], said: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ClearheadError) as error:
        recipe_for("minilm", tmp_path / "a.csv", **how)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_refusals_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["minilm", "loop.steps=3"], ["minilm", str(tmp_path / "no.csv")], ["no-such-model", str(tmp_path)]):
        assert main(["finetune", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_is_written_as_it_was_read(path: Path) -> None:
    recipe = read_recipe(path, [])
    written = as_toml(recipe, "A comment\nof two lines")
    assert written.startswith("# A comment\n# of two lines\n")
    assert filled(Recipe, tomllib.loads(written)) == recipe
    assert "none" not in written and len(written) < 1500
