"""Options of commands that are given data and no recipe: what to learn or measure, and how the data is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TaskName = Annotated[
    str | None,
    typer.Option(
        help="causal-language-model, masked-language-model, sequence-classification, token-classification or "
        "sequence-to-sequence"
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="how DATA is read, where its name does not say: text-files, text-lines, json-lines, table, conll, "
        "parallel-lines, parquet or dataset"
    ),
]
Columns = Annotated[
    str | None, typer.Option(metavar="A,B…", help="the columns of a table that does not name them in its first line")
]
TextColumn = Annotated[str | None, typer.Option("--text", metavar="COLUMN", help="the column of the texts")]
LabelColumn = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="the column of their labels")]
PairColumn = Annotated[
    str | None,
    typer.Option("--pair", metavar="COLUMN", help="the column of second texts, read together with the first"),
]
SourceColumn = Annotated[str | None, typer.Option("--source", metavar="COLUMN", help="the column that is translated")]
TargetColumn = Annotated[str | None, typer.Option("--target", metavar="COLUMN", help="the column of translations")]


def divided(arguments: list[str] | None) -> tuple[list[str], list[str]]:
    """Files, and key=value changes."""
    given = arguments or []
    changes = [one for one in given if "=" in one and not Path(one).exists()]
    return [one for one in given if one not in changes], changes
