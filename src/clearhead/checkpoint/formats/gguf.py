"""GGUF files (llama.cpp's), read as Hugging Face's by the rows of `gguf_rows.py`.

A key under the architecture's name that no row reads is refused, since llama.cpp might read it; keys under other names
only describe the file.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from clearhead.checkpoint.config_rules import shown
from clearhead.checkpoint.formats.gguf_file import GGUF
from clearhead.checkpoint.formats.gguf_rows import (
    ARCHITECTURES,
    FLAGS,
    SIZES,
    Architecture,
    Change,
    Keys,
    by_head,
    heads,
    key_heads,
    keys_apart,
    less_one,
    queries_apart,
    turned_over,
)
from clearhead.checkpoint.formats.parts import Part, Parts, Said
from clearhead.checkpoint.report import Account
from clearhead.errors import CheckpointError, UnknownFamilyError, UnknownKeyError

CONFIG_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that are part of the config."""
ROTARY = "rope.freq_base"
"""The key that every architecture with rotary positions has in its row."""
WIDTHS = ("attention.key_length", "attention.value_length")
CHECKED = (*WIDTHS, "rope.dimension_count", "vocab_size")
SCALING = {
    "type": "rope_type",
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
IGNORED = {"rope.scaling.finetuned": "it tells how the model was trained", "tensor_data_layout": "its name is in use"}
TOKENS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
ABOUT_FILE = "it describes the file, not what is computed"


def read_gguf(path: Path) -> tuple[Said, Parts, dict[str, Any]]:
    """The config, the tensors, and the whole metadata, of which the tokenizer's is a part.

    Raises UnknownFamilyError for an architecture without a row, UnknownKeyError for a key that may change the result.
    """
    file = GGUF(path)
    name = file.metadata.get("general.architecture")
    known = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if known is None:
        raise UnknownFamilyError(
            f"{path}: the architecture {shown(name)} has no row here; we read {', '.join(sorted(ARCHITECTURES))}."
        )
    if file.metadata.get("general.type", "model") != "model" or file.metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            f"{path} is a part of a model, or an adapter; join the parts by llama.cpp's gguf-split --merge."
        )
    keys, accounts = _config(file, str(name), known)
    parts = {}
    for stored in file.tensors:
        if stored not in CONFIG_TENSORS:
            theirs, part = _part(file, stored, known, keys)
            parts[theirs] = part
    packed = file.packed()
    notes = (f"the weights are packed as {', '.join(packed)}, and unpacked to float32",) if packed else ()
    return Said(keys, accounts, notes), Parts(str(path), parts), file.metadata


def _part(file: GGUF, name: str, known: Architecture, keys: Keys) -> tuple[str, Part]:
    """A tensor under Hugging Face's name; one that no row knows keeps its own, and is refused later on."""
    stem, _, suffix = name.rpartition(".")
    number = re.search(r"(?<=^blk\.)\d+(?=\.)", stem)
    pattern = stem if number is None else f"blk.{{layer}}{stem[number.end() :]}"
    theirs = known.tensors.get(pattern)
    change = known.changes.get(pattern)
    if known.plus_one and suffix == "weight" and "norm" in pattern:
        change = less_one
    shape = file.tensors[name].shape
    if theirs is None or suffix not in ("weight", "bias"):
        theirs, change = name, None
    else:
        theirs = f"{theirs.replace('{layer}', number.group() if number else '')}.{suffix}"
    if change is not None:
        _check_change(file, name, change, shape, keys)

    def make() -> Tensor:
        tensor = file.read(name)
        return tensor if change is None else change(tensor, keys)

    after = shape[::-1] if change is turned_over else shape
    stored = f"whole numbers (type {file.tensors[name].kind})"
    return theirs, Part(after, file.dtype(name), make, lambda: file.release(name), stored)


def _check_change(file: GGUF, name: str, change: Change, shape: tuple[int, ...], keys: Keys) -> None:
    """Raise CheckpointError where a tensor's rows cannot be put in order by heads."""
    by: dict[Change, int] = {queries_apart: 2 * heads(keys), keys_apart: 2 * key_heads(keys), by_head: 3 * heads(keys)}
    parts = by.get(change, 1)
    if not shape or not shape[0] or shape[0] % parts:
        raise CheckpointError(f"{file.path}: {name} of shape {shape} does not divide into heads; it is damaged.")


def _config(file: GGUF, name: str, known: Architecture) -> tuple[Keys, tuple[Account, ...]]:
    """The metadata as config keys, and what became of each."""
    own = {key.removeprefix(f"{name}."): value for key, value in file.metadata.items() if key.startswith(f"{name}.")}
    keys: Keys = {"model_type": known.family}
    for key, theirs in known.keys.items():
        if key in own and theirs != "rope_scaling":
            keys[theirs] = _checked(file, f"{name}.{key}", own[key], flag=theirs in FLAGS)
    for key, theirs in known.keys.items():
        if theirs in _NEEDED and theirs not in keys:
            raise CheckpointError(f"{file.path} lacks {name}.{key}; convert the model again.")
        value = keys.get(theirs, 1)
        if theirs in _COUNTS and (not isinstance(value, int) or not 0 < value < 2**40):
            raise CheckpointError(f"{file.path}: {name}.{key} is {shown(value)}, which cannot be.")
    _positions(file, name, known, own, keys)
    table = file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise CheckpointError(f"{file.path} has no token_embd.weight; it holds no language model.")
    keys["vocab_size"] = table.shape[0]
    keys["tie_word_embeddings"] = "output.weight" not in file.tensors
    for theirs, ours in TOKENS.items():
        keys[theirs] = file.metadata.get(f"tokenizer.ggml.{ours}_token_id")
    known.says(file, keys)
    unknown = sorted(
        key
        for key in own
        if key not in known.keys
        and key not in (*CHECKED, *IGNORED)
        and not (ROTARY in known.keys and key.removeprefix("rope.scaling.") in SCALING)
    )
    if unknown:
        raise UnknownKeyError(
            f"{file.path}: {name}.{unknown[0]}={shown(own[unknown[0]])} is not read here, and may change the result."
        )
    accounts = tuple(_account(key, value, name, known) for key, value in file.metadata.items())
    return keys, accounts


_NEEDED = {*SIZES.values(), "n_positions", "n_embd", "n_layer", "n_head"}
_COUNTS = {*_NEEDED, "num_key_value_heads", "head_dim"}


def _checked(file: GGUF, key: str, value: Any, *, flag: bool) -> Any:
    """A number or a flag; also a list of one for each layer, where all are the same."""
    if isinstance(value, list):
        if not value or any(one != value[0] for one in value):
            raise CheckpointError(f"{file.path}: {key} differs from layer to layer, which is not read.")
        value = value[0]
    if isinstance(value, bool) != flag or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise CheckpointError(f"{file.path}: {key} is {shown(value)}, which cannot be.")
    return value


def _positions(file: GGUF, name: str, known: Architecture, own: Keys, keys: Keys) -> None:
    """Head width and rotary positions, whose defaults are llama.cpp's."""
    if ROTARY not in known.keys:
        return
    width = keys["hidden_size"] // keys["num_attention_heads"]
    if known.head_dim:
        width = keys.setdefault("head_dim", width)
    if width < 1 or any(own.get(key, width) != width for key in WIDTHS):
        raise CheckpointError(f"{file.path}: heads of {shown(width)} keys and other values are not read.")
    keys.setdefault("rope_theta", 10_000.0)
    turned = own.get("rope.dimension_count", width)
    if known.partial is not None and isinstance(turned, int) and 0 < turned <= width:
        part = turned / width
        keys[known.partial] = part if int(width * part) == turned else math.nextafter(part, 1.0)
    elif turned != width:
        raise CheckpointError(f"{file.path}: {name}.rope.dimension_count is {shown(turned)}, and heads have {width}.")
    scaling = {theirs: own[f"rope.scaling.{key}"] for key, theirs in SCALING.items() if f"rope.scaling.{key}" in own}
    kind = scaling.get("rope_type", "none")
    if kind == "linear" and scaling.get("factor", 1.0) != 1.0:
        keys["rope_scaling"] = {"rope_type": kind, "factor": scaling["factor"]}
    elif kind == "yarn":
        keys["rope_scaling"] = scaling
    elif kind not in ("none", "linear", "longrope"):
        raise UnknownKeyError(f"{file.path}: {name}.rope.scaling.type={shown(kind)} is not read here.")


def _account(key: str, value: Any, name: str, known: Architecture) -> Account:
    value = value if not isinstance(value, list | str) or len(value) < 100 else f"{len(value):,} items"
    own = key.removeprefix(f"{name}.") if key.startswith(f"{name}.") else None
    if key == "general.architecture":
        return Account(key, "read", "model_type", value)
    if key.startswith("tokenizer."):
        return Account(key, "read", "the tokenizer", value)
    if own is None:
        return Account(key, "ignored", ABOUT_FILE, value)
    if own in IGNORED:
        return Account(key, "ignored", IGNORED[own], value)
    if own in CHECKED:
        return Account(key, "read", "checked against the sizes", value)
    return Account(key, "read", known.keys.get(own, "rope_scaling"), value)
