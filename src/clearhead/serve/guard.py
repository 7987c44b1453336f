"""The guard. Who is answered at all: this machine's own pages and programs, and no other web page's scripts.

A local server is reachable by every page its user has open. Three checks keep those out: the Host header must be a name
of this server, so that a foreign name pointed at 127.0.0.1 (DNS rebinding) is refused; a request that a browser marks
as coming from another origin gets nothing of the API; and no CORS header is ever sent. The answers carry a Content-
Security-Policy under which the page can load and call nothing but this server.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearhead.serve.refusals import error

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer carries."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def names_of(host: str) -> Callable[[str], bool]:
    """Which names a server on `host` answers to: the loopback names, and what it was told to listen on.

    On all interfaces (0.0.0.0 or ::) these are also this machine's own name and any address written in numbers:
    a page that rebinds a name needs a name.
    """
    own = socket.gethostname().lower()
    everywhere = host in ("0.0.0.0", "::", "")
    names = LOOPBACK | ({own, f"{own}.local"} if everywhere else {host.lower()})

    def known(name: str) -> bool:
        return name in names or (everywhere and _is_address(name))

    return known


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_name(header: str) -> str:
    """The name in a Host header, without port and brackets: `[::1]:8000` → `::1`."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


class Guard:
    """The outermost layer of the app: refuses strangers, and puts the headers on every answer, refusals included."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.known = app, names_of(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        objection = self._objection(scope)
        answer = self.app if objection is None else error(403, objection)
        await answer(scope, receive, with_headers)

    def _objection(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.known(host_name(host)):
            return f"{host or 'an empty Host'} is no name of this server; open it by the address it printed."
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return f"pages of {origin} may not use this server."
        elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if elsewhere and scope["path"].startswith("/api/"):
            return "other sites' pages may not use this server."
        return None
