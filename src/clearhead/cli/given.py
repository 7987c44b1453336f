"""Options of commands that are given data and no recipe: what to learn or measure, and how the data is read. They are
the settings of `api.sources.Reading`, and are written down here alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

Columns = Annotated[
    str | None, typer.Option(metavar="A,B…", help="the columns of a table that does not name them in its first line")
]
TextColumn = Annotated[str | None, typer.Option("--text", metavar="COLUMN", help="the column of the texts")]

OPTIONS: dict[str, Any] = {
    "task": Annotated[
        str | None,
        typer.Option(
            help="causal-language-model, masked-language-model, sequence-classification, token-classification or "
            "sequence-to-sequence"
        ),
    ],
    "kind": Annotated[
        str | None,
        typer.Option(
            help="how DATA is read, where its name does not say: text-files, text-lines, json-lines, table, conll, "
            "parallel-lines, parquet or dataset"
        ),
    ],
    "columns": Columns,
    "text": TextColumn,
    "label": Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="the column of their labels")],
    "pair": Annotated[
        str | None,
        typer.Option("--pair", metavar="COLUMN", help="the column of second texts, read together with the first"),
    ],
    "tokens": Annotated[str | None, typer.Option("--tokens", metavar="COLUMN", help="the column of lists of words")],
    "tags": Annotated[str | None, typer.Option("--tags", metavar="COLUMN", help="the column of their tags")],
    "source": Annotated[str | None, typer.Option("--source", metavar="COLUMN", help="the column that is translated")],
    "target": Annotated[str | None, typer.Option("--target", metavar="COLUMN", help="the column of translations")],
}


def reads_data(command: Callable[..., None]) -> Callable[..., None]:
    """A command with these options. It is called with `data`, the files, and in the place of its parameter `reading`
    with a Reading of the options and of the KEY=VALUE among the files."""

    @wraps(command)
    def asked(*, data: list[str] | None, **given: Any) -> None:
        from clearhead.api.sources import Reading

        files, changes = divided(data)
        said = {name: given.pop(name) for name in OPTIONS}
        said["columns"] = said["columns"].split(",") if said["columns"] is not None else None
        command(data=files, reading=Reading(changes=changes, **said), **given)

    own = dict(signature(command).parameters)
    command.__annotations__.pop("reading")  # its type is not imported for help
    hints = {**get_type_hints(command, include_extras=True), **OPTIONS}
    names = [name for each in own for name in (OPTIONS if each == "reading" else [each])]
    parameters = [
        Parameter(
            name, Parameter.KEYWORD_ONLY, default=own[name].default if name in own else None, annotation=hints[name]
        )
        for name in names
    ]
    asked.__annotations__ = {name: hints[name] for name in names}
    asked.__signature__ = signature(command).replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    return asked


def divided(arguments: list[str] | None) -> tuple[list[str], list[str]]:
    """Files, and key=value changes."""
    given = arguments or []
    changes = [one for one in given if "=" in one and not Path(one).exists()]
    return [one for one in given if one not in changes], changes
