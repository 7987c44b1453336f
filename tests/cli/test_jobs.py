"""generate, fill, classify and embed: what each prints, as words and as JSON, and how each refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clearhead
from tests.api import small
from tests.cli.conftest import Run

Refuse = Callable[..., str]

MODELS = {
    "writer": small.writer,
    "translator": lambda: small.writer(translates=True),
    "masked": small.masked,
    "classifier": small.classifier,
    "tagger": small.tagger,
    "embedder": small.embedder,
    "base": lambda: small.encoder(None),
}


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearhead, "load", lambda name, **_: MODELS[name](), raising=False)


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_prompt_comes_before_what_a_decoder_adds(run: Run) -> None:
    lm, more = small.writer(), ("--max-new-tokens", 8, "-m", "writer")
    added = lm.generate("The animal", max_new_tokens=8)
    assert run("generate", "The animal", *more).out == f"The animal{added}\n"
    beams = lm.generate(["The animal", "too"], max_new_tokens=8, num_beams=4, no_repeat_ngram_size=2)
    said = run("generate", "The animal", "too", *more, "--num-beams", 4, "--no-repeat-ngram-size", 2)
    assert said.out == f"The animal{beams[0]}\ntoo{beams[1]}\n"
    said = run("generate", "The animal", "too", *more, "--num-beams", 4, "--no-repeat-ngram-size", 2, "--json")
    assert lines(said.out) == [
        {"prompt": prompt, "text": text} for prompt, text in zip(["The animal", "too"], beams, strict=True)
    ]


def test_a_translation_stands_alone(run: Run) -> None:
    expected = small.writer(translates=True).generate(
        "The animal", max_new_tokens=8, source_language="fr", target_language="fr"
    )
    to = ("--source-language", "fr", "--target-language", "fr")
    said = run("generate", "The animal", "-m", "translator", "--max-new-tokens", 8, *to)
    assert said.out == expected + "\n" != run("generate", "The animal", "-m", "translator", *to[2:]).out


def test_candidates_are_listed(run: Run) -> None:
    text = "The [MASK] was too tired."
    best = small.masked().fill(text, top_k=3)
    said = run("fill", text, "[MASK]", "-m", "masked", "-n", 3)
    assert said.code == 0 and all(f"{one.probability:.4f}" in said.out for one in best) and best[0].token in said.out
    [one, other] = lines(run("fill", text, "[MASK]", "-m", "masked", "-n", 3, "--json").out)
    assert one["text"] == text and [c["id"] for c in one["candidates"]] == [c.id for c in best]
    assert set(one["candidates"][0]) == {"mask", "token", "id", "probability", "text"}
    assert len(other["candidates"]) == 3


def test_labels_are_listed(run: Run) -> None:
    said = run("classify", "every step counts", "-m", "classifier")
    assert all(label in said.out for label in ("good", "bad", "so so"))
    [one] = lines(run("classify", "every step", "--pair", "counts", "-m", "classifier", "--json").out)
    want = small.classifier().classify("every step", "counts")
    assert [(x["label"], x["probability"]) for x in one["labels"]] == [(x.label, x.probability) for x in want]
    [joined] = lines(run("classify", "The animal didn't cross", "-m", "tagger", "--json").out)
    [single] = lines(run("classify", "The animal didn't cross", "-m", "tagger", "--json", "--by-token").out)
    assert joined["labels"] and len(joined["labels"]) < len(single["labels"])
    assert set(single["labels"][0]) == {"label", "probability", "text", "start", "end", "tokens"}


def test_vectors_are_lines_or_a_file(run: Run, tmp_path: Path) -> None:
    want = small.embedder().embed(["one", "two"]).numpy()
    said = lines(run("embed", "one", "two", "-m", "embedder").out)
    assert [one["text"] for one in said] == ["one", "two"]
    np.testing.assert_allclose([one["embedding"] for one in said], want, rtol=1e-6)
    file = tmp_path / "vectors.npy"
    assert "2 vectors of 32 numbers" in run("embed", "one", "two", "-m", "embedder", "--output", file).out
    np.testing.assert_array_equal(np.load(file), want)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npy"]
    pooled = lines(run("embed", "one", "-m", "base", "--pooling", "last", "--normalise").out)[0]["embedding"]
    np.testing.assert_allclose(pooled, small.encoder(None).embed("one", pooling="last", normalise=True)[0], rtol=1e-6)


@pytest.mark.parametrize("command", [["generate", "a"], ["fill", "[MASK]"], ["classify", "a"], ["embed", "a"]])
def test_another_head_is_loaded_and_what_came_of_it_said(
    command: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(name: str, *, head: str | None, pickle: bool) -> clearhead.Loaded:
        asked.append((name, head, pickle))
        lm = {"generate": small.writer, "fill": small.masked, "classify": small.classifier, "embed": small.embedder}
        made = lm[command[0]]()
        made.pretrained.report = replace(made.pretrained.report, notes=("the file lacks head.bias: drawn anew",))
        return made

    monkeypatch.setattr(clearhead, "load", load)
    said = run(*command, "-m", "x", "--head", "BertForMaskedLM", "--pickle")
    assert said.code == 0 and said.err == "note: the file lacks head.bias: drawn anew\n"
    assert run(*command, "-m", "x").err == "" and asked == [("x", "BertForMaskedLM", True), ("x", None, False)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "a", "-m", "writer", "--top-p", "1.5", "--temperature", "1"], "--top-p 1.5 is no probability"),
        (["generate", "a", "-m", "writer", "--temperature", "1e-9"], "--temperature 1e-09 is too small"),
        (
            ["generate", "a", "-m", "writer", "--length-penalty", "99", "--num-beams", "2"],
            "--length-penalty 99.0 is too",
        ),
        (["generate", "a", "-m", "writer", "--seed", "-1"], "--seed -1 lies outside"),
        (["generate", "a", "-m", "writer", "--num-beams", "0"], "--num-beams"),
        (
            ["generate", "a", "-m", "writer", "--num-beams", "2", "--temperature", "1"],
            "beam search takes the likeliest",
        ),
        (["generate", "a", "", "-m", "writer"], "the prompt is empty"),
        (["generate", "a", "-m", "writer", "--max-new-tokens", "900"], "do not fit"),
        (["generate", "a", "-m", "writer", "--target-language", "xx"], "leave the languages out"),
        (["generate", "a", "-m", "translator", "--source-language", "xx"], "no language 'xx'; it has de, fr"),
        (["generate", "-m", "writer"], "PROMPT"),
        (["fill", "no gap", "-m", "masked"], "the text has no [MASK]"),
        (["fill", "[MASK]", "none", "-m", "masked"], "the text has no [MASK]"),
        (["fill", "[MASK]", "-m", "writer"], "fills no gaps"),
        (["fill", "[MASK]"], "--model"),
        (["classify", "a", "-m", "masked"], "gives no labels"),
        (["classify", "a", "--pair", "b", "-m", "tagger"], "leave the second one out"),
        (["embed", "a", "-m", "base"], "choose a pooling (first, last, mean, max)"),
        (["embed", "a", "-m", "base", "--pooling", "middle"], "--pooling"),
        (["embed", "a", "-m", "embedder", "--output", "vectors.txt"], "is no .npy file"),
        (["embed", "a", "-m", "embedder", "--output", "missing/vectors.npy"], "there is no folder 'missing'"),
    ],
)
def test_a_mistake_is_one_line_in_the_command_lines_own_words(refuse: Refuse, arguments: list[str], says: str) -> None:
    assert says in refuse(*arguments)
