"""Data by what its files are called, for whoever names files and writes no recipe: which reader, and which columns.

    .txt, and any other name     a document a file; two of them, for a translator, line by line each other's translation
    .jsonl, .ndjson, .json       an object a line
    .csv, .tsv                   a table
    .parquet                     a table, too
    .conll, .bio, .iob, .iob2    words and their tags; so is any other name, where tags are asked for

What is found is given as a recipe's tables, so that it can be shown, changed and saved as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from clearhead.errors import InputError, TrainingError
from clearhead.train.data.rows import Found, Row, Source

Task = Literal[
    "causal-language-model",
    "masked-language-model",
    "sequence-classification",
    "token-classification",
    "sequence-to-sequence",
]
"""What a model does with a text, by the name that a recipe's objective has."""
TASKS: tuple[str, ...] = get_args(Task)

Kind = Literal["text-files", "text-lines", "json-lines", "table", "conll", "parallel-lines", "parquet", "dataset"]
"""How files are read, by the name that a recipe's source has."""
KINDS: tuple[str, ...] = get_args(Kind)

ENDINGS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json-lines"),
    **dict.fromkeys((".csv", ".tsv"), "table"),
    **dict.fromkeys((".conll", ".bio", ".iob", ".iob2"), "conll"),
    ".parquet": "parquet",
}

USUAL = {
    "text": ("text", "sentence", "content", "document", "review", "question"),
    "label": ("label", "labels", "category", "class", "sentiment", "intent"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "pos_tags", "labels"),
    "source": ("source", "src", "input", "article", "document", "question"),
    "target": ("target", "tgt", "output", "summary", "highlights", "answer"),
}
"""What columns are usually called; the first that is there is taken, and that is said."""

Table = dict[str, Any]


def source_table(paths: Sequence[str], task: str | None, kind: str | None, columns: Sequence[str] | None) -> Table:
    """A recipe's `data.source` for these files. Raises InputError where their names do not say how to read them."""
    if not paths:
        raise InputError("no data: name at least one file or folder.")
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind={kind!r} is no kind of data; choose from {', '.join(KINDS)}.")
    kind = kind if kind is not None else _kind(paths, task)
    if columns is not None and kind != "table":
        raise InputError(f"columns are for tables, .csv and .tsv, and this is read as {kind}.")
    if kind == "parallel-lines":
        if len(paths) != 2:
            raise InputError(f"a translation is read from two files, source and target, and {len(paths)} were given.")
        return {"kind": kind, "source": paths[0], "target": paths[1]}
    if kind == "dataset":
        if len(paths) != 1:
            raise InputError(f"one dataset is read at a time, and {len(paths)} were given.")
        return {"kind": kind, "name": paths[0]}
    more = {} if columns is None else {"columns": list(columns)}
    return {"kind": kind, "paths": list(paths), **more}


def _kind(paths: Sequence[str], task: str | None) -> str:
    """What the files' names say, those in folders too."""
    found: dict[str, str] = {}
    for name in paths:
        path = Path(name).expanduser()
        if path.is_dir() and any((path / one).is_file() for one in ("state.json", "dataset_dict.json")):
            return "dataset"
        inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        if not path.exists() and not any(letter in name for letter in "*?["):
            raise TrainingError(f"there is no file or folder {path} (of a dataset on the hub, say --kind dataset).")
        for each in inside:
            if not each.name.startswith("."):
                ending = Path(each.name.removesuffix(".gz")).suffix.lower()
                found.setdefault(ENDINGS.get(ending, "text-files"), each.name)
    if len(found) > 1 and any(Path(name).expanduser().is_dir() for name in paths):
        found.pop("text-files", None)  # a README beside the data
    if len(found) != 1:
        told = ", ".join(f"{name} ({kind})" for kind, name in found.items()) or "nothing"
        raise InputError(f"the data is of several kinds: {told}; name files of one kind, or say which with --kind.")
    [kind] = found
    if kind == "text-files" and task == "token-classification":
        return "conll"
    if kind == "text-files" and task == "sequence-to-sequence":
        return "parallel-lines"
    return kind


def rows(source: Source) -> Iterator[Found]:
    """All rows of a source, each with the place where it is; blank ones are left out."""
    reader = source.open()
    for piece in reader.pieces():
        for found in reader.read(piece):
            if isinstance(found, Found):
                yield found


def first_row(source: Source) -> Row:
    """The first row. Raises TrainingError where there is none."""
    for found in rows(source):
        return found.row
    names = ", ".join(map(str, source.files()[:3])) or "the data"
    raise TrainingError(f"{names}: there is nothing in it.")


def task_of(row: Row) -> Task | None:
    """What a row seems to be for, by its columns: tags for its words, a label, a target; None where it is but text."""
    for wanted, task in (
        (("tokens", "tags"), "token-classification"),
        (("source", "target"), "sequence-to-sequence"),
        (("label",), "sequence-classification"),
    ):
        if all(any(name in row for name in USUAL[role]) for role in wanted):
            return task  # type: ignore[return-value]
    return "sequence-to-sequence" if "translation" in row else None


def encoder_table(task: str, row: Row, named: Mapping[str, str | None]) -> Table:
    """A recipe's `data.encoder` for a task and rows like this one, but for the labels. named: columns that are known.

    Raises InputError where a column cannot be told, naming those that there are.
    """
    roles: tuple[str, ...]
    given = {role: name for role, name in named.items() if name is not None}
    for role, name in given.items():
        if name not in row:
            raise InputError(f"there is no column {name!r} for the {role}; {_columns(row)}.")
    match task:
        case "token-classification":
            roles, kind = ("tokens", "tags"), "tagged"
        case "sequence-classification":
            roles, kind = ("text", "label"), "labelled"
        case "sequence-to-sequence":
            roles, kind = ("source", "target"), "translation"
            if not given and isinstance(row.get("translation"), Mapping):
                return _nested(row["translation"])
        case _:
            roles, kind = ("text",), "text"
    table: Table = {"kind": kind}
    taken = set(given.values())
    for role in roles:
        name = given.get(role) or _found(role, row, task, taken)
        table["column" if kind == "text" else role] = name
        taken.add(name)
    if "pair" in given and kind == "labelled":
        table["pair"] = given["pair"]
    unused = sorted(role for role in given if role not in (*roles, *(("pair",) if kind == "labelled" else ())))
    if unused:
        raise InputError(f"{task} has no {unused[0]}; leave --{unused[0]} out.")
    return table


def _found(role: str, row: Row, task: str, taken: set[str]) -> str:
    for name in USUAL[role]:
        if name in row and name not in taken:
            return name
    texts = [name for name, value in row.items() if isinstance(value, str) and name not in taken]
    if role == "text" and len(texts) == 1:
        return texts[0]
    raise InputError(f"it is not clear which column is the {role} of {task}: {_columns(row)}; name it with --{role}.")


def _nested(both: Mapping[str, Any]) -> Table:
    """The hub's way: one column with a text a language."""
    if len(both) != 2:
        raise InputError(f"the translations are in {', '.join(both)}; name two with --source and --target.")
    source, target = both
    return {"kind": "translation", "nested": "translation", "source": source, "target": target}


def _columns(row: Row) -> str:
    names = [repr(name if len(name) <= 40 else name[:39] + "…") for name in row]
    return f"there are {', '.join(names)} (a table without a line of names is given them by --columns)"
