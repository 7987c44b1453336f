"""A source: where a checkpoint was found, read so far that a model can be filled from it, and no further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clearhead.checkpoint import families
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.files import INDEX, SINGLE, SafetensorsFolder, read_bytes, read_json
from clearhead.checkpoint.formats.gguf import read_gguf
from clearhead.checkpoint.formats.llama2c import read_llama2c
from clearhead.checkpoint.formats.meta import PARAMS, SLICES, is_meta, read_meta
from clearhead.checkpoint.formats.parts import Said
from clearhead.checkpoint.formats.torch_bin import BIN, BIN_INDEX, is_pickle, read_bin, read_file, refuse_pickle
from clearhead.checkpoint.report import Account
from clearhead.checkpoint.sentence import Sentence, read_sentence
from clearhead.checkpoint.transfer import Tensors
from clearhead.errors import CheckpointError, TokenizerError
from clearhead.text.ggml import load_ggml, unreadable
from clearhead.text.llama2c import load_llama2c
from clearhead.text.readers import READERS
from clearhead.text.tiktoken import is_tiktoken, load_tiktoken
from clearhead.text.tokenizer import Tokenizer
from clearhead.text.vocabularies import from_sentencepiece

CONFIG = "config.json"
GENERATION = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint before its model is built.

    keys: its config as the file has it, or, of another format, as a config.json would. exports_as: the family that it
    is written back as. dtype: what its weights are held in unless the caller says; None is the files' own. accounts:
    what became of the keys of another format, and `notes` on it.
    """

    name: str
    where: str
    family: Family
    keys: dict[str, Any]
    tensors: Tensors
    tokenizer: Callable[[], Tokenizer | None]
    exports_as: str
    generation: dict[str, Any] | None = None
    sentence: Sentence | None = None
    dtype: torch.dtype | None = None
    accounts: tuple[Account, ...] = ()
    notes: tuple[str, ...] = ()


def from_folder(folder: Path, name: str, *, pickle: bool = False) -> Source:
    """The checkpoint in a folder. Raises CheckpointError (or its kin) where it is not one that we can read."""
    if (folder / CONFIG).is_file():
        return _hugging_face(folder, name, lambda: _weights(folder, pickle=pickle))
    if is_meta(folder):
        said, tensors = read_meta(folder, pickle=pickle)
        return _other(said, name, str(folder / PARAMS), tensors, lambda: _meta_tokenizer(folder))
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return from_file(files[0], name)
    if files:
        raise CheckpointError(f"{folder} has {len(files)} GGUF files; name one of them, such as {files[0]}.")
    if (folder / "run.json").is_file():
        made = (folder / "model" / CONFIG).is_file()
        there = (
            f"its model is {folder / 'model'}" if made else f"clearhead train --resume {folder} goes on to its model"
        )
        raise CheckpointError(f"{folder} is the folder of a training run; {there}.")
    raise CheckpointError(
        f"{folder} has no {CONFIG}, no {PARAMS} with consolidated.*.pth and no GGUF file; it is not a model's folder."
    )


def from_file(path: Path, name: str, *, pickle: bool = False) -> Source:
    """The checkpoint in a file: GGUF, llama2.c's .bin, or weights that have their config.json beside them."""
    folder, beside = path.parent, (path.parent / CONFIG).is_file()
    if path.suffix == ".gguf":
        said, parts, metadata = read_gguf(path)
        reason = unreadable(metadata)
        notes = () if reason is None else (f"{path.name} was loaded without its tokenizer: {reason}",)
        return _other(said, name, str(path), parts, lambda: load_ggml(metadata), notes)
    if path.suffix == ".safetensors" and beside:
        return _hugging_face(folder, name, lambda: SafetensorsFolder.of_file(path))
    if path.match(SLICES) and is_meta(folder):
        return from_folder(folder, name, pickle=pickle)
    if path.suffix in (".bin", ".pt", ".pth") and is_pickle(path):
        if not pickle:
            raise refuse_pickle(path)
        if beside:
            return _hugging_face(folder, name, lambda: read_file(path))
    elif path.suffix == ".bin":
        said, parts = read_llama2c(path)
        return _other(said, name, str(path), parts, lambda: _vocabulary_beside(path, said.keys["vocab_size"]))
    raise CheckpointError(
        f"{path} is a file of no model, or has no {CONFIG} beside it; name a model's folder, a .gguf file, llama2.c's "
        f".bin, or a weights file beside its {CONFIG}."
    )


def _hugging_face(folder: Path, name: str, weights: Callable[[], Tensors]) -> Source:
    """A Hugging Face folder, with these weights."""
    keys = read_json(folder / CONFIG)
    family = families.family(keys.get("model_type"), str(folder / CONFIG))
    return Source(
        name=name,
        where=str(folder / CONFIG),
        family=family,
        keys=keys,
        tensors=weights(),
        tokenizer=lambda: _tokenizer(folder),
        exports_as=family.model_type,
        generation=read_json(folder / GENERATION) if (folder / GENERATION).is_file() else None,
        sentence=read_sentence(folder),
    )


def _other(
    said: Said,
    name: str,
    where: str,
    tensors: Tensors,
    tokenizer: Callable[[], Tokenizer | None],
    notes: tuple[str, ...] = (),
) -> Source:
    """A checkpoint of another format."""
    family = families.family(said.keys["model_type"], where)
    return Source(
        name=name,
        where=where,
        family=family,
        keys=said.keys,
        tensors=tensors,
        tokenizer=tokenizer,
        exports_as=family.model_type,
        accounts=said.accounts,
        notes=(*said.notes, *notes),
    )


def _weights(folder: Path, *, pickle: bool) -> Tensors:
    """A folder's weights: safetensors, or else the old pickles, if they were asked for."""
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        return SafetensorsFolder.of(folder)
    if (folder / BIN).is_file() or (folder / BIN_INDEX).is_file():
        return read_bin(folder, pickle=pickle)
    raise CheckpointError(
        f"{folder} has no {SINGLE}, no {INDEX} and no {BIN}; it holds no weights that we read"
        + ("." if pickle else "; of a hub id, pickle=True (--pickle) also fetches weights that are a pickle.")
    )


def _tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer, or None where it has no file of one. Raises TokenizerError for one that is damaged."""
    held = any((folder / name).is_file() for name in READERS) or any(folder.glob("*.model"))
    return Tokenizer.load(folder) if held else None


def _meta_tokenizer(folder: Path) -> Tokenizer | None:
    """Meta's tokenizer.model: sentencepiece, or, from Llama 3 on, a list of byte tokens."""
    path = folder / "tokenizer.model"
    if not path.is_file() or (folder / "tokenizer.json").is_file():
        return _tokenizer(folder)
    if is_tiktoken(path):
        return load_tiktoken(path)
    found = from_sentencepiece(read_bytes(path), {"tokenizer_class": "LlamaTokenizer"})
    named: dict[str, Any] = {f"{role}_token": token for role, token in found.roles.items()}
    return Tokenizer.from_backend(found.backend, **named)


def _vocabulary_beside(path: Path, size: int) -> Tokenizer | None:
    """llama2.c's vocabulary for a model with so many tokens, tok512.bin or tokenizer.bin; else a tokenizer's file."""
    for name in (f"tok{size}.bin", "tokenizer.bin"):
        if (path.parent / name).is_file():
            tokenizer = load_llama2c(path.parent / name)
            if tokenizer.vocab_size != size:
                raise TokenizerError(
                    f"{path.parent / name} has {tokenizer.vocab_size} tokens and {path.name} has {size}; it is another "
                    f"model's: put the right one beside it, as tok{size}.bin."
                )
            return tokenizer
    return _tokenizer(path.parent)
