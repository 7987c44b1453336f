"""clearhead classify. The labels of texts, or of their tokens.

--json writes a line for each text: {"text", "labels": [{"label", "probability", "text", "start", "end", "tokens"}]}:
of a whole text, all labels, the likeliest first; of tokens, what was found, in order. Fields may be added.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from clearhead.cli.options import HeadClass, Pickle, loaded


def classify(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="what to label", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="a folder or a hub id", show_default=False)],
    pair: Annotated[str | None, typer.Option(help="a second text, read together with each")] = None,
    by_token: Annotated[bool, typer.Option("--by-token", help="of tokens: each by itself, not joined")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON, a line for each text")] = False,
    head: HeadClass = None,
    pickle: Pickle = False,
) -> None:
    """Label each TEXT with MODEL, a classifier: the text as a whole, or the names and such that a tagger finds."""
    lm = loaded(model, head=head, pickle=pickle)
    found = [lm.classify(text, pair, aggregation="none" if by_token else "simple") for text in texts]
    if as_json:
        for text, labels in zip(texts, found, strict=True):
            print(json.dumps({"text": text, "labels": [asdict(one) for one in labels]}, ensure_ascii=False))
        return
    from rich.text import Text

    from clearhead.cli.ranking import ranking
    from clearhead.cli.terminal import Terminal

    console = Terminal()
    for number, (text, labels) in enumerate(zip(texts, found, strict=True)):
        if number:
            console.print()
        rows = [(one.label, one.probability, one.text) for one in labels]
        console.print(ranking("label", rows, console) if rows else Text(f"nothing found in: {text}"))
