"""clearhead fill. What fits where a text has a gap.

--json writes a line for each text: {"text", "candidates": [{"mask", "token", "id", "probability", "text"}]}, gap by
gap, the likeliest first; "mask" numbers the gaps from 0. Fields may be added.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from clearhead.cli.options import HeadClass, Pickle, loaded


def fill(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="texts with a gap", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="a folder or a hub id", show_default=False)],
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="how many candidates for each gap")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON, a line for each text")] = False,
    head: HeadClass = None,
    pickle: Pickle = False,
) -> None:
    """List what MODEL, a masked language model, would put where TEXT has its mask token, [MASK] or <mask>."""
    lm = loaded(model, head=head, pickle=pickle)
    found = [lm.fill(text, top_k=top) for text in texts]
    if as_json:
        for text, candidates in zip(texts, found, strict=True):
            print(json.dumps({"text": text, "candidates": [asdict(one) for one in candidates]}, ensure_ascii=False))
        return
    from clearhead.cli.ranking import ranking
    from clearhead.cli.terminal import Terminal

    console = Terminal()
    for number, candidates in enumerate(found):
        if number:
            console.print()
        console.print(ranking("token", [(one.token, one.probability, one.text) for one in candidates], console))
