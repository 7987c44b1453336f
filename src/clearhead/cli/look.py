"""clearhead look. What every attention head reads in a text: in the terminal, as JSON, or as files.

This file reads the arguments and says no to what does not go together; `views.py` draws in the terminal, `as_json.py`
writes JSON, and `files.py` the page, the pictures, the table and the archive.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.options import Pickle, SourceLanguage, TargetLanguage, languages
from clearhead.errors import InputError, OutsideError

if TYPE_CHECKING:
    from clearhead.lens.look import Look
    from clearhead.lens.seen import Kind
    from clearhead.serve.facts import Readable


class KindChoice(str, Enum):  # noqa: UP042 — typer below 0.19 shows str subclasses best
    """The kinds of attention, as `--kind` takes them."""

    encoder = "encoder"
    decoder = "decoder"
    cross = "cross"


def look(
    text: Annotated[str, typer.Argument(help="what the model reads", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="a folder, a hub id, or an embedded name")] = "minilm",
    target: Annotated[str | None, typer.Option(help="the decoder's text, for encoder-decoders")] = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    layer: Annotated[int | None, typer.Option("--layer", help="with --head: the map of one head, from 0")] = None,
    head: Annotated[int | None, typer.Option("--head", help="with --layer: the map of one head, from 0")] = None,
    kind: Annotated[KindChoice | None, typer.Option(help="which attention, where there are several")] = None,
    ask: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="WORD WORD", help="rank all heads by what the first word reads of the second"),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", "-n", min=1, help="how many links to list")] = None,
    all_links: Annotated[
        bool, typer.Option("--all-links", help="list links to [CLS], to itself and such, too")
    ] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write one self-contained page instead")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="write a picture of the head, or of all")] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="the same as SVG, which prints at any size")] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write each token's --top links in every head as a table")
    ] = None,
    npz: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write q, k and log-sum-exp, from which all can be had back")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON to stdout instead")] = False,
    pickle: Pickle = False,
) -> None:
    """Show what every attention head of MODEL reads in TEXT.

    Alone: the strongest links of each layer. With --layer and --head: that head's map. With --ask it animal: all heads,
    ranked by how much "it" reads "animal" (a word's second occurrence is word#2). Files may be written together, and
    with --json; each is whole or not there.
    """
    if (layer is None) != (head is None):
        raise InputError("--layer and --head go together; give both, or neither for an overview.")
    if ask is not None and layer is not None:
        raise InputError("--ask ranks the heads of all layers; leave --layer and --head out.")
    files = {"html": html, "png": png, "svg": svg, "parquet": parquet, "npz": npz}
    wanted = {option: path for option, path in files.items() if path is not None}
    if wanted:
        from clearhead.cli.files import check

        check(wanted, asked=ask is not None)

    import clearhead

    lm = clearhead.load(model, pickle=pickle)
    seen = lm.look(text, target, **languages(source_language, target_language))
    chosen = _kinds(seen, kind.value if kind is not None else None, several=layer is None and ask is None)
    if layer is not None and head is not None:
        _check_head(seen, chosen[0], layer, head)
    if wanted:
        from clearhead.cli.files import Chosen, write

        for line in write(wanted, lm, seen, Chosen(tuple(chosen), layer, head, ask, top)):
            print(line, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        from clearhead.cli.as_json import write_json

        write_json(sys.stdout.write, lm, seen, chosen, layer=layer, head=head, ask=ask, top=top, all_links=all_links)
    elif not wanted:
        _draw(lm, seen, chosen, layer, head, ask, top, all_links)


def _draw(
    lm: Readable,
    seen: Look,
    kinds: list[Kind],
    layer: int | None,
    head: int | None,
    ask: tuple[str, str] | None,
    top: int | None,
    all_links: bool,
) -> None:
    from clearhead.cli import views
    from clearhead.cli.terminal import Terminal

    console = Terminal()
    if ask is not None:
        views.asked(console, lm, seen, kinds[0], ask, top or 10)
    elif layer is not None and head is not None:
        views.one_head(console, lm, seen, kinds[0], layer, head, top or 10, all_links)
    else:
        views.overview(console, lm, seen, kinds, top or 3, all_links)


def _kinds(seen: Look, kind: Kind | None, *, several: bool) -> list[Kind]:
    """The kinds to show: the one asked for, or all where `several` may be shown."""
    if kind is not None and kind not in seen.kinds:
        raise OutsideError(f"this model has no {kind!r} attention; choose --kind {' or '.join(seen.kinds)}.")
    if kind is not None:
        return [kind]
    if len(seen.kinds) > 1 and not several:
        raise InputError(f"this model has several kinds of attention; choose --kind {', '.join(seen.kinds)}.")
    return list(seen.kinds)


def _check_head(seen: Look, kind: Kind, layer: int, head: int) -> None:
    layers = seen.n_layers(kind)
    if not 0 <= layer < layers:
        raise OutsideError(f"--layer {layer} is outside the model; choose 0…{layers - 1}.")
    heads = seen.n_heads(kind, layer)
    if not 0 <= head < heads:
        raise OutsideError(f"--head {head} is outside layer {layer}; choose 0…{heads - 1}.")
