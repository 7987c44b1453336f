"""Data by what its files are called, for whoever names files and writes no recipe: which reader, and which columns.

    .txt, and any other name     a document a file; two of them, for a translator, line by line each other's translation
    .jsonl, .ndjson, .json       an object a line
    .csv, .tsv                   a table
    .parquet                     a table, too
    .conll, .bio, .iob, .iob2    words and their tags; so is any other name, where tags are asked for

What is found is given as a recipe's tables, so that it can be shown, changed and saved as one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from clearhead.errors import ClearheadError, InputError, TrainingError
from clearhead.train.data import files
from clearhead.train.data.encoders import Encoder
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

ROLES = ("text", "label", "pair", "tokens", "tags", "source", "target")
"""What a column may hold."""

NAMED: dict[str, Task] = {
    "label": "sequence-classification",
    "tags": "token-classification",
    "target": "sequence-to-sequence",
}
"""What it is for, where such a column is named."""

Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How data is read that no recipe describes; what is not said is found out.

    task: what for, by the name that a recipe's objective has. kind, columns: how files are read, and a table's columns
    where it does not name them. text, label, pair, tokens, tags, source, target: the columns that hold them, unless
    they are called so. changes: more settings, such as "data.source.prefix=en:" or "data.encoder.longest=64".
    """

    task: str | None = None
    kind: str | None = None
    columns: Sequence[str] | None = None
    text: str | None = None
    label: str | None = None
    pair: str | None = None
    tokens: str | None = None
    tags: str | None = None
    source: str | None = None
    target: str | None = None
    changes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, known, what in (("task", TASKS, "task"), ("kind", KINDS, "kind of data")):
            if (asked := getattr(self, name)) is not None and asked not in known:
                near = get_close_matches(str(asked), known, n=1, cutoff=0.3)
                hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
                raise InputError(f"{name}={asked!r} is no {what}; {hint}")
        for name in ("columns", "changes"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"{name}={getattr(self, name)!r} should be a list of texts.")

    @classmethod
    def of(cls, reading: Reading | None, how: Mapping[str, Any]) -> Reading:
        """What is said as a whole, with single settings by name over it. Raises InputError for a name that is none."""
        known = [each.name for each in fields(cls)]
        if strange := [name for name in how if name not in known]:
            near = get_close_matches(strange[0], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
            raise InputError(f"{strange[0]} is no setting of how data is read; {hint}")
        return replace(reading if reading is not None else cls(), **how)

    @property
    def roles(self) -> dict[str, str]:
        """The columns that are named, by what they hold."""
        named = {role: getattr(self, role) for role in ROLES}
        return {role: name for role, name in named.items() if name is not None}

    @property
    def said(self) -> list[str]:
        """What of all this was said."""
        one_by_one = [each.name for each in fields(self) if each.name != "changes"]
        return [*(name for name in one_by_one if getattr(self, name) is not None), *self.changes]


def source_table(paths: Sequence[str], reading: Reading) -> Table:
    """A recipe's `data.source` for these files. Raises InputError where their names do not say how to read them."""
    if not paths:
        raise InputError("no data: name at least one file or folder.")
    kind, columns = reading.kind if reading.kind is not None else _kind(paths, reading.task), reading.columns
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
                ending = Path(files.unpacked_name(each)).suffix.lower()
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


def texts(source: Source, encoder: Encoder) -> Iterator[str]:
    """What the encoder reads of a source, in its order. Raises TrainingError, with the place of the row."""
    for found in rows(source):
        try:
            yield from encoder.texts(found.row)
        except ClearheadError as error:
            raise found.refused(error) from error


def first_row(source: Source) -> Row:
    """The first row. Raises TrainingError where there is none."""
    for found in rows(source):
        return found.row
    names = ", ".join(map(str, source.files()[:3])) or "the data"
    raise TrainingError(f"{names}: there is nothing in it.")


def task_of(row: Row, given: Collection[str] = ()) -> Task | None:
    """What a row seems to be for, by its columns: tags for its words, a label, a target; None where it is but text.
    given: what columns were named for; a label or a target is one whatever its column is called."""
    for role, task in NAMED.items():
        if role in given:
            return task
    for wanted, task in (
        (("tokens", "tags"), "token-classification"),
        (("source", "target"), "sequence-to-sequence"),
        (("label",), "sequence-classification"),
    ):
        if all(any(name in row for name in USUAL[role]) for role in wanted):
            return task
    return "sequence-to-sequence" if "translation" in row else None


def encoder_table(task: str, row: Row, given: Mapping[str, str]) -> Table:
    """A recipe's `data.encoder` for a task and rows like this one, but for the labels. given: columns that are known.

    Raises InputError where a column cannot be told, naming those that there are.
    """
    roles: tuple[str, ...]
    both = row.get("translation")
    if task == "sequence-to-sequence" and isinstance(both, Mapping) and not row.keys() & set(given.values()):
        return _nested(both, given)
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


def _nested(both: Mapping[str, Any], given: Mapping[str, str]) -> Table:
    """The hub's way: one column with a text a language. Of two the first is translated, unless it is said otherwise."""
    strange = [name for role, name in given.items() if name not in both or role not in ("source", "target")]
    others, missing = [language for language in both if language not in given.values()], 2 - len(given)
    if strange or (missing and len(others) != missing):
        raise InputError(f"the translations are in {', '.join(both)}; name two of them with --source and --target.")
    source = given["source"] if "source" in given else others.pop(0)
    target = given["target"] if "target" in given else others.pop(0)
    return {"kind": "translation", "nested": "translation", "source": source, "target": target}


def _columns(row: Row) -> str:
    names = [repr(name if len(name) <= 40 else name[:39] + "…") for name in row]
    return f"there are {', '.join(names)} (a table without a line of names is given them by --columns)"
