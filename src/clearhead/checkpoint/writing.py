"""Writing. A folder appears whole or not at all: written beside its place, brought to the disk, then renamed."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from clearhead._disk import sync_folder
from clearhead.checkpoint.files import INDEX, SAFETENSORS_DTYPES, SINGLE, read_json
from clearhead.checkpoint.transfer import Outgoing
from clearhead.errors import CheckpointError

_CODES = {dtype: code for code, (_, dtype) in SAFETENSORS_DTYPES.items() if dtype is not None}
_CONFIG = "config.json"
_OURS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|(target_)?vocab|modules|sentence_bert_config"
    r"|config_sentence_transformers|model\.safetensors\.index)\.json|(source|target)\.spm|sentencepiece\.bpe\.model"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|1_Pooling/config\.json"
)
"""What a folder may hold to be overwritten: the files that an export writes, by their full names."""


def resolved(target: str | Path) -> Path:
    """The full path, with ~ and links followed. Raises CheckpointError for one that no folder can have."""
    if not isinstance(target, str | Path) or not str(target):
        raise CheckpointError(f"{target!r} names no folder; give its path.")
    try:
        found = Path(target).expanduser().resolve()
        os.fsencode(found)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{str(target)!r} is no path that can be written to ({error}); name another.") from None
    return found


@contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes the name `target` when the block ends well, and is removed when it does not.

    target: a resolved path. Raises CheckpointError where it holds something: without `overwrite` anything at all, with
    it what is not a model's folder, or a file that no export writes.
    """
    try:
        _check_free(target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = _sibling(target, "tmp")
        work.mkdir()
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error.strerror or error}.") from None
    try:
        yield work
        for folder in (*(path for path in work.rglob("*") if path.is_dir()), work):
            sync_folder(folder)
        _check_free(target, overwrite)  # again: writing takes its time, and others write too
        _rename(work, target)
        sync_folder(target.parent)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_free(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target} is a file; name a folder that is new or empty.")
    held = sorted(path for path in target.iterdir())
    if held and not overwrite:
        raise CheckpointError(
            f"{target} is not empty (it holds {held[0].name}); name another, or allow it: overwrite=True, "
            "--overwrite on the command line."
        )
    for path in (*held, *(target / "1_Pooling").glob("*")):
        name = path.relative_to(target).as_posix()
        if not (path.is_file() and _OURS.fullmatch(name)) and not (name == "1_Pooling" and path.is_dir()):
            raise CheckpointError(f"{target} holds {name}, which no export writes; name another folder.")
    if held and not ((target / _CONFIG).is_file() and isinstance(read_json(target / _CONFIG).get("model_type"), str)):
        raise CheckpointError(
            f"{target} holds {held[0].name} and no {_CONFIG} with a model_type, so no export wrote it; name another."
        )


def _rename(work: Path, target: Path) -> None:
    """Put the new folder in the place of the old one; the old is gone only when the new stands."""
    if not target.exists() or not any(target.iterdir()):
        os.replace(work, target)
        return
    old = _sibling(target, "old")
    os.replace(target, old)
    try:
        os.replace(work, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sibling(target: Path, kind: str) -> Path:
    return target.parent / f".{target.name}.{secrets.token_hex(4)}.{kind}"


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """JSON, indented, with sorted keys, brought to the disk."""
    path.parent.mkdir(exist_ok=True)
    _write(path, [(json.dumps(value, indent=2, sort_keys=True) + "\n").encode()])


def _write(path: Path, parts: Any) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def write_safetensors(folder: Path, tensors: Sequence[Outgoing], *, most: int) -> None:
    """The tensors as one file, or as shards of at most `most` bytes with their index (one tensor is never cut)."""
    shards: list[list[Outgoing]] = [[]]
    filled = total = 0
    for tensor in tensors:
        size = _bytes(tensor)
        if shards[-1] and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
        total += size
    if len(shards) == 1:
        _write(folder / SINGLE, _pieces(shards[0]))
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / name, _pieces(shard))
        places |= {tensor.name: name for tensor in shard}
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _bytes(tensor: Outgoing) -> int:
    size = SAFETENSORS_DTYPES[_CODES[tensor.dtype]][0]
    for length in tensor.shape:
        size *= length
    return size


def _pieces(tensors: Sequence[Outgoing]) -> Iterator[bytes | memoryview]:
    """A safetensors file, piece by piece: one tensor at a time is in memory."""
    # Wide dtypes first, so that every tensor begins at a multiple of its own width.
    tensors = sorted(tensors, key=lambda tensor: (-SAFETENSORS_DTYPES[_CODES[tensor.dtype]][0], tensor.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        end = at + _bytes(tensor)
        header[tensor.name] = {"dtype": _CODES[tensor.dtype], "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors:
        numbers = tensor.make().cpu().contiguous().flatten()
        yield numbers.view(torch.uint8).numpy().data
