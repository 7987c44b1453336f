"""clearhead generate. Continue prompts; one alone is shown piece by piece, as it is written.

--json writes a line for each prompt: {"prompt", "text"}; text is what the model added. Fields may be added.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from clearhead.cli.options import HeadClass, Pickle, loaded


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help="what to go on from", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="a folder, a hub id, or an embedded name")] = "alice",
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="stop after so many tokens")] = None,
    min_new_tokens: Annotated[int | None, typer.Option(min=0, help="do not end before so many")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 always takes the likeliest token")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="draw from the k likeliest")] = None,
    top_p: Annotated[float | None, typer.Option(help="draw from the likeliest that make up p")] = None,
    min_p: Annotated[float | None, typer.Option(help="draw from those p times as likely as the likeliest")] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed draws the same text")] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="above 1: beam search, so wide")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="in beam search: above 0 favours long texts")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="above 1: what was said becomes unlikely")] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(min=0, help="no run of so many tokens comes twice")
    ] = None,
    source_language: Annotated[
        str | None, typer.Option(help="what the prompts are in, as the tokenizer of a translator names it")
    ] = None,
    target_language: Annotated[str | None, typer.Option(help="what to translate into, likewise")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON, a line for each prompt")] = False,
    head: HeadClass = None,
    pickle: Pickle = False,
) -> None:
    """Continue each PROMPT with a model that writes, or translate or sum it up, as the model does.

    A decoder's prompt is repeated before the model's words. What is not said is as the checkpoint says; without a word
    of it, the likeliest token each time, at most 50.
    """
    asked = {name: value for name, value in locals().items() if value is not None}
    for name in ("prompts", "model", "as_json", "head", "pickle"):
        asked.pop(name, None)

    lm = loaded(model, head=head, pickle=pickle)
    if as_json:
        for prompt, text in zip(prompts, lm.generate(prompts, **asked), strict=True):
            print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False))
        return
    repeated = lm.config.encoder is None
    if len(prompts) > 1:
        for prompt, text in zip(prompts, lm.generate(prompts, **asked), strict=True):
            print((prompt if repeated else "") + text)
        return
    pieces = lm.stream(prompts[0], **asked)
    first = next(pieces, "")  # a mistake shows here, before anything is printed
    sys.stdout.write((prompts[0] if repeated else "") + first)
    for piece in pieces:
        sys.stdout.flush()
        sys.stdout.write(piece)
    sys.stdout.write("\n")
