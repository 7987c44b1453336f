"""What a request can get wrong: each is one line of JSON with the right status, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from clearhead.lens.look import Look
from tests.serve.stub import load
from tests.serve.test_routes import look_at


def refused(answer: Any, status: int, *words: str) -> str:
    """The line of a refusal with that status, which has these words."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert list(said) == ["error"]
    line: str = said["error"]
    assert line and "\n" not in line and "Traceback" not in line
    assert all(word in line for word in words), line
    return line


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, b"", "not JSON"),
        (400, b"{", "not JSON"),
        (400, b"\xff\xfe", "not JSON"),
        (400, b"[" * 100_000, "not JSON"),
        (400, b"9" * 5000, "not JSON"),
        (400, b"[]", "a JSON list"),
        (400, b"null", "a JSON NoneType"),
        (422, b"{}", "text is missing"),
        (422, b'{"text": null}', "text is missing"),
        (422, b'{"text": 3}', "text is not a string"),
        (422, b'{"text": "a", "model": ["b"]}', "model is not a string"),
        (422, b'{"text": "a", "txet": "b"}', "txet: no such field"),
        (422, b'{"text": ""}', "the text is empty"),
        (422, b'{"text": " \\n "}', "the text is empty"),
        (422, b'{"text": "a \\ud800 b"}', "half of a pair"),
        (422, b'{"text": "a", "target": "b"}', "target is for encoder-decoders"),
        (422, b'{"text": "a", "model": "both"}', "give the target too"),
        (404, b'{"text": "a", "model": "gpt-9"}', "'gpt-9' is not offered here; choose one of encoder"),
        (404, b'{"text": "a", "model": "/etc"}', "'/etc' is not offered here"),
        (413, b'{"text": "' + b"word " * 500 + b'"}', "502 tokens"),
    ],
)
def test_a_look_that_cannot_be_had(client: TestClient, status: int, body: bytes, words: str) -> None:
    refused(client.post("/api/look", content=body, headers=JSON), status, words)


def test_only_json_is_read(client: TestClient) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        refused(client.post("/api/look", content=b'{"text": "a"}', headers=headers), 415, "Content-Type")


def test_bodies_and_texts_are_bounded(client_of: Callable[..., TestClient]) -> None:
    client = client_of(body_bytes=200, text_chars=50)
    refused(client.post("/api/look", json={"text": "a" * 300}), 413, "200 bytes")
    refused(client.post("/api/look", content=(b" " * 150 for _ in range(2)), headers=JSON), 413, "200 bytes")
    refused(client.post("/api/look", json={"text": "a" * 51}), 413, "51 characters", "50")
    lying = {**JSON, "Content-Length": "-5"}
    refused(client.post("/api/look", content=b"{}", headers=lying), 413)


@pytest.mark.parametrize(
    ("status", "route", "words"),
    [
        (422, "row", "layer= is missing"),
        (422, "row?layer=0&head=0", "row= is missing"),
        (422, "row?layer=0&head=0&row=-1", "row=-1 is not a whole number"),
        (422, "row?layer=0&head=0&row=1e3", "row=1e3"),
        (422, "row?layer=0&head=0&row=٣", "not a whole number"),
        (422, "row?layer=0&head=0&row=99999999999999999999", "not a whole number"),
        (422, "row?layer=0&head=0&row=400", "query 400 is outside"),
        (422, "row?layer=9&head=0&row=0", "layer 9 of the encoder was not seen"),
        (422, "row?layer=0&head=9&row=0", "head 9 is outside layer 0"),
        (422, "row?layer=0&head=0&row=0&row=1", "row= is given twice"),
        (422, "row?layer=0&head=0&row=0&colour=red", "colour: no such parameter"),
        (422, "row?kind=sideways&layer=0&head=0&row=0", "kind=sideways is none"),
        (422, "row?kind=cross&layer=0&head=0&row=0", "no 'cross' attention"),
        (422, "column?layer=0&head=0&col=77", "key 77 is outside"),
        (422, "top?layer=0&head=0&k=0", "k=0 is not a whole number from 1"),
        (422, "top?layer=0&head=0&k=1001", "to 1000"),
        (422, "ask?query=it", "key= is missing"),
        (422, "ask?query=it&key=dragon", "'dragon' is not in the text"),
        (422, "ask?query=it&key=99", "token 99 is outside"),
        (422, "thumbs?size=65", "from 1 to 64"),
        (422, "thumbs?size=8&layer=5", "layer 5"),
        (422, "pool?layer=0&head=0&height=0", "height=0"),
        (422, "pool?layer=0&head=0&how=median", "how=median"),
        (422, "tile?layer=0&head=0&rows=3", "rows=3 is not a:b"),
        (422, "tile?layer=0&head=0&rows=3:3", "rows=3:3"),
        (422, "tile?layer=0&head=0&cols=0:16", "b ≤ 15"),
        (404, "rows?layer=0&head=0", "nothing at"),
    ],
)
def test_a_question_that_has_no_answer(client: TestClient, status: int, route: str, words: str) -> None:
    refused(client.get(f"/api/looks/{look_at(client)['id']}/{route}"), status, words)


def test_several_kinds_must_be_told_apart(client_of: Callable[..., TestClient]) -> None:
    client = client_of("both")
    look = look_at(client, target="Das Tier")
    refused(client.get(f"/api/looks/{look['id']}/tile?layer=0&head=0"), 422, "say which")
    refused(client.get(f"/api/looks/{look['id']}/ask?query=a&key=b"), 422, "kind= is missing")


def test_a_decoder_cannot_read_what_comes_later(client_of: Callable[..., TestClient]) -> None:
    client = client_of("decoder")
    refused(client.get(f"/api/looks/{look_at(client)['id']}/ask?query=1&key=7"), 422, "only what came before")


def test_answers_are_bounded(client_of: Callable[..., TestClient]) -> None:
    client = client_of(tile_cells=100, thumb_cells=200, swept_cells=1000)
    look = look_at(client, "a b c d e f g h i j k l m n o p q r")
    at = f"/api/looks/{look['id']}"
    refused(client.get(f"{at}/tile?layer=0&head=0"), 413, "20×20 weights are more than 100")
    assert client.get(f"{at}/tile?layer=0&head=0&rows=0:5").status_code == 200
    refused(client.get(f"{at}/thumbs?size=16"), 413, "smaller size=")
    refused(client.get(f"{at}/thumbs?size=4"), 413, "sweeps 2,400 weights", "layer=")
    refused(client.get(f"{at}/thumbs?size=4&layer=0"), 413, "sweeps 1,200")
    assert client.get(f"{at}/pool?layer=0&head=0&height=4&width=4").status_code == 200
    refused(client.get(f"{at}/pool?layer=0&head=0&height=11"), 422, "from 1 to 10")


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/look/", "/nothing", "/page/app.js", "/../app.py", "/%2e%2e/app.py"]
)
def test_what_is_not_there(client: TestClient, path: str) -> None:
    refused(client.get(path), 404, "nothing at")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/look"),
        ("POST", "/api/models"),
        ("DELETE", "/"),
        ("PUT", "/api/looks/x/row"),
        ("OPTIONS", "/api/look"),
    ],
)
def test_the_wrong_method(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    refused(answer, 405, method)
    assert "access-control-allow-origin" not in answer.headers and answer.headers["allow"]


def test_a_bug_is_told_without_its_insides(client_of: Callable[..., TestClient]) -> None:
    class Odd(type(load("encoder"))):  # type: ignore[misc]
        def look(self, text: str, target: str | None = None) -> Look:
            raise ZeroDivisionError("secret detail")

    odd = object.__new__(Odd)
    odd.__dict__ = load("encoder").__dict__
    answer = client_of(load=lambda name: odd).post("/api/look", json={"text": "a"})
    line = refused(answer, 500, "ZeroDivisionError")
    assert "secret" not in line
    assert answer.headers["x-content-type-options"] == "nosniff"
