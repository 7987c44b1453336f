"""Who is answered: this server's own page and local programs; no foreign name, no other site's page."""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib.resources import files

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.serve.test_refusals import refused
from tests.serve.test_routes import look_at

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/api/models", "/nothing", "/api/looks/none"])
def test_every_answer_has_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert set(headers["content-security-policy"].split("; ")) == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.0.0.1"])
def test_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "192.0.2.7", ""]
)
def test_rebound_names_are_not(client: TestClient, host: str) -> None:
    refused(client.get("/", headers={"Host": host}), 403, "no name of this server")
    refused(client.post("/api/look", json={"text": "a"}, headers={"Host": host}), 403)


def test_the_host_that_was_asked_for_is_answered(client_of: Callable[..., TestClient]) -> None:
    named, everywhere = client_of(host="box.lan"), client_of(host="0.0.0.0")
    assert named.get("/", headers={"Host": "box.lan:8000"}).status_code == 200
    refused(named.get("/", headers={"Host": "192.0.2.7:8000"}), 403)
    for host in ("192.0.2.7:8000", "[2001:db8::1]:8000", socket.gethostname(), "localhost"):
        assert everywhere.get("/", headers={"Host": host}).status_code == 200
    refused(everywhere.get("/", headers={"Host": "evil.example:8000"}), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_pages_get_nothing(client: TestClient, headers: dict[str, str]) -> None:
    refused(client.post("/api/look", json={"text": "a"}, headers=headers), 403, "may not use this server")
    refused(client.get("/api/models", headers=headers), 403)


def test_the_own_page_and_programs_are_answered(client: TestClient) -> None:
    own = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/look", json={"text": "a b"}, headers=own).status_code == 200
    assert look_at(client, "a b")["tokens"][1:3] == ["a", "b"]  # a program sends neither header
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200  # a link from elsewhere may open the page


def test_web_sockets_are_closed(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/look"):
        pass


def test_the_page_is_all_there_and_nothing_else(client: TestClient) -> None:
    folder = files("clearhead.serve").joinpath("page")
    for entry in folder.iterdir():
        answer = client.get("/" if entry.name == "index.html" else f"/{entry.name}")
        assert answer.status_code == 200 and answer.content == entry.read_bytes()
        again = client.get(answer.request.url.path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content
    page = client.get("/").text
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert "http://" not in page and "https://" not in page and "style=" not in page and "<script>" not in page
