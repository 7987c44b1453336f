"""What was asked. The parameters of a request, each read once, in range; what nobody read is refused by name."""

from __future__ import annotations

import json
import re
from typing import Literal

import anyio
from starlette.requests import ClientDisconnect, Request

from clearhead.lens.seen import KINDS, Kind
from clearhead.serve.limits import Limits
from clearhead.serve.refusals import Refusal

NUMBER = re.compile(r"[0-9]{1,9}")
FIELDS = ("text", "target", "model", "source_language", "target_language")
"""What can be said in the body of a question."""

SPAN = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")


class Query:
    """The parameters behind the `?`. Raises a Refusal (422) for one that is missing, twice, malformed or unknown."""

    def __init__(self, request: Request) -> None:
        self._left: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name in self._left:
                raise Refusal(422, f"{name}= is given twice.")
            self._left[name] = value

    def word(self, name: str) -> str:
        """A parameter as it is. Required."""
        if name not in self._left:
            raise Refusal(422, f"{name}= is missing.")
        return self._left.pop(name)

    def number(self, name: str, default: int | None = None, *, least: int = 0, most: int = 10**9) -> int:
        """A whole number; required where there is no default."""
        if name not in self._left and default is not None:
            return default
        word = self.word(name)
        if not NUMBER.fullmatch(word) or not least <= int(word) <= most:
            raise Refusal(422, f"{name}={word[:40]} is not a whole number from {least} to {most}.")
        return int(word)

    def maybe(self, name: str) -> int | None:
        """A whole number, or None where it is not given."""
        return self.number(name) if name in self._left else None

    def span(self, name: str, size: int) -> range:
        """`a:b`, some of 0…size−1, from a up to and without b; all of them where it is not given."""
        if name not in self._left:
            return range(size)
        word = self.word(name)
        match = SPAN.fullmatch(word)
        start, stop = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 0 <= start < stop <= size:
            raise Refusal(422, f"{name}={word[:40]} is not a:b with 0 ≤ a < b ≤ {size}.")
        return range(start, stop)

    def kind(self) -> Kind | None:
        """Which attention; may be left out where the model has one kind."""
        word = self._left.pop("kind", None)
        for kind in KINDS:
            if word == kind:
                return kind
        if word is not None:
            raise Refusal(422, f"kind={word[:40]} is none; choose one of {', '.join(KINDS)}.")
        return None

    def how(self) -> Literal["max", "mean"]:
        """How cells are pooled."""
        word = self._left.pop("how", "max")
        if word == "max":
            return "max"
        if word == "mean":
            return "mean"
        raise Refusal(422, f"how={word[:40]} is none; choose max or mean.")

    def place(self, name: str) -> str | int:
        """A token's index, where it is a number, else a word of the text. A number as a word is written in quotes."""
        word = self.word(name)
        if NUMBER.fullmatch(word):
            return int(word)
        return word[1:-1] if len(word) > 2 and word[0] == word[-1] == '"' else word

    def done(self) -> None:
        """Refuse what is left over."""
        if self._left:
            raise Refusal(422, f"{', '.join(name[:40] for name in self._left)}: no such parameter here.")


async def body(request: Request, limits: Limits) -> dict[str, str]:
    """The JSON object of strings that a POST brings. Raises a Refusal for any other body, or one that is too long."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "send JSON, with the header Content-Type: application/json.")
    try:
        value = json.loads(await _bytes(request, limits))
    except (ValueError, RecursionError):
        raise Refusal(400, 'the body is not JSON; send an object such as {"text": "…"}.') from None
    if not isinstance(value, dict):
        raise Refusal(400, f'the body is a JSON {type(value).__name__}; send an object such as {{"text": "…"}}.')
    unknown = [str(name)[:40] for name in value if name not in FIELDS]
    if unknown:
        raise Refusal(422, f"{', '.join(unknown)}: no such field here; there are {', '.join(FIELDS)}.")
    given = {name: entry for name, entry in value.items() if entry is not None}
    wrong = [name for name, entry in given.items() if not isinstance(entry, str)]
    if wrong or "text" not in given:
        raise Refusal(422, f"{wrong[0]} is not a string." if wrong else "text is missing.")
    return given


async def _bytes(request: Request, limits: Limits) -> bytes:
    most = limits.body_bytes
    too_long = Refusal(413, f"the body is longer than {most:,} bytes.")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or len(length) > 15 or int(length) > most:
        raise too_long
    read = bytearray()
    try:
        with anyio.fail_after(limits.body_seconds):
            async for piece in request.stream():
                read += piece
                if len(read) > most:
                    raise too_long
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {limits.body_seconds:g} s.") from None
    except ClientDisconnect:
        raise Refusal(400, "the client left before its body was here.") from None
    return bytes(read)
