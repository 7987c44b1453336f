"""What is kept and what waits: the shelf lets go of the oldest look, the gate of whoever is one too many."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from clearhead.lens.look import Look
from clearhead.serve.explorer import Explorer
from clearhead.serve.gate import Gate
from clearhead.serve.limits import Limits
from clearhead.serve.refusals import Refusal
from tests.serve.stub import Stub, load
from tests.serve.test_refusals import refused
from tests.serve.test_routes import ask, look_at


async def _stays() -> bool:
    return False


def run(main: Callable[[], Awaitable[None]]) -> None:
    """In a thread of its own: the browser's tests leave a loop behind in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(anyio.run, main).result(timeout=60)


def test_the_look_used_least_recently_goes(client_of: Callable[..., TestClient]) -> None:
    client = client_of(looks=2)
    first, second = look_at(client, "one text"), look_at(client, "two texts")
    tensors = client.app.app.state.explorer.shelf.get(second["id"]).look.seen  # type: ignore[attr-defined]
    ask(client, first, "row", layer=0, head=0, row=0)
    third = look_at(client, "three texts")
    for look in (first, third):
        assert client.get(f"/api/looks/{look['id']}").status_code == 200
    refused(client.get(f"/api/looks/{second['id']}"), 410, "look at the text again")
    refused(client.get(f"/api/looks/{second['id']}/row?layer=0&head=0&row=0"), 410, "look at the text again")
    assert tensors.nbytes == 0
    assert look_at(client, "two texts")["id"] != second["id"]


def test_a_look_that_never_was(client: TestClient) -> None:
    refused(client.get("/api/looks/AAAAAAAAAAAA/thumbs"), 404, "look at the text again")


def test_the_bytes_that_are_kept_are_bounded(client_of: Callable[..., TestClient]) -> None:
    client = client_of(look_bytes=1)
    shelf = client.app.app.state.explorer.shelf  # type: ignore[attr-defined]
    first = look_at(client, "one text")
    assert len(shelf) == 1 and shelf.nbytes > 1  # the newest stays, whatever it takes
    look_at(client, "two texts")
    assert len(shelf) == 1
    refused(client.get(f"/api/looks/{first['id']}"), 410)


class Slow(Stub):
    """A model that waits to be let go on, and counts how many texts it reads at the same time."""

    def __init__(self) -> None:
        self.__dict__ = load("encoder").__dict__
        self.go, self.entered, self.now, self.most = threading.Event(), threading.Semaphore(0), 0, 0

    def look(self, text: str, target: str | None = None) -> Look:
        self.now += 1
        self.most = max(self.most, self.now)
        self.entered.release()
        assert self.go.wait(20)
        self.now -= 1
        return super().look(text, target)


def test_the_model_reads_one_text_at_a_time_and_few_wait(client_of: Callable[..., TestClient]) -> None:
    slow = Slow()
    client = client_of(load=lambda name: slow, waiting=2)
    gate = client.app.app.state.explorer._model_gate  # type: ignore[attr-defined]

    def post(n: int) -> Any:
        return client.post("/api/look", json={"text": f"text {n}"})

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(post, n) for n in range(3)]
        assert slow.entered.acquire(timeout=20)
        while gate.inside < 3:
            threading.Event().wait(0.005)
        answer = post(3)
        refused(answer, 429, "try again")
        assert answer.headers["retry-after"]
        assert client.get("/api/models").status_code == 200  # the rest of the server goes on
        slow.go.set()
        assert [future.result().status_code for future in waiting] == [200, 200, 200]
    assert slow.most == 1 and gate.inside == 0


def test_the_same_text_asked_for_at_once_is_kept_once(client_of: Callable[..., TestClient]) -> None:
    slow = Slow()
    client = client_of(load=lambda name: slow)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(client.post, "/api/look", json={"text": "the same"}) for _ in range(2)]
        assert slow.entered.acquire(timeout=20)
        slow.go.set()
        ids = {future.result().json()["id"] for future in both}
    assert len(ids) == 1 and len(client.app.app.state.explorer.shelf) == 1  # type: ignore[attr-defined]


def test_work_for_a_client_that_left_is_skipped() -> None:
    done: list[int] = []

    async def left() -> bool:
        return True

    async def main() -> None:
        gate = Gate(1, 1)
        with pytest.raises(Refusal, match="left"):
            await gate.run(lambda: done.append(1), left)
        assert gate.inside == 0
        await gate.run(lambda: done.append(2), _stays)

    run(main)
    assert done == [2]


def test_a_mistake_frees_its_place() -> None:
    async def main() -> None:
        gate = Gate(1, 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await gate.run(lambda: 1 / 0, _stays)

    run(main)


def test_a_released_look_is_told_as_gone() -> None:
    explorer = Explorer(load, "encoder", (), Limits())
    kept = explorer.first_look("a text that is let go")
    m = kept.look.map(0, 0)
    explorer.shelf.most = 1
    explorer.first_look("another text")
    from clearhead.errors import ReleasedError

    with pytest.raises(ReleasedError, match="look again"):
        m.row(0)
