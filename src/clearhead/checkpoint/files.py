"""Files. Nothing in a checkpoint folder is believed before it is checked, and none of it is ever run.

A safetensors file is a length, a JSON header of that length, and the tensors' bytes. We check the header ourselves
(its length, its JSON, every dtype and offset, no hole, no overlap) before the file is mapped into memory. Then a tensor
is a view of the file's memory: nothing is read before it is needed, and nothing twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearhead.checkpoint.mapped import Mapped
from clearhead.errors import CheckpointError, UnsafeFileError

SAFETENSORS_DTYPES: dict[str, tuple[int, torch.dtype | None]] = {
    "F64": (8, torch.float64),
    "F32": (4, torch.float32),
    "F16": (2, torch.float16),
    "BF16": (2, torch.bfloat16),
    "I64": (8, torch.int64),
    "I32": (4, torch.int32),
    "I16": (2, torch.int16),
    "I8": (1, torch.int8),
    "U8": (1, torch.uint8),
    "BOOL": (1, torch.bool),
    **{name: (int(name[1:]) // 8, None) for name in ("U64", "U32", "U16")},
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), (1, None)),
    "C64": (8, None),
}
"""The dtypes of the format: bytes of a number, and torch's dtype for those that we can compare or compute with."""

MOST_HEADER = 100_000_000
MOST_JSON = 50_000_000
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_json(path: Path, *, most: int = MOST_JSON) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError where it is none, UnsafeFileError past `most` bytes."""
    value = parse_json(read_bytes(path, most), str(path))
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is no JSON object; it is damaged, or another kind of file.")
    return value


def read_bytes(path: Path, most: int = MOST_JSON) -> bytes:
    """A small file. Raises CheckpointError where it cannot be read, UnsafeFileError past `most` bytes."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(data) > most:
        raise UnsafeFileError(f"{path} is larger than {most:,} bytes; no such file of a checkpoint is.")
    return data


def check_regular(path: Path) -> None:
    """A pipe would be waited for without end, and some names no file can have."""
    try:
        regular = path.is_file()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not regular:
        raise CheckpointError(f"{path} cannot be read: it is missing, or no regular file; fetch it again.")


def parse_json(data: bytes, where: str) -> Any:
    """JSON in UTF-8, no key twice. Raises CheckpointError."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is no valid JSON: {first_line(error)}; fetch the file again.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key stands in it twice")
    return seen


def first_line(error: BaseException) -> str:
    """What another library complains of, as a part of one line."""
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


@dataclass(frozen=True)
class Entry:
    """One tensor of a safetensors file, as its header has it; begin and end: its bytes in the file of `size` bytes."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    size: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file, all claims of its header checked against the file.

    Raises UnsafeFileError for sizes that lie, CheckpointError for anything else that is not as it should be.
    """
    check_regular(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise UnsafeFileError(
                    f"{path}: the header claims {length:,} bytes and the file has {size:,}; it is cut short, or no "
                    "safetensors file: fetch it again."
                )
            if length > MOST_HEADER:
                raise UnsafeFileError(f"{path}: the header claims {length:,} bytes; none may pass {MOST_HEADER:,}.")
            data = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    header = parse_json(data, f"{path}: the header")
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object; fetch the file again.")
    header.pop("__metadata__", None)
    spans: list[tuple[int, int, str]] = []
    entries: dict[str, Entry] = {}
    for name, says in header.items():
        dtype, shape, begin, end = _entry(path, name, says)
        entries[name] = Entry(path, dtype, shape, 8 + length + begin, 8 + length + end, size)
        spans.append((begin, end, name))
    _check_spans(path, sorted(spans), size - 8 - length)
    return entries


def _entry(path: Path, name: str, says: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(says, dict) or set(says) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: {name!r} is not described by dtype, shape and data_offsets; fetch it again.")
    dtype, shape, offsets = says["dtype"], says["shape"], says["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SAFETENSORS_DTYPES:
        raise CheckpointError(
            f"{path}: {name!r} has the unknown dtype {str(dtype)[:20]!r}; we know {', '.join(SAFETENSORS_DTYPES)}."
        )
    if not _counts(shape) or len(shape) > 16 or not _counts(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{path}: {name!r} has a shape or offsets that are no whole numbers; fetch it again.")
    begin, end = offsets
    if end - begin != math.prod(shape) * SAFETENSORS_DTYPES[dtype][0]:
        raise UnsafeFileError(f"{path}: {name!r} claims the shape {tuple(shape)} and {end - begin:,} bytes; one lies.")
    return dtype, tuple(shape), begin, end


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 for value in values
    )


def _check_spans(path: Path, spans: list[tuple[int, int, str]], size: int) -> None:
    """Tensors lie one after another, from the first byte to the last."""
    at = 0
    for begin, end, name in spans:
        if begin != at:
            what = "overlaps the tensor before it" if begin < at else "leaves a hole before it"
            raise UnsafeFileError(f"{path}: {name!r} {what}; the header lies: fetch the file again.")
        at = end
    if at != size:
        raise UnsafeFileError(
            f"{path}: the header claims {at:,} bytes of tensors and the file has {size:,}; it is cut short or lies: "
            "fetch it again."
        )


@dataclass
class SafetensorsFolder:
    """The tensors of a folder, of one file or of shards, mapped into memory as they are read."""

    where: str
    entries: Mapping[str, Entry]
    shapes: Mapping[str, tuple[int, ...]] = field(init=False, repr=False)
    _open: dict[Path, Mapped] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.shapes = {name: entry.shape for name, entry in self.entries.items()}

    @classmethod
    def of(cls, folder: Path) -> SafetensorsFolder:
        """The weights of a folder, every header checked. Raises CheckpointError where there are none that are safe."""
        if (folder / SINGLE).is_file():
            return cls.of_file(folder / SINGLE)
        if (folder / INDEX).is_file():
            return cls(str(folder), _read_shards(folder))
        raise CheckpointError(f"{folder} has no {SINGLE} and no {INDEX}; it holds no weights that we read.")

    @classmethod
    def of_file(cls, path: Path) -> SafetensorsFolder:
        """The weights of one file."""
        return cls(str(path), read_header(path))

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's dtype. Raises CheckpointError for one that is no dtype of weights."""
        entry = self.entries[name]
        dtype = SAFETENSORS_DTYPES[entry.dtype][1]
        if dtype is None or not dtype.is_floating_point:
            raise CheckpointError(
                f"{entry.path}: {name} has the dtype {entry.dtype}, and weights are read from F64, F32, F16 or BF16; "
                "use the checkpoint that is not quantised."
            )
        return dtype

    def read(self, name: str) -> Tensor:
        """The tensor, a view of the file's memory. Raises CheckpointError where it cannot be read."""
        entry = self.entries[name]
        if entry.path not in self._open:
            self._open[entry.path] = Mapped(entry.path, entry.size)
        dtype = SAFETENSORS_DTYPES[entry.dtype][1]
        if dtype is None:
            raise CheckpointError(f"{entry.path}: {name} has the dtype {entry.dtype}, which is not read.")
        return self._open[entry.path].tensor(entry.begin, dtype, entry.shape)

    def release(self, name: str) -> None:
        """Give back the memory of a tensor that was read."""
        entry = self.entries[name]
        if entry.path in self._open:
            self._open[entry.path].release(entry.begin, entry.end)


def read_index(path: Path, suffix: str) -> dict[str, str]:
    """Which shard holds which tensor. Raises UnsafeFileError for a shard that is no file of the folder itself."""
    places = read_json(path, most=MOST_HEADER).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{path} has no weight_map from tensors to files; fetch it again.")
    for name in sorted(set(places.values())):
        if Path(name).name != name or "\\" in name or ":" in name or not name.endswith(suffix):
            raise UnsafeFileError(
                f"{path} names the shard {name[:80]!r}; shards are {suffix} files of the folder itself."
            )
    return places


def _read_shards(folder: Path) -> dict[str, Entry]:
    """The tensors of all shards, as their index and their headers agree."""
    places = read_index(folder / INDEX, ".safetensors")
    entries: dict[str, Entry] = {}
    for name in sorted(set(places.values())):
        for tensor, entry in read_header(folder / name).items():
            check_place(folder, INDEX, places, tensor, name)
            entries[tensor] = entry
    check_complete(folder, INDEX, places, entries)
    return entries


def check_place(folder: Path, index: str, places: Mapping[str, str], tensor: str, shard: str) -> None:
    """Raise CheckpointError where the index has a tensor of this shard elsewhere, or nowhere."""
    if places.get(tensor) != shard:
        raise CheckpointError(f"{folder / shard} holds {tensor}, which {index} places elsewhere; fetch it again.")


def check_complete(folder: Path, index: str, places: Mapping[str, str], found: Container[str]) -> None:
    """Raise CheckpointError where no shard has a tensor that the index names."""
    missing = [tensor for tensor in places if tensor not in found]
    if missing:
        raise CheckpointError(f"{folder} lacks {missing[0]}, which {index} places in {places[missing[0]]}.")
