"""PyTorch's own files. They are pickles, which can name code to run, so they are read only where `pickle=True` asks for
it, and then by `torch.load(weights_only=True)`, which builds tensors and nothing else.

A file since PyTorch 1.6 is a zip archive, which is mapped into memory; an older one is read whole.
"""

from __future__ import annotations

import pickle as pickles
import pickletools
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from clearhead.checkpoint.files import check_complete, check_place, check_regular, first_line, read_index
from clearhead.checkpoint.formats.parts import Part, Parts
from clearhead.errors import CheckpointError, UnsafeFileError

BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
MAGIC = 0x1950A86A20F9469CFC6C
"""What an old file begins with."""
MOST_PICKLE = 100_000_000
"""Bytes of the pickle itself, which only names the tensors."""
ASK = "pickle=True (--pickle on the command line) reads it, with torch.load(weights_only=True)"


def is_pickle(path: Path) -> bool:
    """Whether a file is one of PyTorch's, by its first bytes. (llama2.c's begin with a width, which may be 0x0280.)"""
    check_regular(path)
    try:
        with path.open("rb") as file:
            first = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    return first == b"PK\x03\x04" or (first[:1] == b"\x80" and first[2:4] != b"\0\0")


def refuse_pickle(path: Path) -> UnsafeFileError:
    """The one line for a pickle that nobody asked for."""
    return UnsafeFileError(f"{path} is a pickle, which can name code to run; take safetensors if you can, else {ASK}.")


def read_bin(folder: Path, *, pickle: bool) -> Parts:
    """The tensors of pytorch_model.bin, or of its shards. Raises UnsafeFileError where they were not asked for."""
    single = (folder / BIN).is_file()
    if not pickle:
        raise refuse_pickle(folder / (BIN if single else BIN_INDEX))
    if single:
        return read_file(folder / BIN)
    places = read_index(folder / BIN_INDEX, ".bin")
    parts: dict[str, Part] = {}
    for shard in sorted(set(places.values())):
        for name, tensor in load_tensors(folder / shard).items():
            check_place(folder, BIN_INDEX, places, name, shard)
            parts[name] = _part(tensor)
    check_complete(folder, BIN_INDEX, places, parts)
    return Parts(str(folder), parts)


def read_file(path: Path) -> Parts:
    """The tensors of one file that was asked for."""
    return Parts(str(path), {name: _part(tensor) for name, tensor in load_tensors(path).items()})


def _part(tensor: Tensor) -> Part:
    return Part(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors by name, mapped into memory where that can be had.

    Raises UnsafeFileError for a file that lies about its sizes or holds more than tensors, CheckpointError for a
    damaged one.
    """
    size = _checked_size(path)
    found = _load(path, mmap=zipfile.is_zipfile(path))
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, and no tensors by name; it is no model's file.")
    strange = next((name for name, value in found.items() if not _plain(name, value)), None)
    if strange is not None:
        raise CheckpointError(f"{path}: {str(strange)[:80]!r} is no tensor; it is no model's file.")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found.values()}
    if sum(storages.values()) > size:
        raise UnsafeFileError(f"{path} claims {sum(storages.values()):,} bytes of tensors and has {size:,} in all.")
    return {name: tensor.detach() for name, tensor in found.items()}


def _plain(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _checked_size(path: Path) -> int:
    """The file's size. A zip archive must hold what it says, uncompressed: nothing in it may grow as it is read."""
    check_regular(path)
    try:
        size = path.stat().st_size
        if not zipfile.is_zipfile(path):
            _check_numbers(path, size)
            return size
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no file of PyTorch's ({first_line(error)}); fetch it again."
        ) from None
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise UnsafeFileError(f"{path} is a compressed archive, which no model's file is; fetch it again.")
    if sum(entry.file_size for entry in entries) > size:
        raise UnsafeFileError(f"{path}: its parts claim more bytes than the {size:,} it has; fetch it again.")
    if any(entry.file_size > MOST_PICKLE for entry in entries if entry.filename.endswith(".pkl")):
        raise UnsafeFileError(f"{path}: its pickle has more than {MOST_PICKLE:,} bytes; none has.")
    return size


@dataclass
class _Within:
    """A file that is never asked for more than it has: Python makes room for what is asked before it looks."""

    file: BinaryIO
    size: int

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size - self.file.tell()))

    def readline(self) -> bytes:
        return self.file.readline()

    def tell(self) -> int:
        return self.file.tell()


def _check_numbers(path: Path, size: int) -> None:
    """An old file is five pickles, then the tensors; the fourth names them. No length in it may pass the file's own."""
    with path.open("rb") as file:
        within = _Within(file, size)
        for number in range(4):
            for _, value, _ in pickletools.genops(within):  # type: ignore[arg-type]
                if number == 0 and isinstance(value, int) and value not in (MAGIC, 2):
                    raise CheckpointError(f"{path} is no file of PyTorch's; fetch it again.")
                if number == 3 and isinstance(value, int) and value > size:
                    raise UnsafeFileError(f"{path} claims {value:,} numbers and has {size:,} bytes; fetch it again.")


def _load(path: Path, *, mmap: bool) -> Any:
    """torch.load, whose every complaint is one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file's age, which its reader cannot change
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickles.UnpicklingError as error:
        raise UnsafeFileError(f"{path} holds more than tensors, or is damaged: {_reason(error)}") from None
    except Exception as error:  # whatever torch raises for a damaged file
        raise CheckpointError(f"{path} cannot be read as PyTorch's: {_reason(error)}; fetch it again.") from None


def _reason(error: BaseException) -> str:
    """torch's complaint without its advice on how to run the file after all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
    return lines[0][:160] if lines else first_line(error)
