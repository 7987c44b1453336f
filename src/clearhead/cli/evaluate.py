"""clearhead evaluate. How good a model is on some data, or a run on what it held out.

--json writes one object: {"model", "task", "scores": [{"name", "value", "note"}], "read", "facts": {…}, "notes": […]}.
Fields may be added.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.given import reads_data
from clearhead.cli.options import HeadClass, Pickle

if TYPE_CHECKING:
    from clearhead.api.measuring import Evaluated
    from clearhead.api.sources import Reading


@reads_data
def evaluate(
    model: Annotated[str, typer.Argument(help="a folder, a hub id or an embedded name; or a run's folder alone")],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA… [KEY=VALUE…]",
            help="files or folders; and changes to how they are read, such as data.encoder.longest=64",
            show_default=False,
        ),
    ] = None,
    *,
    reading: Reading,
    stride: Annotated[
        int | None, typer.Option(help="tokens between windows of a long text; half of the context by itself")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="tokens of a window; as many as the model reads by itself")
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="how a translator writes; as its files say by itself")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON")] = False,
    head: HeadClass = None,
    pickle: Pickle = False,
) -> None:
    """Measure MODEL on DATA: perplexity and bits per byte of a text, accuracy and F1 of labels and tags, BLEU, chrF
    and ROUGE of what is written. What is measured follows from the model's head.

    Data is read by its files' names: text, .jsonl, .csv, .tsv, .parquet, .conll; two text files for a translator. A
    run's folder alone is measured on what the run held out.
    """
    import clearhead

    found = clearhead.evaluate(
        model,
        data or None,
        reading,
        stride=stride,
        context=context,
        num_beams=num_beams,
        head=head,
        pickle=pickle,
    )
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    _show(found)


def _show(found: Evaluated) -> None:
    from rich.table import Table
    from rich.text import Text

    from clearhead.cli.terminal import Terminal

    console = Terminal()
    console.print(Text.assemble((found.model, "bold"), f"  {found.task}"), soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim", show_edge=False)
    table.add_column("measure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("how", overflow="fold", style="dim")
    for score in found.scores:
        table.add_row(Text(score.name), Text(_figure(score.value)), Text(score.note))
    console.print(table)
    console.print()
    console.print(Text(f"{found.read}; {found.facts['seconds']:.1f} s"))
    for note in found.notes:
        console.print(Text(f"note: {note}"))


def _figure(value: float) -> str:
    """Four places of what is below 10, two of what is larger; thousands by commas."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"
