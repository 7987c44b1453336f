"""The still. A look written as one page that needs nothing else: no server, no network, no T×T tables.

It holds what the lens holds, q, k and the log-sum-exp of every head (`payload.py`), and `derive.js` in the page does
what the lens does, A = exp(q·k·scale + bias − lse), for the weights that someone looks at. The page's own policy
forbids it to load anything or to run any script but the one it was written with.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from clearhead.errors import LensError
from clearhead.lens.look import Look
from clearhead.lens.seen import Kind
from clearhead.serve.facts import Readable, facts_of
from clearhead.serve.still.payload import EXACT, Packed, pack

EXACT_BYTES = 26_000_000
"""So many bytes of q, k and log-sum-exp are kept as they are, a page of 30 MB; of more, 14 bits of a mantissa are."""

LARGEST = 120_000_000
"""A page larger than this no browser opens with pleasure, and it is refused."""

SCRIPTS = ("derive.js", "colour.js", "state.js", "words.js", "heads.js", "map.js", "page.js")
"""The page's script, in the order in which its parts lean on one another."""


@dataclass(frozen=True)
class Opening:
    """What the page opens with: a head, and in it the token that reads and the token it reads, where they are known."""

    kind: Kind
    layer: int
    head: int
    query: int | None = None
    key: int | None = None


def check_path(path: Path) -> None:
    """Raise LensError where no page can be written to `path`, before the model has run for nothing."""
    folder = path.parent
    if path.is_dir():
        raise LensError(f"{path} is a folder; give the page a name in it, e.g. {path / 'look.html'}.")
    if path.exists() and not path.is_file():
        raise LensError(f"{path} is no ordinary file; write the page to another.")
    if not folder.is_dir():
        raise LensError(f"there is no folder {folder}; make it first, or write the page elsewhere.")
    if not os.access(folder, os.W_OK):
        raise LensError(f"the folder {folder} may not be written to; write the page elsewhere.")


def write(path: Path, lm: Readable, seen: Look, opening: Opening) -> int:
    """Write the page, all of it or nothing; returns its bytes. Raises LensError where that cannot be."""
    check_path(path)
    page = render(lm, seen, opening)
    with _whole_or_nothing(path) as out:
        out.write(page)
    return len(page)


def render(lm: Readable, seen: Look, opening: Opening) -> bytes:
    """The page itself."""
    kept = seen.seen.nbytes
    whole = kept <= EXACT_BYTES
    page_bytes = kept * (1.15 if whole else 0.76)  # deflated, in base64
    if page_bytes > LARGEST:
        raise LensError(
            f"the page would be {page_bytes / 1e6:,.0f} MB, and browsers open at most {LARGEST / 1e6:.0f} well; "
            "shorten the text, or use clearhead explore, which sends only what is looked at."
        )
    packed = pack(seen, EXACT if whole else 14)
    facts = {**facts_of(lm, seen), **_names(seen), "opening": vars(opening), "error": packed.error}
    style, script = _read("page.css"), "{\n" + "\n".join(map(_read, SCRIPTS)) + "}\n"
    allowed = f"style-src {_digest(style)}; script-src {_digest(script)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(_title(seen.text)),
        "style": style,
        "facts": _json(facts),
        "calls": "\n".join(_calls(packed)),
        "script": script,
    }
    page = _read("page.html")
    for name, content in parts.items():
        before, mark, after = page.partition(f"{{{{{name}}}}}")
        assert mark, name
        page = before + content + after
    return page.encode()


def _calls(packed: Packed) -> Iterator[str]:
    for number, (facts, data) in enumerate(packed.calls):
        yield f'<script type="application/json" id="call-{number}">{_json(facts)}</script>'
        yield f'<script type="application/octet-stream" id="data-{number}">{base64.b64encode(data).decode()}</script>'


def _json(value: Any) -> str:
    """JSON that no HTML parser takes for anything else, whatever text is in it."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return files("clearhead.serve").joinpath("still", name).read_text("utf-8")


def _title(text: str) -> str:
    line = " ".join(text.split())
    return (line if len(line) <= 60 else line[:59] + "…") + " · clearhead"


def _names(seen: Look) -> dict[str, Any]:
    """What the page shows for each token, and whether it stands right against the one before it, as in the text."""
    sides = {"text": (seen.text, seen.tokens, seen.offsets)}
    if seen.target is not None:
        sides["target"] = (seen.target, seen.target_tokens, seen.target_offsets)
    heads = {kind: [seen.n_heads(kind, n) for n in range(seen.n_layers(kind))] for kind in seen.kinds}
    return {"names": {side: _shown(*those) for side, those in sides.items()}, "heads": heads}


def _shown(text: str, tokens: list[str], offsets: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    shown = []
    last = (-1, -1)
    for token, (start, end) in zip(tokens, offsets, strict=True):
        own = text[start:end].strip()
        if not own or (start, end) == last:  # no text, or one of several pieces of the same character
            own = token.strip() or "␣"
        shown.append((own.replace("\n", "↵"), last[0] < last[1] == start < end and not text[start].isspace()))
        last = (start, end)
    return shown


@contextmanager
def _whole_or_nothing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` when all is well, and is gone when it is not."""
    path = path.resolve()
    sibling = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with sibling.open("xb") as out:
            yield out
        os.replace(sibling, path)
    except OSError as problem:
        raise LensError(f"{path} cannot be written: {problem.strerror}; write the page elsewhere.") from problem
    finally:
        with suppress(OSError):
            sibling.unlink()
