"""Files. What `clearhead look` writes beside the terminal: a page, pictures, a table, an archive; a line about each.

Paths are checked, and what is missing is told, before the model runs; a file takes its place whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from clearhead.errors import InputError, MissingDependencyError
from clearhead.lens.counting import counted
from clearhead.lens.look import Look
from clearhead.lens.seen import Kind
from clearhead.lens.ways_out.outputs import check_ending, check_path, in_bytes
from clearhead.serve import still
from clearhead.serve.facts import Readable
from clearhead.serve.still import Opening


@dataclass(frozen=True)
class Chosen:
    """What of the look is written: these kinds, one head or all, and, of a page, the link that it opens on."""

    kinds: tuple[Kind, ...]
    layer: int | None = None
    head: int | None = None
    ask: tuple[str, str] | None = None
    top: int | None = None

    @property
    def kind(self) -> Kind:
        """The kind of the head, or of the picture."""
        return self.kinds[0]


def check(wanted: dict[str, Path], *, asked: bool) -> None:
    """Say no before the model has run for nothing. `asked`: --ask is given, which only a page can open on."""
    for option, path in wanted.items():
        what, endings, library = KINDS_OF_FILES[option]
        if library is not None and find_spec(library[0]) is None:
            raise MissingDependencyError(f"--{option} needs {library[0]}: pip install 'clearhead[{library[1]}]'")
        check_path(path, what, f"look.{option}")
        same = [other for other in wanted if other != option and wanted[other].resolve() == path.resolve()]
        if same:
            raise InputError(f"--{option} and --{same[0]} name one file, {path}; give each its own.")
        check_ending(path, endings, what)
        if asked and option != "html":
            raise InputError(
                f"--ask ranks heads, and --{option} writes what they read; choose one with --layer and --head, or "
                "leave --ask out for all of them."
            )


def write(wanted: dict[str, Path], lm: Readable, seen: Look, chosen: Chosen) -> Iterator[str]:
    """Write the files, and say of each in a line what is in it and how large it is."""
    if len(chosen.kinds) > 1 and wanted.keys() & {"png", "svg"}:
        kinds = ", ".join(chosen.kinds)
        raise InputError(f"a picture shows the heads of one kind of attention; choose --kind {kinds}.")
    for option, path in wanted.items():
        said = WRITERS[option](path, lm, seen, chosen)
        yield f"{path}: {said}, {in_bytes(path.stat().st_size)}" + (
            "; open it in any browser." if option == "html" else "."
        )


# ── one writer each ──────────────────────────────────────────────────────────────────────────────────────────────


def _page(path: Path, lm: Readable, seen: Look, chosen: Chosen) -> str:
    """The page, open on the head asked for, or on the last layer's strongest link."""
    kind = chosen.kind
    still.write(path, lm, seen, _opening(seen, chosen))
    return f"{counted(len(seen.tokens), 'token')}, {seen.seen.shape_of(kind)}"


def _opening(seen: Look, chosen: Chosen) -> Opening:
    from clearhead.cli.links import LeftOut, best_of_layer, strongest

    kind, layer, head, ask = chosen.kind, chosen.layer, chosen.head, chosen.ask
    out = LeftOut.of(seen, kind)
    if ask is not None:
        link = seen.ask(*ask, kind=kind)[0]
        both = seen.target is not None
        query = seen.find(ask[0], target=both and kind != "encoder")[0]
        key = seen.find(ask[1], target=both and kind == "decoder")[0]
        return Opening(kind, link.layer, link.head, query, key)
    if layer is not None and head is not None:
        found = strongest(seen.seen.call(layer, kind), [head], out, 1)[head]
        return Opening(kind, layer, head, *((found[0].query, found[0].key) if found else ()))
    last = seen.n_layers(kind) - 1
    found = best_of_layer(seen, kind, last, out, 1)
    return Opening(kind, *found[0][1:5]) if found else Opening(kind, last, 0)


def _picture(path: Path, lm: Readable, seen: Look, chosen: Chosen) -> str:
    from clearhead.lens.ways_out.pictures import write_picture

    return write_picture(path, seen, kind=chosen.kind, layer=chosen.layer, head=chosen.head, model=lm.name)


def _table(path: Path, lm: Readable, seen: Look, chosen: Chosen) -> str:
    from clearhead.lens.ways_out.tables import write_parquet

    k = chosen.top or 5
    kind = chosen.kind if len(chosen.kinds) < len(seen.kinds) or chosen.layer is not None else None
    lines = write_parquet(path, seen, k=k, kind=kind, layer=chosen.layer, head=chosen.head)
    most = "the one" if k == 1 else f"the {k}"
    return f"{counted(lines, 'link')}, {most} that each token reads most in each head"


def _archive(path: Path, lm: Readable, seen: Look, chosen: Chosen) -> str:
    from clearhead.lens.ways_out.archive import write_npz

    if chosen.layer is not None and chosen.head is not None:
        m = seen.map(chosen.layer, chosen.head, chosen.kind)
        write_npz(path, m)
        return f"q, k and log-sum-exp of the {m.name}"
    write_npz(path, seen)
    return "q, k and log-sum-exp of every head"


WRITERS: dict[str, Callable[[Path, Readable, Look, Chosen], str]] = {
    "html": _page,
    "png": _picture,
    "svg": _picture,
    "parquet": _table,
    "npz": _archive,
}

KINDS_OF_FILES: dict[str, tuple[str, tuple[str, ...], tuple[str, str] | None]] = {
    "html": ("page", ("html", "htm"), None),
    "png": ("PNG picture", ("png",), ("matplotlib", "plot")),
    "svg": ("SVG picture", ("svg",), ("matplotlib", "plot")),
    "parquet": ("Parquet table", ("parquet", "pq"), ("pyarrow", "parquet")),
    "npz": ("numpy archive", ("npz",), None),
}
"""Of each option: what it writes, how its file must end, and the library it needs with the extra that brings it."""
