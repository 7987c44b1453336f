"""The `tokenizers` library from outside: its errors in our words, and what its pieces say about a token's bytes.

The library is written in Rust. It raises bare `Exception`, and a Rust panic arrives as a `BaseException` that no
`except Exception` catches; `translated` turns both into `TokenizerError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer as Backend

from clearhead.errors import ClearheadError, TokenizerError


@contextmanager
def translated(complaint: str) -> Iterator[None]:
    """Run a block of backend calls; whatever it raises leaves as `TokenizerError("{complaint}: {reason}")`, but for our
    own errors: those of the data that texts come from."""
    try:
        yield
    except ClearheadError:
        raise
    except BaseException as problem:
        if not isinstance(problem, Exception) and type(problem).__name__ != "PanicException":
            raise
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise TokenizerError(f"{complaint}: {reason[:300]}") from problem


def parts(component: Any) -> list[dict[str, Any]]:
    """The named steps of a normalizer, pre-tokenizer or decoder, with what is nested in a `Sequence` laid flat."""
    if component is None:
        return []
    found: list[dict[str, Any]] = []
    try:
        waiting: list[Any] = [json.loads(component.__getstate__())]
    except Exception:  # a step of our own in Python, which has no such form
        return []
    while waiting:
        step = waiting.pop(0)
        inner = [value for value in step.values() if isinstance(value, list)]
        if step.get("type") == "Sequence" and inner:
            waiting = inner[0] + waiting
        else:
            found.append(step)
    return found


def byte_alphabet() -> dict[str, int]:
    """GPT-2's way to write bytes as visible characters: a printable Latin-1 character stands for its own byte, and the
    other 68 bytes, in order, for U+0100 and on (so a space is `Ġ`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(hidden)}


class TokenBytes:
    """Which bytes a token stands for, where the tokenizer works in bytes.

    `levels` is True for byte-level tokens (each character is a byte), `fallback` for tokens such as `<0xE4>`, and
    `marks` where `▁` stands for a space.
    """

    def __init__(self, backend: Backend) -> None:
        steps = parts(backend.decoder)
        kinds = {step.get("type") for step in steps}
        self.levels = "ByteLevel" in kinds
        self.fallback = "ByteFallback" in kinds
        self.marks = "Metaspace" in kinds or any(
            step.get("type") == "Replace" and step.get("pattern") == {"String": "▁"} for step in steps
        )
        self._alphabet = byte_alphabet() if self.levels else {}

    def of(self, token: str) -> bytes | None:
        """The bytes of `token`, or None if it is written in characters."""
        if self.levels and all(character in self._alphabet for character in token):
            return bytes(self._alphabet[character] for character in token)
        if self.fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                return None
        return None

    def mended(self, tokens: list[str]) -> list[str]:
        """`tokens` with every fallback byte that belongs to no character replaced by U+FFFD.

        The library's decoder gives up a whole run of bytes for one that is broken; with the broken ones taken out, the
        good characters beside them survive.
        """
        if not self.fallback:
            return tokens
        out: list[str] = []
        run = bytearray()

        def close() -> None:
            for character in run.decode("utf-8", "surrogateescape"):
                if "\udc80" <= character <= "\udcff":
                    out.append("\ufffd")
                else:
                    out.extend(f"<0x{byte:02X}>" for byte in character.encode())
            run.clear()

        for token in tokens:
            value = self.of(token)
            if value is None:
                close()
                out.append(token)
            else:
                run.extend(value)
        close()
        return out
