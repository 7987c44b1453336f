"""The app. The routes, the page beside them, one answer for every mistake, and the guard around it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clearhead.errors import ClearheadError, MissingDependencyError

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.types import ASGIApp
except ModuleNotFoundError as missing:
    raise MissingDependencyError(
        f"the explorer needs {missing.name}; install it with: pip install 'clearhead[explore]'"
    ) from missing

from clearhead.serve.assets import page_routes
from clearhead.serve.explorer import Explorer
from clearhead.serve.facts import Readable
from clearhead.serve.guard import Guard
from clearhead.serve.limits import Limits
from clearhead.serve.opening import opening
from clearhead.serve.refusals import for_bug, for_mistake, for_route
from clearhead.serve.routes import ROUTES


def create_app(
    load: Callable[[str], Readable] | None = None,
    *,
    model: str = "minilm",
    offered: Sequence[str] | None = None,
    text: str | None = None,
    host: str = "127.0.0.1",
    limits: Limits | None = None,
) -> ASGIApp:
    """The explorer as an ASGI app. Nothing is loaded before the first look.

    load: gives a model by its name; `clearhead.load` by default. model: the one that the page opens with; it and those
    in `offered` (default: the embedded ones) can be asked for, no others. text: what the page opens with, if not with
    one that suits the model. host: what the server listens on, for the check of the Host header.
    """
    return app_for(Explorer(load, model, offered, limits), text=text, host=host)


def app_for(
    explorer: Explorer, *, text: str | None = None, target: str | None = None, host: str = "127.0.0.1"
) -> ASGIApp:
    """The app around an explorer that is there already."""
    app = Starlette(
        routes=[*ROUTES, *page_routes()],
        exception_handlers={ClearheadError: for_mistake, HTTPException: for_route, Exception: for_bug},
    )
    app.router.redirect_slashes = False
    app.state.explorer, app.state.opening = explorer, opening(explorer.default, text, target)
    return Guard(app, host)
