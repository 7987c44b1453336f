"""clearhead tokenizer: learned from files and read by transformers; what one makes of a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clearhead.text import Tokenizer
from tests.cli.conftest import Run
from tests.text.corpus import LINES


@pytest.mark.parametrize("kind", ["byte-bpe", "bpe", "unigram", "wordpiece", "character", "byte"])
def test_each_kind_is_learned_and_written(tmp_path: Path, run: Run, kind: str) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "text.txt").write_text("".join(LINES))
    size = [] if kind in ("character", "byte") else ["--vocab-size", 330]
    out = tmp_path / "tokenizer"
    said = run("tokenizer", "train", tmp_path / "text.txt", "--kind", kind, *size, "--out", out)
    assert said.code == 0 and said.out == f"{out}\n" and f"({kind}) from 1 text" in said.err
    ours, theirs = Tokenizer.load(out), AutoTokenizer.from_pretrained(out)
    assert theirs("every effort")["input_ids"] == ours.encode("every effort").ids
    expected = Tokenizer.train(["".join(LINES)], kind=kind, vocab_size=size[1] if size else None)  # type: ignore[arg-type]
    assert ours.backend.get_vocab() == expected.backend.get_vocab()


def test_from_a_column(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.csv").write_text("body,label\nthe cat,0\nthe dog,1\n")
    words = ("tokenizer", "train", tmp_path / "a.csv", "--kind", "character", "--special", "<pad>,<eos>")
    said = run(*words, "--text", "body", "--out", tmp_path / "one")
    assert "note: learning from 'body'" in said.err and "from 2 texts" in said.err
    found = Tokenizer.load(tmp_path / "one")
    assert (found.pad_id, found.eos_id) == (0, 1) or found.token_to_id("<pad>") is not None
    assert found.token_to_id("0") is None
    assert run(*words, "--out", tmp_path / "two").code == 0 and Tokenizer.load(tmp_path / "two").token_to_id("0")


def test_show(tmp_path: Path, run: Run) -> None:
    Tokenizer.train(["the cat sat"], kind="character").save(tmp_path)
    said = run("tokenizer", "show", tmp_path, "the cät")
    lines = said.out.splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["t", "h", "e", "␣"]
    assert "unknown: 'ä'" in lines[6] and "7 tokens of" in lines[8] and "8 bytes" in lines[8]
    assert "1 token unknown" in lines[9] and "read back" in lines[10]
    said = run("tokenizer", "show", tmp_path, "cat", "ä", "--json")
    first, second = map(json.loads, said.out.splitlines())
    assert [one["bytes"] for one in first["tokens"]] == ["63", "61", "74"] and first["decoded"] == "cat"
    assert second["tokens"][0]["unknown"] is True


def test_show_of_a_model(run: Run) -> None:
    said = run("tokenizer", "show", "minilm", "unbelievable")
    assert "[CLS]" in said.out and "special" in said.out
    assert "[CLS]" not in run("tokenizer", "show", "minilm", "unbelievable", "--bare").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tokenizer", "trian"], "did you mean 'train'"),
        (["tokenizer", "train", "no.txt", "--vocab-size", 300, "--out", "o"], "no file or folder no.txt"),
        (["tokenizer", "train", "../a.txt", "--kind", "byte-bep", "--out", "o"], "did you mean 'byte-bpe'"),
        (["tokenizer", "train", "../a.txt", "--out", "o"], "give --vocab-size"),
        (["tokenizer", "train", "../a.txt", "--vocab-size", 20, "--out", "o"], "--vocab-size 20 is too small"),
        (["tokenizer", "train", "../a.txt", "--vocab-size", 300, "--out", ".."], "is there already, and not empty"),
        (["tokenizer", "train", "../a.txt", "--text", "b", "--kind", "byte", "--out", "o"], "no column 'b'"),
        (["tokenizer", "train", "../a.txt"], "out"),
        (["tokenizer", "show", "..", "text"], "tokenizer"),
        (["tokenizer", "show", "minilm"], "TEXT"),
    ],
)
def test_refusals(tmp_path: Path, refuse: Callable[..., str], arguments: list[object], said: str) -> None:
    (tmp_path / "a.txt").write_text("some text")
    assert said in refuse(*arguments)


def test_its_help(run: Run) -> None:
    for words in (["tokenizer"], ["tokenizer", "--help"]):
        said = run(*words)
        assert said.code == 0 and "train" in said.out and "show" in said.out
    assert "--vocab-size" in run("tokenizer", "train", "--help").out
