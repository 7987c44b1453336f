"""Readers. Which files a tokenizer's folder may hold, best first, and how each becomes a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from clearhead.errors import TokenizerError
from clearhead.text.backend import translated
from clearhead.text.classes import CLASSES, Format, named
from clearhead.text.files import read_bytes, read_json, read_text
from clearhead.text.languages import NONE
from clearhead.text.vocabularies import (
    Vocabulary,
    from_bytes_bpe,
    from_m2m_100,
    from_marian,
    from_sentencepiece,
    from_wordpiece,
    languages_of,
)

Reader = Callable[[Path, dict[str, Any]], Vocabulary]
"""From a vocabulary file and the folder's config: the pipeline, and the roles that the format itself gives."""


def read_whole(file: Path, config: dict[str, Any]) -> Vocabulary:
    """A tokenizer.json, which holds all but the roles of its tokens and the ways of a translator's class."""
    with translated(f"{file} is no tokenizer that the tokenizers library can read"):
        backend = Backend.from_str(read_text(file))
    row = CLASSES.get(named(config, {}) or "")
    if row is None:
        return Vocabulary(backend=backend, roles={})
    roles = {role: token for role, token in row.special_tokens.items() if f"{role}_token" not in config}
    of_it = backend.token_to_id(str(config.get("src_lang") or row.default)) is not None
    return Vocabulary(backend=backend, roles=roles, languages=languages_of(backend, row, config) if of_it else NONE)


def read_sentencepiece(file: Path, config: dict[str, Any]) -> Vocabulary:
    """A sentencepiece model."""
    return from_sentencepiece(read_bytes(file), config)


def _read_bytes_bpe(file: Path, config: dict[str, Any]) -> Vocabulary:
    vocabulary, merges = _together(file, "vocab.json", "merges.txt")
    return from_bytes_bpe(read_json(vocabulary), read_text(merges), config)


def _read_wordpiece(file: Path, config: dict[str, Any]) -> Vocabulary:
    return from_wordpiece(read_text(file), config)


def _read_m2m_100(file: Path, config: dict[str, Any]) -> Vocabulary:
    files = _together(file, "vocab.json", "sentencepiece.bpe.model")
    found = from_m2m_100(read_bytes(files[1]), read_json(files[0]), config)
    return replace(found, files={file.name: read_bytes(file) for file in files})


def _read_marian(file: Path, config: dict[str, Any]) -> Vocabulary:
    own = ["target_vocab.json"] if config.get("separate_vocabs") else []
    files = _together(file, "vocab.json", "source.spm", "target.spm", *own)
    lists = [read_json(file) for file in files if file.suffix == ".json"]
    found = from_marian(read_bytes(files[1]), read_bytes(files[2]), lists[0], lists[1] if own else None, config)
    return replace(found, files={file.name: read_bytes(file) for file in files})


def _together(file: Path, *names: str) -> list[Path]:
    """These files of the folder, all of which must be there."""
    files = [file.with_name(name) for name in names]
    for needed in files:
        if not needed.is_file():
            raise TokenizerError(f"{needed} is missing; {' and '.join(names)} belong together")
    return files


READERS: dict[str, Reader] = {
    "tokenizer.json": read_whole,
    "tokenizer.model": read_sentencepiece,
    "spiece.model": read_sentencepiece,
    "sentencepiece.bpe.model": read_sentencepiece,
    "vocab.json": _read_bytes_bpe,
    "merges.txt": _read_bytes_bpe,
    "vocab.txt": _read_wordpiece,
    "source.spm": read_sentencepiece,
}
"""Which files are looked for in a folder, best first, and how each is read."""
READERS_BY_SUFFIX: dict[str, Reader] = {
    ".json": read_whole,
    ".model": read_sentencepiece,
    ".spm": read_sentencepiece,
    ".txt": _read_wordpiece,
}
"""How a file of another name is read, where it was named itself."""
FORMATS: dict[Reader, Format] = {
    read_sentencepiece: "sentencepiece",
    _read_bytes_bpe: "bytes-bpe",
    _read_wordpiece: "wordpiece",
}
READERS_BY_CLASS: dict[str, tuple[str, Reader]] = {
    "M2M100Tokenizer": ("sentencepiece.bpe.model", _read_m2m_100),
    "MarianTokenizer": ("source.spm", _read_marian),
}
"""Classes that keep their vocabulary in several files, which come before a tokenizer.json that cannot say the same; and
the file that shows that they are there."""


def reader_for(reader: Reader, folder: Path, config: Mapping[str, Any], name: str | None) -> tuple[Reader, str | None]:
    """The reader for a folder of the class `name`, and that class: None where only the model means it, whose own reads
    other files than this reader's."""
    mark, several = READERS_BY_CLASS.get(name or "", ("", reader))
    if mark and ((folder / mark).is_file() or reader is not read_whole):
        return several, name
    if not config.get("tokenizer_class") and reader in FORMATS:
        row = CLASSES.get(name or "")
        return reader, name if row is not None and row.format == FORMATS[reader] else None
    return reader, name
