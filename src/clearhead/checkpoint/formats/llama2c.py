"""llama2.c's models (Karpathy 2023): a header of seven numbers, then every matrix in a fixed order and nothing else.

Version 0 begins with the numbers themselves, and the sign of the vocabulary's size says whether the head has a matrix
of its own. Versions 1 and 2 begin with `ak42` and are padded to 256 bytes; version 2 holds its matrices as 8-bit
numbers, a factor for each group of them. Rotary pairs lie side by side, as in Meta's files.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clearhead.checkpoint.files import check_regular
from clearhead.checkpoint.formats.meta import ROTATED, renamed
from clearhead.checkpoint.formats.parts import Part, Parts, Said
from clearhead.checkpoint.mapped import Mapped
from clearhead.checkpoint.report import Account
from clearhead.checkpoint.rules import pairs_apart
from clearhead.errors import CheckpointError, UnsafeFileError

MAGIC = 0x616B3432
"""`ak42`."""
NUMBERS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
KEYS = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
}
LARGEST = 2**24
PADDED = 256


@dataclass(frozen=True)
class Header:
    """What the first bytes say. group: how many 8-bit numbers share a factor, None where they are floats."""

    version: int
    sizes: dict[str, int]
    shared: bool
    group: int | None
    length: int


def read_llama2c(path: Path) -> tuple[Said, Parts]:
    """The config and the tensors of a .bin. Raises UnsafeFileError where its sizes and the file's do not agree."""
    check_regular(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = _header(path, file.read(PADDED))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    head_width = header.sizes["dim"] // header.sizes["n_heads"]
    places: list[tuple[str, tuple[int, ...], int]] = []
    at = header.length
    for name, shape in _order(header):
        places.append((name, shape, at))
        at += _bytes(header, shape)
    if at != size:
        raise UnsafeFileError(f"{path}: its header claims {at:,} bytes and the file has {size:,}; it is damaged.")
    mapped = Mapped(path, size)
    parts = {
        renamed(name): _part(mapped, name, shape, begin, header, head_width)
        for name, shape, begin in places
        if not name.startswith("freqs")
    }
    return _said(header), Parts(str(path), parts)


def _header(path: Path, data: bytes) -> Header:
    first = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
    version = struct.unpack_from("<i", data, 4)[0] if first == MAGIC and len(data) >= PADDED else 0
    begin = 8 if version else 0
    if version not in (0, 1, 2) or len(data) < begin + 28 or (first == MAGIC and not version):
        raise CheckpointError(f"{path} is none of llama2.c's files of version 0, 1 or 2; convert it again.")
    sizes = dict(zip(NUMBERS, struct.unpack_from("<7i", data, begin), strict=True))
    shared = data[36] == 1 if version else sizes["vocab_size"] > 0
    if not version:
        sizes["vocab_size"] = abs(sizes["vocab_size"])
    group = struct.unpack_from("<i", data, 37)[0] if version == 2 else None
    heads, width = sizes["n_heads"], sizes["dim"]
    fits = all(0 < value <= LARGEST for value in sizes.values()) and sizes["n_layers"] <= 4096
    if not fits or width % heads or (width // heads) % 2 or heads % sizes["n_kv_heads"]:
        raise CheckpointError(f"{path} begins with no sizes of a model ({sizes}); it is none of llama2.c's files.")
    if (version and data[36] > 1) or (group is not None and not 0 < group <= LARGEST):
        raise CheckpointError(f"{path}: its header has a flag or a group size that none has; it is damaged.")
    return Header(version, sizes, shared, group, PADDED if version else 28)


def _order(header: Header) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor under Meta's name, in the order of the file, and its shape."""
    sizes = header.sizes
    width, hidden, layers = sizes["dim"], sizes["hidden_dim"], range(sizes["n_layers"])
    head_width = width // sizes["n_heads"]
    narrow = head_width * sizes["n_kv_heads"]
    table = ("tok_embeddings.weight", (sizes["vocab_size"], width))

    def each(name: str, *shape: int) -> list[tuple[str, tuple[int, ...]]]:
        return [(f"layers.{layer}.{name}.weight", shape) for layer in layers]

    norms = each("attention_norm", width), each("ffn_norm", width)
    attention = [
        *each("attention.wq", width, width),
        *each("attention.wk", narrow, width),
        *each("attention.wv", narrow, width),
        *each("attention.wo", width, width),
    ]
    forward = [
        *each("feed_forward.w1", hidden, width),
        *each("feed_forward.w2", width, hidden),
        *each("feed_forward.w3", hidden, width),
    ]
    last = ("norm.weight", (width,))
    if header.version:
        yield from (*norms[0], *norms[1], last, table, *attention, *forward)
    else:
        yield from (table, *norms[0], *attention, *norms[1], *forward, last)
        yield from ((f"freqs_{part}", (sizes["max_seq_len"], head_width // 2)) for part in ("cos", "sin"))
    if not header.shared:
        yield "output.weight", (sizes["vocab_size"], width)


def _bytes(header: Header, shape: tuple[int, ...]) -> int:
    count = math.prod(shape)
    if header.group is None or len(shape) == 1:
        return 4 * count
    return count + 4 * (count // header.group)


def _part(mapped: Mapped, name: str, shape: tuple[int, ...], begin: int, header: Header, head_width: int) -> Part:
    count = math.prod(shape)
    group = header.group if len(shape) == 2 else None
    if group is not None and count % group:
        raise UnsafeFileError(f"{mapped.path}: {name} of {count:,} numbers has no whole groups of {group}.")

    def make() -> Tensor:
        if group is None:
            tensor = mapped.tensor(begin, torch.float32, shape)
        else:
            numbers = mapped.tensor(begin, torch.int8, (count // group, group))
            factors = mapped.tensor(begin + count, torch.float32, (count // group, 1))
            tensor = (numbers * factors).view(shape)
        return pairs_apart(tensor, head_width) if name.endswith(ROTATED) else tensor

    end = begin + _bytes(header, shape)
    return Part(shape, torch.float32, make, lambda: mapped.release(begin, end))


def _said(header: Header) -> Said:
    sizes = header.sizes
    keys = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        **{KEYS[name]: value for name, value in sizes.items()},
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": header.shared,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    accounts = (
        Account("version", "read", "the order of the file", header.version),
        *(Account(name, "read", KEYS[name], value) for name, value in sizes.items()),
        Account("shared_classifier", "read", "tie_word_embeddings", header.shared),
        *((Account("group_size", "read", "how the matrices are packed", header.group),) if header.group else ()),
    )
    packed = (f"the matrices are 8-bit numbers with a factor for every {header.group}, unpacked as float32",)
    return Said(keys, accounts, packed if header.group else ())
