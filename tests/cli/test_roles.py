"""What `clearhead roles` says, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import clearhead
from tests.cli.conftest import Run
from tests.lens import by_hand

Refuse = Callable[..., str]


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """`clearhead.load` gives the model whose heads were made by hand."""
    monkeypatch.setattr(clearhead, "load", lambda name, **_: by_hand.by_hand(causal=name == "one-way"), raising=False)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(by_hand.sentences()))
    return {
        "treebank": by_hand.treebank(tmp_path / "tiny.conllu"),
        "coreference": by_hand.pairs(tmp_path / "pairs.tsv"),
        "texts": texts,
    }


def options(files: dict[str, Path]) -> list[str]:
    return [word for name, path in files.items() for word in (f"--{name}", str(path))]


def test_a_table_and_an_atlas(
    run: Run, hand: None, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    said = run("roles", "one-way", *options(files), columns=120)
    assert said.code == 0 and said.err == ""
    lines = {line[:18].strip(): line.split() for line in said.out.splitlines()}
    for role in ("induction", "previous token", "separator", "first-token sink", "coreference"):
        layer, head = by_hand.WHERE[role]
        assert lines[role][len(role.split()) :][0] == f"{layer}.{head}", role
    assert "nothing to read that way" in said.out and "first token kept" in said.out
    assert lines["obj to head"][-1] == "yes" and lines["obj to head"][4] == "1.2"
    assert "one-way-roles.png: the atlas, all 12 heads." in said.out
    assert (tmp_path / "one-way-roles.png").read_bytes().startswith(b"\x89PNG")


def test_json_has_everything(run: Run, hand: None, files: dict[str, Path]) -> None:
    said = run("roles", "both-ways", *options(files), "--json", "--no-atlas", "--first-token", "dropped")
    facts = json.loads(said.out)
    assert said.err == "" and facts["first_token"] == "dropped" and facts["schema"] == 1 and facts["model"] == "by hand"
    layer, head = by_hand.WHERE["induction"]
    induction = next(one for one in facts["roles"] if one["role"] == "induction")
    assert induction["found"][layer][head] and len(induction["scores"]) == 2 and len(induction["scores"][0]) == 6
    found = {one["role"]: (one["layer"], one["head"], one["score"]) for one in facts["findings"]}
    assert found["coreference"] == (*by_hand.WHERE["coreference"], 1.0)
    assert facts["coreference"]["pairs"] == 80 and facts["relations"][0]["relation"] == "dep"


def test_an_atlas_as_svg_where_it_is_wanted(run: Run, hand: None, files: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "atlas.svg"
    said = run("roles", "both-ways", "--texts", files["texts"], "--atlas", path)
    assert said.code == 0 and path.read_text().lstrip().startswith("<?xml")
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []


def test_only_so_many_sentences(run: Run, hand: None, files: dict[str, Path]) -> None:
    said = run("roles", "both-ways", *options(files), "--sentences", 30, "--json", "--no-atlas", "--fewest", 10)
    facts = json.loads(said.out)
    assert facts["sentences"] == 30 and facts["coreference"]["pairs"] == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--treebank", "none.conllu"], "there is no file none.conllu"),
        (["--coreference", "none.tsv"], "there is no file none.tsv"),
        (["--texts", "none.txt"], "there is no file none.txt"),
        (["--atlas", "roles.txt"], "name the picture so"),
        (["--atlas", "none/roles.png"], "there is no folder none"),
        (["--atlas", "roles.png", "--no-atlas"], "contradict each other"),
        (["--first-token", "gone"], "'gone' is not one of"),
        (["--sentences", "0"], "--sentences"),
        (["--kind", "decoders"], "'decoders' is not one of"),
    ],
)
def test_what_is_refused(refuse: Refuse, hand: None, arguments: list[str], message: str) -> None:
    assert message in refuse("roles", "one-way", *arguments)


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--treebank", b"no tabs here\n", "10, divided by tabs"),
        ("--treebank", b"", "has no sentence"),
        ("--treebank", b"\xff\xfe\x00", "is not UTF-8"),
        ("--coreference", b"Text\tWord\n", "has no header"),
        ("--coreference", b"", "has no header"),
        ("--texts", b"\n \n", "has no text"),
        ("--texts", b"\xff", "is not UTF-8"),
    ],
)
def test_files_that_are_something_else(
    refuse: Refuse, hand: None, tmp_path: Path, option: str, text: bytes, message: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(text)
    assert message in refuse("roles", "one-way", option, path, "--no-atlas")


def test_without_matplotlib_the_table_stands(
    run: Run, hand: None, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = run("roles", "one-way", "--texts", files["texts"])
    assert said.code == 0 and "No atlas: pictures need matplotlib: pip install" in said.out
    said = run("roles", "one-way", "--texts", files["texts"], "--atlas", "roles.png")
    assert said.code == 2 and said.out == "" and "pip install" in said.err
