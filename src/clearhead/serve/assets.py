"""The page's files, read once when the app is made: what is not in the folder cannot be asked for."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def page_routes() -> list[Route]:
    """A route for each file of `page/`; index.html is at /."""
    found = sorted(files("clearhead.serve").joinpath("page").iterdir(), key=lambda entry: entry.name)
    return [_route(entry.name, entry.read_bytes()) for entry in found if entry.name.rpartition(".")[2] in TYPES]


def _route(name: str, content: bytes) -> Route:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def give(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=TYPES[name.rpartition(".")[2]], headers=headers)

    return Route("/" if name == "index.html" else f"/{name}", give, methods=["GET"])
