"""clearhead generate. Continue a prompt, each piece shown as it is written."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def generate(
    prompt: Annotated[str, typer.Argument(help="the text to continue", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="a folder, a hub id, or an embedded name")] = "alice",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="stop after so many tokens")] = 50,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token")] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="draw from the k likeliest")] = None,
    top_p: Annotated[float | None, typer.Option(help="draw from the likeliest that make up p")] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed draws the same text")] = None,
) -> None:
    """Continue PROMPT with a model that writes. The prompt comes first, then the model's words, then a newline."""
    import clearhead

    lm = clearhead.load(model)
    pieces = lm.stream(
        prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )
    first = next(pieces, "")  # a mistake shows here, before anything is printed
    sys.stdout.write((prompt if lm.config.encoder is None else "") + first)
    for piece in pieces:
        sys.stdout.flush()
        sys.stdout.write(piece)
    sys.stdout.write("\n")
