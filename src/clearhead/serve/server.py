"""The server. A free port first, then the model, then the address to open; Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING

from clearhead.errors import MissingDependencyError, ServeError
from clearhead.serve.opening import text_for

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from clearhead.serve.shelf import Kept


def serve(
    model: str = "minilm",
    *,
    text: str | None = None,
    target: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    open_browser: bool = True,
    pickle: bool = False,
    languages: dict[str, str] | None = None,
) -> None:
    """Serve the explorer until Ctrl-C. Prints the model, how its numbers come about, and the address.

    model: a folder, a hub id, or an embedded name. text, target: what the page opens with; where none is given, a text
    that suits the model, and what a model of two texts writes itself. languages: source_language and target_language,
    for a translator. port: 0 takes any free one. pickle: whether PyTorch's own files may be read, as for
    `clearhead.load`. Raises ServeError where the port is taken, naming one that is free; the model's mistakes and the
    text's (an empty one, one past the context) come before anything is served, too.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as missing:
        raise MissingDependencyError(
            f"the explorer needs {missing.name}; install it with: pip install 'clearhead[explore]'"
        ) from missing
    listener = listen(host, port)
    try:
        from clearhead.serve.app import app_for
        from clearhead.serve.explorer import Explorer

        explorer = Explorer(model=model, pickle=pickle, languages=languages)
        text = text_for(model) if text is None else text
        _say(describe(explorer.first_look(text, target)))
        url = address(host, listener.getsockname()[1])
        server = _announcing(_quiet(app_for(explorer, text=text, target=target, host=host)), url, open_browser)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        _say("\nThe explorer is closed.")
    finally:
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the port, so that nobody takes it while the model loads. Raises ServeError in one line."""
    if not 0 <= port <= 65535:
        raise ServeError(f"port {port} is none; choose one from 1024 to 65535, or 0 for any free one.")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise ServeError(
            f"{host!r} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for the network."
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1)  # two bound sockets may share a port until one of them listens
    except OSError as problem:
        listener.close()
        raise ServeError(_complaint(problem, host, port)) from None
    return listener


def _complaint(problem: OSError, host: str, port: int) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; port {_free_port(host, port)} is free."
    if problem.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs a right that you do not have; port {_free_port(host, 8000)} is free."
    if problem.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for the network."
    return f"cannot listen on port {port} of {host}: {problem.strerror}."


def _free_port(host: str, taken: int) -> int:
    """A free port, near the one that was wanted if there is one."""
    for port in (*range(max(taken, 1023) + 1, min(taken + 20, 65536)), 0):
        with contextlib.suppress(OSError), socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    return 0


def address(host: str, port: int) -> str:
    """What to type into the browser of this machine."""
    name = "127.0.0.1" if host in ("0.0.0.0", "") else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def describe(kept: Kept) -> str:
    """How the numbers come about, in one line."""
    look, facts = kept.look, kept.facts
    heads = ", ".join(f"{look.n_layers(kind)} × {look.n_heads(kind)} heads ({kind})" for kind in look.kinds)
    return f"{facts['model']}: {heads}; {facts['dtype']} on {facts['device']}; kernel: {facts['kernel']}"


def _quiet(app: ASGIApp) -> uvicorn.Config:
    """No log but of bugs, no web sockets, a bounded number of connections, two seconds to finish on Ctrl-C."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=200,
        timeout_graceful_shutdown=2,
    )


def _announcing(config: uvicorn.Config, url: str, open_browser: bool) -> uvicorn.Server:
    """A server that says where it is once it can be reached."""
    import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            _say(f"{url}   (Ctrl-C ends it)")
            if open_browser:
                _open(url)

    return Announcing(config)


def _open(url: str) -> None:
    """Open the page in the user's browser, where there is a screen; a browser of the terminal would take it over."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        _say("No screen here: open that address in a browser yourself.")
        return
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _say(line: str) -> None:
    print(line, flush=True)
