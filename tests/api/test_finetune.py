"""Fine-tuning by a recipe that is written for you: from MiniLM on a small table, and what the recipe says of data."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tomllib
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest

import clearhead
from clearhead.api.finetune import recipe_for
from clearhead.api.recipe import Checkpoint, Recipe, Table
from clearhead.api.sources import Reading
from clearhead.api.training import Run, read_recipe
from clearhead.api.written import as_toml
from clearhead.cli import main
from clearhead.errors import ClearheadError, ConfigError, TrainingError
from clearhead.text import Tokenizer
from clearhead.train.adapters import LoRA
from clearhead.train.data.encoders import Labelled, Scored, Tagged
from clearhead.train.data.packing import Blocks
from clearhead.train.optimiser import AdamW, Muon
from clearhead.train.recipe import filled
from tests.api import small
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
    assert recipe.loop.steps == 5 and recipe.data.encoder == Labelled(
        labels=("bad", "good"), text="sentence", longest=512
    )
    found = clearhead.evaluate(run)
    assert found["accuracy"] == clearhead.evaluate(lm, _last(table, 4))["accuracy"]


def _last(table: Path, rows: int) -> Path:
    """The last rows of a table by themselves."""
    lines = table.read_text().splitlines(keepends=True)
    path = table.with_name("last.csv")
    path.write_text(lines[0] + "".join(lines[-rows:]))
    return path


def test_how_data_is_read_is_one_object_for_both(tmp_path: Path) -> None:
    """A whole one, single settings by name, and those over it; from the command line, too."""
    table = reviews(tmp_path, 16, header="")
    reading = Reading(columns=("words", "mood"), text="words", label="mood")
    one = recipe_for("minilm", table, reading).recipe
    assert one == recipe_for("minilm", table, columns=("words", "mood"), text="words", label="mood").recipe
    assert recipe_for("minilm", table, reading, changes=["batch=2"]).recipe.batch == 2
    lm = small.classifier()
    (tmp_path / "own.csv").write_text("it rains,bad\nit shines,good\n")
    found = clearhead.evaluate(lm, tmp_path / "own.csv", reading)
    assert (
        found.scores
        == clearhead.evaluate(lm, [{"text": "it rains", "label": "bad"}, {"text": "it shines", "label": "good"}]).scores
    )
    with pytest.raises(ClearheadError, match="textt is no setting of how data is read; did you mean 'text'"):
        clearhead.evaluate(lm, tmp_path / "own.csv", reading, textt="words")


def test_columns_of_any_name(tmp_path: Path) -> None:
    """What is named says what it is for; what is not read is said."""
    tagged = tmp_path / "tagged.jsonl"
    tagged.write_text('{"w": ["Ann", "left"], "t": ["B-PER", "O"], "id": 3}\n' * 6)
    written = recipe_for("minilm", tagged, tokens="w", tags="t")
    assert written.recipe.data.encoder == Tagged(labels=("O", "B-PER"), tokens="w", tags="t", longest=512)
    assert "columns that are not read: id" in written.notes
    table = reviews(tmp_path, 16, header="review,stars\n")
    (note,) = [note for note in recipe_for("alice", table).notes if "not read" in note]
    assert note == "columns that are not read: stars; is one of them to be learned? Name it with --label"
    assert recipe_for("alice", table, label="stars").recipe.data.encoder == Labelled(
        labels=("bad", "good"), text="review", label="stars", longest=128
    )


def test_a_model_of_another_kind_is_told_before_its_tokenizer(tmp_path: Path) -> None:
    """What it lacks for a task that it cannot have is no help."""
    lm = small.writer()
    lm.pretrained = replace(lm.pretrained, tokenizer=Tokenizer.train(["ab c"], kind="byte"))  # and no eos
    clearhead.export(lm, tmp_path / "model")
    for side in "ab":
        (tmp_path / side).write_text("ab c\n" * 20)
    written = recipe_for(tmp_path / "model", [tmp_path / "a", tmp_path / "b"], task="sequence-to-sequence")
    with pytest.raises(ClearheadError, match="is learned by a model of the kind encoder-decoder, and model"):
        Run(written.recipe, tmp_path / "run")


def test_both_commands_take_the_same_options() -> None:
    import typer

    from clearhead.cli.evaluate import evaluate
    from clearhead.cli.finetune import finetune

    names = {each.name for each in fields(Reading)} - {"changes"}
    taken = []
    for command in (evaluate, finetune):
        app = typer.Typer(add_completion=False)
        app.command()(command)
        options = {each.name: each for each in typer.main.get_command(app).params}
        assert names <= options.keys() and "reading" not in options
        taken.append({name: (options[name].opts, options[name].help) for name in names})  # type: ignore[attr-defined]
    assert taken[0] == taken[1]


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


def test_muon_is_as_gentle(tmp_path: Path) -> None:
    """AdamW's settings are no settings of Muon's, but for the others' AdamW."""
    table = reviews(tmp_path)
    for lora, rate, decay in ((False, 5e-5, 0.01), (True, 1e-3, 0.0)):
        adam = AdamW(rate=rate, betas=(0.9, 0.999), weight_decay=decay)
        written = recipe_for("minilm", table, lora=lora)
        assert written.recipe.loop.optimiser == adam
        for change in ("loop.optimiser.kind=muon", "loop.optimiser=muon"):
            written = recipe_for("minilm", table, lora=lora, changes=[change])
            assert written.recipe.loop.optimiser == Muon(rate=rate, weight_decay=decay, others=adam)
        assert filled(Recipe, tomllib.loads(written.toml())) == written.recipe
    both = ["loop.optimiser.kind=muon", "loop.optimiser.rate=1e-2", "loop.optimiser.others.rate=1e-4"]
    optimiser = recipe_for("minilm", table, changes=both).recipe.loop.optimiser
    assert isinstance(optimiser, Muon) and (optimiser.rate, optimiser.others.rate) == (1e-2, 1e-4)
    with pytest.raises(
        ConfigError, match=r"loop\.optimiser\.betas is a setting of 'adamw', and loop.optimiser.kind is"
    ):
        recipe_for("minilm", table, changes=[both[0], "loop.optimiser.betas=[0.9, 0.99]"])


@pytest.mark.parametrize("changes", [["batch=8"], ["batch_tokens=64"], ["batch=8", "data.by_length=false"]])
def test_an_epoch_sees_each_row_once(tmp_path: Path, changes: list[str]) -> None:
    table = reviews(tmp_path, 70)
    written = recipe_for("minilm", table, epochs=2, changes=[*changes, "loop.precision=float32"])
    run = Run(written.recipe, tmp_path / "run")
    seen: Counter[int] = Counter()
    for step in range(written.recipe.loop.steps):
        seen.update(row for batch in run.batches.feed.at(step) for row in batch.rows)
    learned = run.batches.n_rows
    assert learned == 63 and len(seen) == learned
    if "data.by_length=false" in changes:  # a batch may reach over an epoch's end
        assert abs(sum(seen.values()) - 2 * learned) <= 4
    else:
        assert set(seen.values()) == {2}
    alone = recipe_for("minilm", table, validation=table, epochs=1, changes=["batch_tokens=64"]).recipe
    assert 70 / (64 // 6) <= alone.loop.steps <= 70


def test_an_epoch_of_texts_is_as_long_as_the_rows_say(tmp_path: Path) -> None:
    """The rows are those of the packing that is asked for, and not of the usual one."""
    (tmp_path / "tale.txt").write_text("once upon a time " * 400)
    steps = {}
    for length in (32, 64):
        written = recipe_for("alice", tmp_path / "tale.txt", changes=["batch=4", f"data.packing.length={length}"])
        rows = Run(written.recipe, tmp_path / str(length)).batches.n_rows
        assert rows is not None and written.recipe.loop.steps == pytest.approx(3 * rows / 4, abs=1)
        steps[length] = written.recipe.loop.steps
    with pytest.raises(ConfigError, match="batch_tokens is for rows that are documents"):
        recipe_for("alice", tmp_path / "tale.txt", changes=["batch_tokens=64"])
    windows = 'data.packing={ kind = "windows", length = 32 }'
    assert recipe_for("alice", tmp_path / "tale.txt", changes=["batch=4", windows]).recipe.loop.steps == steps[32]


@pytest.mark.parametrize(
    ("content", "how", "said"),
    [
        ("text,label\na,b\nc,b\n", {}, "one value only, 'b'"),
        ("a,b\nc,d\n", {"task": "sequence-classification"}, "which column is the text"),
        ("a,b\nc,d\n", {}, "does not say what to learn"),
        ("text,label\na,b\nc,d\n", {"epochs": 0}, "epochs=0 should be above 0"),
        ("text,label\na,b\nc,d\n", {"epochs": float("nan")}, "epochs=nan should be above 0"),
        ("text,label\na,b\nc,d\n", {"task": "labels"}, "is no task"),
        ("text,label\na,b\nc,d\n", {"lable": "b"}, "lable is no setting of how data is read; did you mean 'label'?"),
        ("text,label\na,b\nc,d\n", {"changes": "batch=3"}, "changes='batch=3' should be a list"),
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


def test_a_row_that_cannot_be_used_is_told_with_its_place(tmp_path: Path) -> None:
    row = json.dumps({"translation": {"source": "3 March 2026", "target": "2026-03-03"}})
    for last in ({"x": 1}, {"translation": {"source": "4 March 2026"}}):
        (tmp_path / "dates.jsonl").write_text(f"{row}\n{json.dumps(last)}\n")
        with pytest.raises(TrainingError, match=r"dates\.jsonl, line 2: there is no "):
            recipe_for("dates", tmp_path / "dates.jsonl")


@pytest.mark.parametrize("pack", [gzip, bz2, lzma])
def test_packed_files_are_read_by_their_name_inside(tmp_path: Path, pack: ModuleType) -> None:
    ending = {gzip: "gz", bz2: "bz2", lzma: "xz"}[pack]
    path = tmp_path / f"a.csv.{ending}"
    path.write_bytes(pack.compress(b"text,label\na,b\nc,d\n" * 3))
    for data in (path, tmp_path):
        source = recipe_for("minilm", data).recipe.data.source
        assert isinstance(source, Table)


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
