"""Meta's layout of Llama: params.json, and consolidated.00.pth, .01.pth …, each with a slice of every matrix.

The rotary pairs lie side by side there, and half a head apart in Hugging Face's files; q and k are put in that order.
What params.json leaves to Meta's program (the context, the scaling of Llama 3.1) is said here, and noted in the report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearhead.checkpoint.config_rules import Foreign, shown
from clearhead.checkpoint.files import SafetensorsFolder, read_json
from clearhead.checkpoint.formats.parts import Part, Parts, Said
from clearhead.checkpoint.formats.torch_bin import load_tensors, refuse_pickle
from clearhead.checkpoint.report import Account
from clearhead.checkpoint.rules import pairs_apart
from clearhead.checkpoint.transfer import Tensors
from clearhead.errors import CheckpointError, UnknownKeyError

PARAMS = "params.json"
SLICES = "consolidated.*.pth"
SAFE = "consolidated.safetensors"

NAMES: Mapping[str, tuple[str, int | None]] = {
    "tok_embeddings.weight": ("model.embed_tokens.weight", 1),
    "layers.{layer}.attention_norm.weight": ("model.layers.{layer}.input_layernorm.weight", None),
    "layers.{layer}.attention.wq.weight": ("model.layers.{layer}.self_attn.q_proj.weight", 0),
    "layers.{layer}.attention.wk.weight": ("model.layers.{layer}.self_attn.k_proj.weight", 0),
    "layers.{layer}.attention.wv.weight": ("model.layers.{layer}.self_attn.v_proj.weight", 0),
    "layers.{layer}.attention.wo.weight": ("model.layers.{layer}.self_attn.o_proj.weight", 1),
    "layers.{layer}.ffn_norm.weight": ("model.layers.{layer}.post_attention_layernorm.weight", None),
    "layers.{layer}.feed_forward.w1.weight": ("model.layers.{layer}.mlp.gate_proj.weight", 0),
    "layers.{layer}.feed_forward.w2.weight": ("model.layers.{layer}.mlp.down_proj.weight", 1),
    "layers.{layer}.feed_forward.w3.weight": ("model.layers.{layer}.mlp.up_proj.weight", 0),
    "norm.weight": ("model.norm.weight", None),
    "output.weight": ("lm_head.weight", 0),
}
"""Meta's tensors, Hugging Face's names for them, and the axis they are sliced on; None: every file has it whole."""
ROTATED = (".wq.weight", ".wk.weight")
UNUSED = "rope.freqs"
"""Worked out from the config."""


def is_meta(folder: Path) -> bool:
    """Whether the folder is in Meta's layout."""
    return (folder / PARAMS).is_file() and ((folder / SAFE).is_file() or any(folder.glob(SLICES)))


def read_meta(folder: Path, *, pickle: bool) -> tuple[Said, Tensors]:
    """The config and the tensors of a folder. Raises UnsafeFileError for slices that are pickles nobody asked for."""
    if (folder / SAFE).is_file():
        files: list[Tensors] = [SafetensorsFolder.of_file(folder / SAFE)]
    else:
        slices = sorted(folder.glob(SLICES))
        if not pickle:
            raise refuse_pickle(slices[0])
        loaded = [(path, load_tensors(path)) for path in slices]
        files = [Parts(str(path), {name: _whole(tensor) for name, tensor in those.items()}) for path, those in loaded]
    where = str(folder / PARAMS)
    params = Foreign(read_json(folder / PARAMS), _NoEvidence(), where)
    shapes = _joined_shapes(files, params.whole("dim", at_most=2**24))
    said = _config(params, shapes)
    heads = said.keys["num_attention_heads"]
    width = said.keys["hidden_size"] // max(heads, 1) if "head_dim" not in said.keys else said.keys["head_dim"]
    parts: dict[str, Part] = {}
    for name, (shape, axis) in shapes.items():
        apart = width if name.endswith(ROTATED) else None
        if apart is not None and (apart < 2 or apart % 2 or shape[0] % apart):
            raise CheckpointError(
                f"{where}: n_heads={heads} does not divide {name} of shape {shape}; correct the file."
            )
        parts[renamed(name)] = Part(shape, files[0].dtype(name), _make(files, name, axis, apart), _release(files, name))
    return said, Parts(str(folder), parts)


class _NoEvidence:
    """Nothing is asked of the weights here."""

    def has(self, name: str) -> bool:
        """Never asked."""
        return False

    def same(self, one: str, other: str) -> bool:
        """Never asked."""
        return False


def _whole(tensor: Tensor) -> Part:
    return Part(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def pattern_of(name: str) -> str:
    """A name with its layer's number taken out."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "{layer}", name, count=1)


def renamed(name: str) -> str:
    """Hugging Face's name for a tensor of Meta's; a name that we do not know stays, and is refused later on."""
    number = re.search(r"(?<=\.)\d+(?=\.)", name)
    theirs, _ = NAMES.get(pattern_of(name), (name, None))
    return theirs.replace("{layer}", number.group()) if number is not None else theirs


def _joined_shapes(files: list[Tensors], dim: int) -> dict[str, tuple[tuple[int, ...], int | None]]:
    """Every tensor's shape once its slices are together, and the axis they are joined on."""
    first = files[0]
    for other in files[1:]:
        if set(other.shapes) != set(first.shapes) or any(other.shapes[n] != s for n, s in first.shapes.items()):
            raise CheckpointError(f"{first.where} and {other.where} are not slices of one model; fetch them again.")
    found: dict[str, tuple[tuple[int, ...], int | None]] = {}
    for name, shape in first.shapes.items():
        if name == UNUSED:
            continue
        _, axis = NAMES.get(pattern_of(name), (name, None))
        if name == "tok_embeddings.weight" and len(shape) == 2 and shape[1] == dim:
            axis = 0  # Llama 3 slices its table by rows
        if axis is not None and len(shape) == 2:
            shape = tuple(size * len(files) if at == axis else size for at, size in enumerate(shape))
        found[name] = (shape, axis if len(shape) == 2 else None)
    return found


def _make(files: list[Tensors], name: str, axis: int | None, apart: int | None) -> Callable[[], Tensor]:
    def make() -> Tensor:
        slices = [file.read(name) for file in (files if axis is not None else files[:1])]
        whole = slices[0] if axis is None or len(slices) == 1 else torch.cat(slices, axis)
        return whole if apart is None else pairs_apart(whole, apart)

    return make


def _release(files: list[Tensors], name: str) -> Callable[[], None]:
    def release() -> None:
        for file in files:
            file.release(name)

    return release


# ── params.json ──────────────────────────────────────────────────────────────────────────────────────────────────────

_READ = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "max_seq_len": "max_position_embeddings",
    "use_scaled_rope": "rope_scaling",
    "rope_scaling_factor": "rope_scaling",
}
_SIZES = "the matrices' own sizes say it"
_IGNORED = {
    "vocab_size": _SIZES,
    "hidden_dim": _SIZES,
    "multiple_of": _SIZES,
    "ffn_dim_multiplier": _SIZES,
    "max_batch_size": "it speaks of Meta's program, not of what is computed",
    "model_parallel_size": "the number of files says it",
}


def _config(params: Foreign, shapes: Mapping[str, tuple[tuple[int, ...], int | None]]) -> Said:
    """params.json as a config.json of the family llama. Raises UnknownKeyError for a key that it does not know."""
    for key in params.keys:
        if key not in _READ and key not in _IGNORED:
            raise UnknownKeyError(
                f"{params.where}: Meta's layout does not know the key {key}={shown(params.get(key))}, which may change "
                "the result; remove it if it does not."
            )
    keys: dict[str, Any] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": params.whole("dim"),
        "num_hidden_layers": params.whole("n_layers"),
        "num_attention_heads": params.whole("n_heads"),
        "num_key_value_heads": params.optional_whole("n_kv_heads"),
        "vocab_size": _rows(params, shapes, "tok_embeddings.weight"),
        "intermediate_size": _rows(params, shapes, "layers.0.feed_forward.w1.weight"),
        "rms_norm_eps": params.number("norm_eps", 1e-5),
        "rope_theta": params.number("rope_theta", 10_000.0),
        "tie_word_embeddings": "output.weight" not in shapes,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if params.get("head_dim") is not None:
        keys["head_dim"] = params.whole("head_dim")
    notes: list[str] = []
    scaled = params.flag("use_scaled_rope")
    if keys["vocab_size"] == 128_256:  # Llama 3's own tokenizer
        keys |= {"bos_token_id": 128_000, "eos_token_id": 128_001}
    if scaled:
        factor = params.optional_number("rope_scaling_factor")
        if factor is None:
            factor = 8.0 if keys["hidden_size"] >= 4096 else 32.0
            notes.append(f"{PARAMS} does not say how far positions are stretched: {factor:g}, as Meta's of this width")
        keys["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    context = params.optional_whole("max_seq_len")
    if context is None:
        first = params.get("vocab_size") == -1 and params.get("norm_eps") == 1e-6  # Llama 1
        told = {500_000.0: 8192, 1_000_000.0: 16_384}.get(keys["rope_theta"], 2048 if first else 4096)
        context = 131_072 if scaled else told
        notes.append(f"{PARAMS} does not say the context: {context:,}, as Meta's models with these rotary positions")
    keys["max_position_embeddings"] = context
    accounts = [
        Account(key, "ignored", _IGNORED[key], params.get(key))
        if key in _IGNORED
        else Account(key, "read", _READ[key], params.get(key))
        for key in params.keys
    ]
    return Said(keys, tuple(accounts), tuple(notes))


def _rows(params: Foreign, shapes: Mapping[str, tuple[tuple[int, ...], int | None]], name: str) -> int:
    shape, _ = shapes.get(name, ((), None))
    if len(shape) != 2:
        raise CheckpointError(f"{params.where}: the files beside it have no {name}; they are not Meta's layout.")
    return shape[0]
