"""clearhead tokenizer. Learn one from texts (`train`), or see what one makes of a text (`show`).

`show --json` writes a line for each text: {"text", "tokens": [{"id", "token", "label", "bytes", "start", "end",
"special", "unknown"}], "decoded"}; bytes are in hexadecimal. Fields may be added.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.given import Columns, TextColumn
from clearhead.errors import InputError, TokenizerError
from clearhead.lens.counting import counted

if TYPE_CHECKING:
    from clearhead.text import Encoding, Tokenizer

MEASURED = 1_000_000
"""So many bytes of the texts are encoded to tell how long a token is."""


def train(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES…", help="texts, .jsonl, .csv, .tsv or .parquet; or folders", show_default=False),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="where it is written", show_default=False)],
    kind: Annotated[
        str, typer.Option(help="byte-bpe, bpe, unigram, wordpiece, character or byte: how pieces are chosen")
    ] = "byte-bpe",
    vocab_size: Annotated[int | None, typer.Option(help="at most so many tokens; character and byte need none")] = None,
    special: Annotated[
        str | None, typer.Option(metavar="A,B…", help="special tokens, which get the first ids: '<pad>,<eos>'")
    ] = None,
    columns: Columns = None,
    text: TextColumn = None,
) -> None:
    """Learn a tokenizer from the texts in FILES, and write it as a folder that transformers reads, too.

    byte-bpe writes any text; bpe, unigram, wordpiece and character know the characters that they have seen.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already, and not empty; give --out another folder.")
    from clearhead.text import KINDS, Tokenizer

    if kind not in KINDS:
        from difflib import get_close_matches

        near = get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(KINDS)}."
        raise InputError(f"--kind {kind} is no kind of tokenizer; {hint}")
    begun = time.perf_counter()
    read = _Texts(files, columns.split(",") if columns is not None else None, text)
    names = [one.strip() for one in special.split(",") if one.strip()] if special is not None else None
    learned = Tokenizer.train(read, kind=kind, vocab_size=vocab_size, special_tokens=names)  # type: ignore[arg-type]
    learned.save(out)
    if not read.n:  # bytes are known without a text
        for _ in read:
            pass
    sample = read.sample
    n_tokens = sum(len(learned.encode_ids(one, special=False)) for one in sample)
    n_bytes = sum(len(one.encode()) for one in sample)
    what = f"{learned.vocab_size:,} tokens ({kind}) from {counted(read.n, 'text')}, {read.bytes:,} bytes"
    print(f"{what}, in {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    share = "them" if n_bytes == read.bytes else f"the first {n_bytes:,} bytes of them"
    print(f"on {share} a token is {n_bytes / max(1, n_tokens):.2f} bytes long", file=sys.stderr)
    if vocab_size is not None and learned.vocab_size < vocab_size:
        print(f"note: the texts have no more than {learned.vocab_size:,} pieces to learn", file=sys.stderr)
    print(out)


class _Texts:
    """The texts of files, one after another, counted as they are read; the first ones are kept as a sample."""

    def __init__(self, files: list[str], columns: list[str] | None, text: str | None) -> None:
        from clearhead.api import sources
        from clearhead.api.recipe import Data
        from clearhead.train.recipe import filled

        table = sources.source_table(files, sources.Reading(columns=columns))
        self._source = filled(Data, {"source": table, "encoder": {"kind": "text"}}, "data").source
        first = sources.first_row(self._source)
        if text is not None and text not in first:
            raise InputError(f"there is no column {text!r}; there are {', '.join(map(repr, first))}.")
        known = [name for name in sources.USUAL["text"] if name in first]
        self._columns = [text] if text is not None else known[:1] or [name for name in first if name != "tags"]
        if self._columns != ["text"]:
            print(f"note: learning from {', '.join(map(repr, self._columns))}", file=sys.stderr)
        self.n, self.bytes, self.sample = 0, 0, list[str]()

    def __iter__(self) -> Iterator[str]:
        from clearhead.api import sources

        for found in sources.rows(self._source):
            for column in self._columns:
                value = found.row.get(column)
                words = isinstance(value, list) and all(isinstance(one, str) for one in value)
                text = " ".join(value) if words and isinstance(value, list) else value
                if isinstance(text, str) and text:
                    if self.bytes < MEASURED:
                        self.sample.append(text[:MEASURED])
                    self.n, self.bytes = self.n + 1, self.bytes + len(text.encode("utf-8", "replace"))
                    yield text


def show(
    model: Annotated[str, typer.Argument(help="a tokenizer's or a model's folder, a hub id or an embedded name")],
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="what to cut into tokens", show_default=False)],
    bare: Annotated[bool, typer.Option("--bare", help="without the special tokens around a text")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="write JSON, a line for each text")] = False,
) -> None:
    """Show what MODEL's tokenizer makes of each TEXT: its pieces, their ids and bytes, and what is unknown to it."""
    tokenizer = _tokenizer(model)
    found = [tokenizer.encode(text, special=not bare) for text in texts]
    if as_json:
        for text, encoding in zip(texts, found, strict=True):
            told = {"text": text, "tokens": _rows(tokenizer, encoding), "decoded": tokenizer.decode(encoding.ids)}
            print(json.dumps(told, ensure_ascii=False))
        return
    for number, (text, encoding) in enumerate(zip(texts, found, strict=True)):
        if number:
            print()
        _show(tokenizer, text, encoding)


def _tokenizer(name: str) -> Tokenizer:
    """A folder's own, or a model's, without its weights."""
    from clearhead.text import Tokenizer

    path = Path(name).expanduser()
    if path.exists() and not (path / "config.json").is_file():
        return Tokenizer.load(path)
    from clearhead.checkpoint.finding import find

    found = find(name).tokenizer()
    if found is None:
        raise TokenizerError(f"{name} has no tokenizer beside its weights.")
    return found


def _rows(tokenizer: Tokenizer, encoding: Encoding) -> list[dict[str, object]]:
    return [
        {
            "id": id,
            "token": token,
            "label": label,
            "bytes": "" if special else tokenizer.bytes_of(id).hex(),
            "start": start,
            "end": end,
            "special": special,
            "unknown": id == tokenizer.unk_id,
        }
        for id, token, label, (start, end), special in zip(
            encoding.ids, encoding.tokens, encoding.labels, encoding.offsets, encoding.special, strict=True
        )
    ]


def _show(tokenizer: Tokenizer, text: str, encoding: Encoding) -> None:
    from rich.table import Table
    from rich.text import Text

    from clearhead.cli.terminal import Terminal

    console = Terminal()
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim", show_edge=False)
    for name, side in (("", "right"), ("piece", "left"), ("id", "right"), ("bytes", "left"), ("of the text", "left")):
        table.add_column(name, justify=side, no_wrap=name != "bytes")  # type: ignore[arg-type]
    for number, row in enumerate(_rows(tokenizer, encoding)):
        special, unknown = bool(row["special"]), bool(row["unknown"])
        what = "special" if special else "unknown: " if unknown else ""
        part = "" if special else repr(text[encoding.offsets[number][0] : encoding.offsets[number][1]])
        raw = "" if special or unknown else bytes.fromhex(str(row["bytes"])).hex(" ")
        style = "dim" if special else "bold red" if unknown else ""
        cells = str(number), _visible(str(row["label"])), str(row["id"]), raw, what + part
        table.add_row(*(Text(cell, style) for cell in cells))
    console.print(table)
    own = [id for id, special in zip(encoding.ids, encoding.special, strict=True) if not special]
    n_bytes, n_unknown = len(text.encode("utf-8", "replace")), sum(id == tokenizer.unk_id for id in own)
    length = f", {n_bytes / len(own):.2f} a token" if own else ""
    print(f"{counted(len(own), 'token')} of {tokenizer.vocab_size:,}, {counted(n_bytes, 'byte')}{length}")
    if n_unknown:
        print(f"note: {counted(n_unknown, 'token')} unknown to this tokenizer: what was there cannot be told from it")
    decoded = tokenizer.decode(encoding.ids)
    if decoded != text:
        print(f"note: read back it is {decoded!r}, which is not what was given")


def _visible(label: str) -> str:
    """A piece as it can be seen: blanks as ␣, line ends as ⏎."""
    return "".join(
        "␣" if one == " " else "⏎" if one == "\n" else one if one.isprintable() else repr(one)[1:-1] for one in label
    )


tokenizer = {"train": train, "show": show}
"""The commands of this command."""
