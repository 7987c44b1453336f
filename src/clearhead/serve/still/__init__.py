"""The still. A look written as one page that needs nothing else: no server, no network, no T×T tables.

It holds what the lens holds, q, k and the log-sum-exp of every head (`payload.py`), and `derive.js` in the page does
what the lens does, A = exp(q·k·scale + bias − lse), for the weights that someone looks at. The page's own policy
forbids it to load anything or to run any script but the one it was written with.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch

from clearhead.errors import InputError, LensError, OutsideError
from clearhead.lens.given import described, sort_of
from clearhead.lens.index import index
from clearhead.lens.look import Look
from clearhead.lens.seen import Kind
from clearhead.lens.ways_out.outputs import check_ending, check_path, whole_or_nothing
from clearhead.serve.facts import Readable, facts_of
from clearhead.serve.still.payload import COARSEST, FINEST, Packed, pack, size

MOST = 30_000_000
"""A page is at most so large where q and k need not be rounded to fewer than `COARSEST` bits for it."""

LARGEST = 120_000_000
"""A page larger than this no browser opens with pleasure, and it is refused."""

WHOLE, HALF, ROUNDED = 3.55, 2.2, 2.25
"""About so many bytes of the page a number of q or k takes: float32, half precision, and rounded to `COARSEST` bits."""

PAGE = 300_000
"""About so many bytes are the page without them."""

SCRIPTS = ("derive.js", "../page/colour.js", "state.js", "words.js", "heads.js", "map.js", "page.js")
"""The page's script, in the order in which its parts lean on one another; the colours are the explorer's."""


@dataclass(frozen=True)
class Opening:
    """What the page opens with: a head, and in it the token that reads and the token it reads, where they are known."""

    kind: Kind
    layer: int
    head: int
    query: int | None = None
    key: int | None = None


def write(path: str | os.PathLike[str], lm: Readable, seen: Look, opening: Opening) -> int:
    """Write the page, all of it or nothing; returns its bytes.

    Raises LensError where that cannot be, OutsideError for an opening on a head or a token that is not there.
    """
    where = check_path(path, "page", "look.html")
    check_ending(where, ("html", "htm"), "page")
    page = render(lm, seen, opening)
    with whole_or_nothing(where) as out:
        out.write(page)
    return len(page)


def render(lm: Readable, seen: Look, opening: Opening) -> bytes:
    """The page itself."""
    _check(lm, seen, opening)
    packed = fitted(seen)
    facts = {**facts_of(lm, seen), **_names(seen), "opening": vars(opening), "bits": packed.bits, "error": packed.error}
    style, script = _read("page.css"), "{\n" + "\n".join(map(_read, SCRIPTS)) + "}\n"
    allowed = f"style-src {_digest(style)}; script-src {_digest(script)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(_title(seen.text)),
        "style": style,
        "facts": _json(facts),
        "script": script,
    }

    def filled(template: str) -> bytes:
        return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template).encode("utf-16-le", "replace")

    before, after = _read("page.html").split("{{calls}}")
    return codecs.BOM_UTF16_LE + filled(before) + b"".join(_calls(packed)) + filled(after)


def _check(lm: Readable, seen: Look, opening: Opening) -> None:
    """Raise where there is no look to show, or what the page opens on is not in it."""
    if not isinstance(seen, Look):
        raise InputError(f"a page shows a look; {described(seen)}.")
    if not isinstance(getattr(lm, "name", None), str):
        raise InputError(f"the page says which model it was; give what clearhead.load gave, not {sort_of(lm)}.")
    if not isinstance(opening, Opening):
        raise InputError(f"{sort_of(opening)} is no opening; give Opening(kind, layer, head).")
    for kind in seen.kinds:
        if seen.seen.layers(kind) != tuple(range(seen.n_layers(kind))):
            raise LensError("a page shows all layers, and some were not kept; look again without layers=….")
    m = seen.map(opening.layer, opening.head, opening.kind)
    for token, there, word in ((opening.query, m.shape[0], "query"), (opening.key, m.shape[1], "key")):
        if token is not None and not 0 <= index(token, f"a {word}") < there:
            raise OutsideError(f"{word} {token} is outside {m.name}, which has {there}; choose 0…{there - 1}.")


def fitted(seen: Look) -> Packed:
    """q, k and log-sum-exp as they are where that makes a page of `MOST`, else rounded as little as it takes.

    Raises LensError where the page would be larger than browsers open well, however q and k are rounded.
    """
    calls = [seen.seen.call(layer, kind) for kind in seen.kinds for layer in range(seen.n_layers(kind))]
    q = calls[0].tensors[0]
    numbers = sum(x.numel() for call in calls for x in call.tensors[:2])
    if numbers * ROUNDED > LARGEST:
        raise LensError(
            f"the page would be {numbers * ROUNDED / 1e6:,.0f} MB, and browsers open at most {LARGEST / 1e6:.0f} well; "
            "shorten the text, or use clearhead explore, which sends only what is looked at."
        )
    if numbers * (WHOLE if q.dtype == torch.float32 else HALF) <= MOST:
        return pack(seen, None)
    over = size(seen, FINEST) + PAGE - MOST
    drop = max(0, math.ceil(over / numbers * 8 * 15 / 16 * 8)) / 8  # an eighth of a bit: a step in eight is coarser
    return pack(seen, max(COARSEST, FINEST - drop))


def _calls(packed: Packed) -> Iterator[bytes]:
    for number, (facts, data) in enumerate(packed.calls):
        yield f'<script type="application/json" id="call-{number}">{_json(facts)}</script>\n'.encode("utf-16-le")
        yield f'<script type="application/octet-stream" id="data-{number}">'.encode("utf-16-le")
        yield data
        yield "</script>\n".encode("utf-16-le")


def _json(value: Any) -> str:
    """JSON that no HTML parser takes for anything else, whatever text is in it."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    folder, _, file = name.rpartition("/")
    text = files("clearhead.serve").joinpath("page" if folder else "still", file).read_text("utf-8")
    return text.replace("export ", "") if folder else text  # the explorer's is a module


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
