"""A client of the explorer around the tiny models of `stub.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from clearhead.serve import Limits, create_app
from tests.serve.stub import CONFIGS, load

HERE = "http://127.0.0.1:8000"
TEXT = "The animal didn't cross the street because it was too tired"


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """Makes clients: `client_of(model="decoder", looks=2)`; what is no argument of `create_app` is a limit."""
    opened: list[TestClient] = []

    def make(model: str = "encoder", *, host: str = "127.0.0.1", load: Any = load, **limits: Any) -> TestClient:
        app = create_app(load, model=model, offered=list(CONFIGS), text=TEXT, host=host, limits=Limits(**limits))
        client = TestClient(app, base_url=HERE, raise_server_exceptions=False)
        opened.append(client)
        return client.__enter__()

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    return client_of()
