"""Refusals. What a request gets wrong is answered by one line of JSON and the right status, never by a traceback."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from clearhead.errors import ClearheadError, ContextError, ReleasedError, ServeError, UnknownModelError

LINE = 600
"""Characters of a line; a longer one, quoting a whole text perhaps, is cut."""


class Refusal(ServeError):
    """A request that is not answered, with the HTTP status that says why."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


STATUS: tuple[tuple[type[ClearheadError], int], ...] = (
    (ReleasedError, 410),
    (ContextError, 413),
    (UnknownModelError, 404),
    (ClearheadError, 422),
)
"""The status of each mistake that is no Refusal; the first row that fits counts."""


def error(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """`{"error": line}` with that status."""
    line = " ".join(line.split())
    return JSONResponse({"error": line if len(line) <= LINE else line[: LINE - 1] + "…"}, status, headers=headers)


def for_mistake(request: Request, mistake: Exception) -> JSONResponse:
    """The answer to a ClearheadError: its own line."""
    assert isinstance(mistake, ClearheadError)
    if isinstance(mistake, Refusal):
        return error(mistake.status, str(mistake), {"Retry-After": "2"} if mistake.status == 429 else None)
    return error(next(status for kind, status in STATUS if isinstance(mistake, kind)), str(mistake))


def for_route(request: Request, mistake: Exception) -> JSONResponse:
    """The answer to a path or a method that there is not."""
    assert isinstance(mistake, HTTPException)
    headers = dict(mistake.headers or {})
    if mistake.status_code == 405:
        return error(
            405, f"{request.method} is not for {request.url.path}; use {headers.get('Allow', 'GET')}.", headers
        )
    if mistake.status_code == 404:
        return error(
            404, f"there is nothing at {request.url.path}; begin with GET /api/models and POST /api/look.", headers
        )
    return error(mistake.status_code, mistake.detail, headers)


def for_bug(request: Request, mistake: Exception) -> JSONResponse:
    """The answer to what should not happen. The server's log has the traceback; the client is not shown it."""
    return error(500, f"a bug of ours ({type(mistake).__name__}); the terminal that runs clearhead shows where.")
