"""clearhead roles. Which heads have which role: as a table, as JSON, and as one picture of all heads.

--json writes one object, {"clearhead", "schema": 1, "model"} and what `Roles.to_dict` gives:

    kind, layers, heads, first_token, texts, tokens, sentences
    findings       [{"role", "layer", "head", "score", "beside", "detail"}]
    roles          [{"role", "queries", "chance", "needs", "scores", "found"}]
    relations      [{"relation", "direction", "pairs", "distance", "baseline", "needs", "accuracy",
                    "weight", "alike"}]
    coreference    null, or {"pairs", "out_of_reach", "nearest", "chance", "needs", "accuracy", "weight",
                    "alike"}
    notes          what was left out, in words

scores, found, accuracy and weight have a list for each layer, an entry for each head. Fields may be added.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.options import Pickle
from clearhead.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from clearhead.lens.roles.reading import Progress
    from clearhead.lens.roles.report import Roles


class FirstChoice(str, Enum):  # noqa: UP042 — typer below 0.19 shows str subclasses best
    """The ways of `--first-token`."""

    kept = "kept"
    dropped = "dropped"
    renormalised = "renormalised"


class KindChoice(str, Enum):  # noqa: UP042
    """The kinds of attention whose heads have roles."""

    encoder = "encoder"
    decoder = "decoder"


def roles(
    model: Annotated[str, typer.Argument(help="a folder, a hub id, or an embedded name", show_default=False)],
    treebank: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="a CoNLL-U file: relations of grammar, too")
    ] = None,
    coreference: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="a table of pronouns and names, GAP's or your own")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="texts to see habits on, one a line, instead of the treebank's")
    ] = None,
    first_token: Annotated[
        FirstChoice, typer.Option("--first-token", help="how the first token is treated in every score")
    ] = FirstChoice.kept,
    kind: Annotated[KindChoice | None, typer.Option(help="which attention, in an encoder-decoder")] = None,
    sentences: Annotated[
        int, typer.Option(min=1, help="read at most so many sentences, and so many pairs of names")
    ] = 500,
    fewest: Annotated[int, typer.Option(min=1, help="leave out relations with fewer pairs than this")] = 50,
    atlas: Annotated[
        Path | None, typer.Option(metavar="FILE", help="where the picture goes, .png, .svg or .pdf [MODEL-roles.png]")
    ] = None,
    no_atlas: Annotated[bool, typer.Option("--no-atlas", help="draw no picture")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON to stdout instead of the table")] = False,
    pickle: Pickle = False,
) -> None:
    """Say which heads of MODEL have which role, in a table and in a picture of all heads.

    Habits show on any text: the previous token, a fixed distance, the first token, separators, copies, rare words.
    Relations of grammar need a treebank, and coreference a table of pairs.
    """
    if atlas is not None and no_atlas:
        raise InputError("--atlas and --no-atlas contradict each other; give one of them.")
    where = atlas if atlas is not None or no_atlas else Path(f"{_file_name(model)}-roles.png")
    where, missing = _drawable(where, asked=atlas is not None)
    for path in (*(treebank or ()), *(coreference or ()), *([texts] if texts is not None else ())):
        if path.is_dir():
            raise InputError(f"{'an empty name' if path == Path() else path} is a folder; name a file in it.")
        if not path.exists():
            raise InputError(f"there is no file {path}.")

    import clearhead
    from clearhead.lens.roles.finding import find

    lm = clearhead.load(model, pickle=pickle)
    with _progress() as progress:
        found = find(
            lm,
            texts=texts,
            treebank=treebank or (),
            coreference=coreference or (),
            first_token=first_token.value,
            kind=kind.value if kind is not None else None,
            limit=sentences,
            fewest=fewest,
            progress=progress,
        )
    if where is not None:
        from clearhead.lens.roles.atlas import draw

        draw(found, where, lm.name)
    if as_json:
        facts = {"clearhead": clearhead.__version__, "schema": 1, "model": lm.name, **found.to_dict()}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        _print(found, lm.name, sentences)
    said = f"{where}: the atlas, all {found.layers * found.heads} heads." if where is not None else missing
    if said:
        print(said, file=sys.stderr if as_json else sys.stdout)


def _file_name(model: str) -> str:
    return Path(model).name.replace(" ", "-") or "model"


def _drawable(path: Path | None, *, asked: bool) -> tuple[Path | None, str]:
    """Where the picture goes, or None and a line that says why there is none."""
    if path is None:
        return None, ""
    from clearhead.lens.roles.atlas import check_path

    try:
        check_path(path)
    except MissingDependencyError as problem:
        if asked:
            raise
        return None, f"No atlas: {problem}"
    return path, ""


@contextmanager
def _progress() -> Iterator[Progress]:
    """What is being read, on stderr, where someone watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, object] = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=of)
            bars.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield tell


def _print(found: Roles, name: str, sentences: int) -> None:
    from rich.text import Text

    from clearhead.cli.terminal import Terminal
    from clearhead.lens.roles.report import RELATIONS, SUMMARY

    console = Terminal()
    console.print(Text(name, "bold").append(f" · {found.heading()}", "not bold dim"))
    console.print()
    console.print(Text("Roles", "bold").append("  the mean weight given to what the role reads", "not bold dim"))
    console.print(_table(SUMMARY, found.summary(), ("score", "beside")))
    console.print(
        Text(
            "beside: what reading everything alike would score; of coreference, how often the nearest name is right. "
            "A head has a role from 0.5 (positional 0.9), and twice what stands beside.",
            "dim",
        )
    )
    if found.relations:
        console.print()
        what = "  how often a head reads the right word most, and how often a fixed distance would"
        console.print(Text("Relations", "bold").append(what, "not bold dim"))
        console.print(_table(RELATIONS, found.relation_lines(), ("pairs", "right", "fixed", "at")))
        console.print(
            Text(
                "found: right for half of the pairs, 10 points and 4 standard errors above the distance, with twice "
                "the weight that reading everything alike would give.",
                "dim",
            )
        )
    for note in found.notes:
        console.print(Text(note, "dim"))


def _table(names: list[str], lines: list[list[str]], numbers: tuple[str, ...]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=name != names[-1])
    for line in lines:
        table.add_row(*(Text(word) for word in line))
    return table
