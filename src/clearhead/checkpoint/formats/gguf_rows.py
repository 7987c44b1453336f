"""llama.cpp's architectures: for each, what its keys and tensors are called in Hugging Face's files.

Also what its converter did to the tensors, so that it can be undone, and what its program fixes without a key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clearhead.checkpoint.formats.gguf_file import GGUF
from clearhead.checkpoint.rules import pairs_apart
from clearhead.errors import CheckpointError

Keys = dict[str, Any]
Change = Callable[[Tensor, Keys], Tensor]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One of llama.cpp's architectures.

    family: our `model_type`. keys: its metadata, without the architecture's name, and the config keys that say the
    same. tensors: its names without `.weight` and `.bias`, and Hugging Face's. changes: how to undo what the converter
    did to a tensor. plus_one: norms were stored with 1 added. partial: the config key for the part of a head that
    turns, where it may be a part. head_dim: whether the config has that key. says: keys that follow from others.
    """

    family: str
    keys: Mapping[str, str]
    tensors: Mapping[str, str]
    changes: Mapping[str, Change] = field(default_factory=dict)
    plus_one: bool = False
    partial: str | None = None
    head_dim: bool = True
    says: Callable[[GGUF, Keys], None] = lambda file, keys: None


# ── what the converter did, undone ───────────────────────────────────────────────────────────────────────────────────


def heads(keys: Keys) -> int:
    """How many heads there are."""
    found: int = keys["num_attention_heads"] if "num_attention_heads" in keys else keys["n_head"]
    return found


def key_heads(keys: Keys) -> int:
    """How many of keys and values; as many as there are heads where nothing is said."""
    found: int = keys["num_key_value_heads"] if "num_key_value_heads" in keys else heads(keys)
    return found


def queries_apart(tensor: Tensor, keys: Keys) -> Tensor:
    """Rotary pairs of the queries, which lie side by side, half a head apart."""
    return pairs_apart(tensor, tensor.shape[0] // heads(keys))


def keys_apart(tensor: Tensor, keys: Keys) -> Tensor:
    """The same of the keys, whose heads may be fewer."""
    return pairs_apart(tensor, tensor.shape[0] // key_heads(keys))


def by_head(tensor: Tensor, keys: Keys) -> Tensor:
    """All queries, all keys, all values, as head after head of q, k and v."""
    return tensor.unflatten(0, (3, heads(keys), -1)).transpose(0, 1).reshape(tensor.shape)


def turned_over(tensor: Tensor, keys: Keys) -> Tensor:
    """A matrix stored (out, in) where Hugging Face's files have (in, out)."""
    return tensor.t() if tensor.ndim == 2 else tensor


def less_one(tensor: Tensor, keys: Keys) -> Tensor:
    """A norm's weight, to which Hugging Face's code adds the 1 itself."""
    return tensor - 1


# ── what follows from other keys ─────────────────────────────────────────────────────────────────────────────────────


def _frequency_factors(file: GGUF, keys: Keys) -> None:
    """Llama 3.1's stretched positions, whose factors the converter worked out: one for each frequency."""
    if "rope_freqs.weight" not in file.tensors:
        return
    factors = _numbers(file, "rope_freqs.weight")
    theta, count = float(keys["rope_theta"]), len(factors)
    if theta <= 0:
        raise CheckpointError(f"{file.path}: positions turn by powers of {theta:g}, which cannot be.")
    factor = float(max(factors))
    waves = [2 * math.pi * theta ** (index / count) for index in range(count)]
    known = [_stretched(8192 / wave, factor) for wave in waves]
    if all(math.isclose(one, other, rel_tol=1e-4) for one, other in zip(factors, known, strict=True)):
        scaling: Keys = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        scaling["original_max_position_embeddings"] = 8192
    else:  # any factors at all are LongRoPE's, the same for short texts and long ones
        scaling = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.0}
        scaling["original_max_position_embeddings"] = keys["max_position_embeddings"]
    keys["rope_scaling"] = scaling


def _stretched(turns: float, factor: float) -> float:
    """Llama 3.1's factor for a frequency that makes so many turns in the original context."""
    smooth = min(max((turns - 1.0) / 3.0, 0.0), 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _long_factors(file: GGUF, keys: Keys) -> None:
    """Phi-3's factors for short and long texts; no window is written as 0."""
    keys["sliding_window"] = keys.get("sliding_window") or None
    if "rope_factors_long.weight" not in file.tensors:
        return
    keys["rope_scaling"] = {
        "type": "longrope",
        "short_factor": _numbers(file, "rope_factors_short.weight"),
        "long_factor": _numbers(file, "rope_factors_long.weight"),
    }
    original = keys.get("original_max_position_embeddings", 0)
    if original < 2:
        raise CheckpointError(f"{file.path}: its positions are stretched, and their original context is {original}.")
    scale = keys["max_position_embeddings"] / original
    derived = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    factor = file.metadata.get("phi3.rope.scaling.attn_factor", derived)
    if not isinstance(factor, float) or not math.isclose(factor, derived, rel_tol=1e-5):
        keys["rope_scaling"]["attention_factor"] = factor


def _query_scalar(layers: int) -> Callable[[GGUF, Keys], None]:
    """Gemma scales scores by its heads' width; its largest model, of so many layers, by the model's over the heads."""

    def says(file: GGUF, keys: Keys) -> None:
        largest = keys["num_hidden_layers"] == layers
        keys["query_pre_attn_scalar"] = (
            keys["hidden_size"] // keys["num_attention_heads"] if largest else keys["head_dim"]
        )

    return says


def _gemma3(file: GGUF, keys: Keys) -> None:
    _query_scalar(62)(file, keys)
    keys.setdefault("rope_local_base_freq", 10_000.0)


def _stablelm(file: GGUF, keys: Keys) -> None:
    keys["use_qkv_bias"] = "blk.0.attn_q.bias" in file.tensors


def _numbers(file: GGUF, name: str) -> list[float]:
    if name not in file.tensors or len(file.tensors[name].shape) != 1 or file.dtype(name) != torch.float32:
        raise CheckpointError(f"{file.path}: {name} is missing, or no list of float32; fetch the file again.")
    numbers = [float(one) for one in file.read(name)]
    if not numbers or not all(0 < one < 1e30 for one in numbers):
        raise CheckpointError(f"{file.path}: {name} holds a factor that is not above 0; fetch the file again.")
    return numbers


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────

SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
GROUPED = {
    **SIZES,
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
RMS = {**GROUPED, "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
LAYER_NORM = {**GROUPED, "attention.layer_norm_epsilon": "layer_norm_eps"}

IN, OUT = "blk.{layer}.", "model.layers.{layer}."
ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PROJECTIONS = {
    **{f"{IN}attn_{name}": f"{OUT}self_attn.{name}_proj" for name in "qkv"},
    f"{IN}attn_output": f"{OUT}self_attn.o_proj",
}
GATED = {f"{IN}ffn_{name}": f"{OUT}mlp.{name}_proj" for name in ("gate", "up", "down")}
HEAD_NORMS = {f"{IN}attn_{name}_norm": f"{OUT}self_attn.{name}_norm" for name in "qk"}
LLAMA_TENSORS = {
    **ENDS,
    **PROJECTIONS,
    **GATED,
    f"{IN}attn_norm": f"{OUT}input_layernorm",
    f"{IN}ffn_norm": f"{OUT}post_attention_layernorm",
}
AFTER = {
    f"{IN}post_attention_norm": f"{OUT}post_attention_layernorm",
    f"{IN}post_ffw_norm": f"{OUT}post_feedforward_layernorm",
}
BOTH_SIDES = {
    **ENDS,
    **PROJECTIONS,
    **GATED,
    **AFTER,
    f"{IN}attn_norm": f"{OUT}input_layernorm",
    f"{IN}ffn_norm": f"{OUT}pre_feedforward_layernorm",
}
APART = {f"{IN}attn_q": queries_apart, f"{IN}attn_k": keys_apart}
CAPS = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
WINDOW = {"attention.sliding_window": "sliding_window"}
FLAGS = ("use_parallel_residual",)
NEOX, GPT2 = "gpt_neox.layers.{layer}.", "transformer.h.{layer}."

ARCHITECTURES: Mapping[str, Architecture] = {
    # Mistral is written as llama, too, and its first version's window is not written at all.
    "llama": Architecture(family="llama", keys=RMS, tensors=LLAMA_TENSORS, changes=APART, says=_frequency_factors),
    "smollm3": Architecture(family="smollm3", keys=RMS, tensors=LLAMA_TENSORS, changes=APART, says=_frequency_factors),
    "qwen2": Architecture(family="qwen2", keys=RMS, tensors=LLAMA_TENSORS),
    "qwen3": Architecture(family="qwen3", keys=RMS, tensors={**LLAMA_TENSORS, **HEAD_NORMS}),
    "olmo2": Architecture(family="olmo2", keys=RMS, tensors={**ENDS, **PROJECTIONS, **GATED, **AFTER, **HEAD_NORMS}),
    "gemma": Architecture(family="gemma", keys=RMS, tensors=LLAMA_TENSORS, plus_one=True),
    "gemma2": Architecture(
        family="gemma2",
        keys={**RMS, **CAPS, **WINDOW},
        tensors=BOTH_SIDES,
        plus_one=True,
        says=_query_scalar(46),
    ),
    "gemma3": Architecture(
        family="gemma3_text",
        keys={
            **RMS,
            **WINDOW,
            "final_logit_softcapping": "final_logit_softcapping",
            "rope.freq_base_swa": "rope_local_base_freq",
        },
        tensors={**BOTH_SIDES, **HEAD_NORMS},
        plus_one=True,
        says=_gemma3,
    ),
    "phi3": Architecture(
        family="phi3",
        keys={
            **RMS,
            **WINDOW,
            "rope.scaling.original_context_length": "original_max_position_embeddings",
            "rope.scaling.attn_factor": "rope_scaling",
        },
        tensors={
            **ENDS,
            f"{IN}attn_norm": f"{OUT}input_layernorm",
            f"{IN}attn_qkv": f"{OUT}self_attn.qkv_proj",
            f"{IN}attn_output": f"{OUT}self_attn.o_proj",
            f"{IN}ffn_norm": f"{OUT}post_attention_layernorm",
            f"{IN}ffn_up": f"{OUT}mlp.gate_up_proj",
            f"{IN}ffn_down": f"{OUT}mlp.down_proj",
        },
        partial="partial_rotary_factor",
        says=_long_factors,
    ),
    "phi2": Architecture(
        family="phi",
        keys=LAYER_NORM,
        tensors={
            **ENDS,
            **PROJECTIONS,
            "output_norm": "model.final_layernorm",
            f"{IN}attn_norm": f"{OUT}input_layernorm",
            f"{IN}attn_output": f"{OUT}self_attn.dense",
            f"{IN}ffn_up": f"{OUT}mlp.fc1",
            f"{IN}ffn_down": f"{OUT}mlp.fc2",
        },
        partial="partial_rotary_factor",
    ),
    "stablelm": Architecture(
        family="stablelm",
        keys={
            **{key: theirs for key, theirs in LAYER_NORM.items() if theirs != "head_dim"},
            "use_parallel_residual": "use_parallel_residual",
        },
        tensors=LLAMA_TENSORS,
        partial="partial_rotary_factor",
        head_dim=False,
        says=_stablelm,
    ),
    "gptneox": Architecture(
        family="gpt_neox",
        keys={
            **SIZES,
            "attention.layer_norm_epsilon": "layer_norm_eps",
            "use_parallel_residual": "use_parallel_residual",
            "rope.freq_base": "rope_theta",
        },
        tensors={
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "embed_out",
            f"{IN}attn_norm": f"{NEOX}input_layernorm",
            f"{IN}attn_qkv": f"{NEOX}attention.query_key_value",
            f"{IN}attn_output": f"{NEOX}attention.dense",
            f"{IN}ffn_norm": f"{NEOX}post_attention_layernorm",
            f"{IN}ffn_up": f"{NEOX}mlp.dense_h_to_4h",
            f"{IN}ffn_down": f"{NEOX}mlp.dense_4h_to_h",
        },
        changes={f"{IN}attn_qkv": by_head},
        partial="partial_rotary_factor",
        head_dim=False,
    ),
    "gpt2": Architecture(
        family="gpt2",
        keys={
            "context_length": "n_positions",
            "embedding_length": "n_embd",
            "block_count": "n_layer",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        tensors={
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
            f"{IN}attn_norm": f"{GPT2}ln_1",
            f"{IN}attn_qkv": f"{GPT2}attn.c_attn",
            f"{IN}attn_output": f"{GPT2}attn.c_proj",
            f"{IN}ffn_norm": f"{GPT2}ln_2",
            f"{IN}ffn_up": f"{GPT2}mlp.c_fc",
            f"{IN}ffn_down": f"{GPT2}mlp.c_proj",
        },
        changes={f"{IN}{name}": turned_over for name in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")},
        head_dim=False,
    ),
}
"""llama.cpp's architectures that we read."""
