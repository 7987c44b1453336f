"""Writers of the other formats, each as its own project writes it, from the tensors and the config of a folder."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

META = {
    "model.embed_tokens.weight": ("tok_embeddings.weight", 1),
    "input_layernorm.weight": ("attention_norm.weight", None),
    "self_attn.q_proj.weight": ("attention.wq.weight", 0),
    "self_attn.k_proj.weight": ("attention.wk.weight", 0),
    "self_attn.v_proj.weight": ("attention.wv.weight", 0),
    "self_attn.o_proj.weight": ("attention.wo.weight", 1),
    "post_attention_layernorm.weight": ("ffn_norm.weight", None),
    "mlp.gate_proj.weight": ("feed_forward.w1.weight", 0),
    "mlp.down_proj.weight": ("feed_forward.w2.weight", 1),
    "mlp.up_proj.weight": ("feed_forward.w3.weight", 0),
    "model.norm.weight": ("norm.weight", None),
    "lm_head.weight": ("output.weight", 0),
}


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def together(tensor: Tensor, heads: int) -> Tensor:
    """Rotary pairs side by side."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(tensor.shape).contiguous()


def as_meta(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[Tensor, int | None]]]:
    """Meta's names, with the axis that each is sliced on."""
    keys, tensors = read(folder)
    heads = {"q_proj": keys["num_attention_heads"], "k_proj": keys["num_key_value_heads"]}
    found: dict[str, tuple[Tensor, int | None]] = {}
    for name, tensor in tensors.items():
        prefix = ""
        if name.startswith("model.layers."):
            _, _, layer, name = name.split(".", 3)
            prefix = f"layers.{layer}."
        theirs, axis = META[name]
        kind = name.split(".")[1]
        found[prefix + theirs] = (together(tensor, heads[kind]) if kind in heads else tensor, axis)
    return keys, found


def write_meta(source: Path, folder: Path, *, slices: int = 1, by_rows: bool = False, **more: Any) -> Path:
    """consolidated.*.pth and params.json. by_rows: the table is sliced as Llama 3's."""
    folder.mkdir()
    keys, tensors = as_meta(source)
    for number in range(slices):
        part = {}
        for name, (tensor, axis) in tensors.items():
            axis = 0 if by_rows and name == "tok_embeddings.weight" else axis
            part[name] = (tensor if axis is None else tensor.chunk(slices, axis)[number]).contiguous().clone()
        torch.save(part | {"rope.freqs": torch.ones(2)}, folder / f"consolidated.{number:02d}.pth")
    params = {
        "dim": keys["hidden_size"],
        "n_layers": keys["num_hidden_layers"],
        "n_heads": keys["num_attention_heads"],
        "n_kv_heads": keys["num_key_value_heads"],
        "multiple_of": 4,
        "norm_eps": keys["rms_norm_eps"],
        "rope_theta": keys["rope_theta"],
        "vocab_size": -1,
        **more,
    }
    (folder / "params.json").write_text(json.dumps({key: value for key, value in params.items() if value is not ...}))
    return folder


def write_llama2c(source: Path, path: Path, *, version: int = 0, group: int = 4) -> Path:
    keys, named = as_meta(source)
    tensors = {name: tensor.float() for name, (tensor, _) in named.items()}
    shared = "output.weight" not in tensors
    sizes = [
        *(keys["hidden_size"], keys["intermediate_size"], keys["num_hidden_layers"], keys["num_attention_heads"]),
        *(keys["num_key_value_heads"], keys["vocab_size"], keys["max_position_embeddings"]),
    ]

    def layers(*kinds: str) -> list[str]:
        return [f"layers.{layer}.{kind}.weight" for kind in kinds for layer in range(keys["num_hidden_layers"])]

    attention = layers(*(f"attention.w{name}" for name in "qkvo"))
    forward = layers(*(f"feed_forward.w{number}" for number in (1, 2, 3)))
    head = [] if shared else ["output.weight"]
    if version == 0:
        sizes[5] *= 1 if shared else -1
        norms = layers("attention_norm"), layers("ffn_norm")
        order = ["tok_embeddings.weight", *norms[0], *attention, *norms[1], *forward, "norm.weight"]
        width = keys["hidden_size"] // keys["num_attention_heads"]
        turned = np.zeros(keys["max_position_embeddings"] * width, dtype="<f4").tobytes()
        data = struct.pack("<7i", *sizes) + b"".join(_floats(tensors[name]) for name in order) + turned
        path.write_bytes(data + b"".join(_floats(tensors[name]) for name in head))
        return path
    data = struct.pack("<Ii7iB", 0x616B3432, version, *sizes, shared)
    data += struct.pack("<i", group) if version == 2 else b""
    data = data.ljust(256, b"\0")
    data += b"".join(_floats(tensors[name]) for name in (*layers("attention_norm", "ffn_norm"), "norm.weight"))
    for name in ("tok_embeddings.weight", *attention, *forward, *head):
        data += _floats(tensors[name]) if version == 1 else _packed(tensors[name], group)
    path.write_bytes(data)
    return path


def _floats(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().astype("<f4").tobytes()


def _packed(tensor: Tensor, group: int) -> bytes:
    """llama2.c's Q8_0."""
    rows = tensor.reshape(-1, group)
    scale = rows.abs().amax(1) / 127.0
    return torch.round(rows / scale[:, None]).to(torch.int8).numpy().tobytes() + _floats(scale)


def write_vocabulary(pieces: list[tuple[str, float]], path: Path, *, as_characters: bool = False) -> Path:
    """llama2.c's tokenizer.bin. as_characters: a byte's piece is the character of its number, as in older files."""
    data = struct.pack("<I", 27)
    for id, (text, score) in enumerate(pieces):
        text = {1: "\n<s>\n", 2: "\n</s>\n"}.get(id, text)
        if as_characters and 3 <= id < 259:
            text = chr(int(text[3:5], 16))
        one = text.replace("▁", " ").encode()
        data += struct.pack("<fI", score, len(one)) + one
    path.write_bytes(data)
    return path


def write_ranks(tokens: list[bytes], path: Path) -> Path:
    """Llama 3's tokenizer.model."""
    lines = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(tokens)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def write_bin(source: Path, folder: Path, *, shards: int = 1, old: bool = False) -> Path:
    """pytorch_model.bin, or shards with their index. old: as PyTorch wrote it before 1.6."""
    folder.mkdir()
    _, tensors = read(source)
    (folder / "config.json").write_text((source / "config.json").read_text())
    names = sorted(tensors)
    places = {}
    for number in range(shards):
        part = {name: tensors[name].clone() for name in names[number::shards]}
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        torch.save(part, folder / file, _use_new_zipfile_serialization=not old)
        places |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


# ── GGUF, as llama.cpp's converter writes it, by the gguf library's own names ────────────────────────────────────────


def _by_parts(tensor: Tensor, keys: dict[str, Any]) -> Tensor:
    """q, k and v head by head, as all queries, all keys, all values."""
    heads = keys["num_attention_heads"]
    return tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).reshape(tensor.shape)


def converted(arch: str, name: str, tensor: Tensor, keys: dict[str, Any]) -> Tensor:
    """What the converter does to a tensor of Hugging Face's."""
    if arch in ("llama", "smollm3") and ("q_proj" in name or "k_proj" in name):
        return together(tensor, keys["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])
    if arch.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if arch == "gpt2" and tensor.ndim == 2 and ".h." in name:
        return tensor.t()
    if arch == "gptneox" and "query_key_value" in name:
        return _by_parts(tensor, keys)
    return tensor


def gguf_keys(writer: Any, arch: str, keys: dict[str, Any]) -> None:
    """The metadata of a model, by the library's functions."""
    context = keys.get("max_position_embeddings", keys.get("n_positions"))
    writer.add_context_length(context)
    writer.add_embedding_length(keys.get("hidden_size", keys.get("n_embd")))
    writer.add_block_count(keys.get("num_hidden_layers", keys.get("n_layer")))
    inner = keys.get("intermediate_size", keys.get("n_inner"))
    writer.add_feed_forward_length(4 * keys["n_embd"] if inner is None else inner)
    heads = keys.get("num_attention_heads", keys.get("n_head"))
    writer.add_head_count(heads)
    width = keys.get("head_dim") or keys.get("hidden_size", 0) // heads
    if keys.get("num_key_value_heads") is not None:
        writer.add_head_count_kv(keys["num_key_value_heads"])
    if "rms_norm_eps" in keys:
        writer.add_layer_norm_rms_eps(keys["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(keys.get("layer_norm_eps", keys.get("layer_norm_epsilon")))
    if arch in ("qwen3", "gemma", "gemma2", "gemma3", "llama"):
        writer.add_key_length(width)
        writer.add_value_length(width)
    rope = keys.get("rope_parameters") or {}
    globally = rope.get("full_attention", rope)
    part = globally.get("partial_rotary_factor", keys.get("partial_rotary_factor", 1.0))
    if rope and arch != "gemma3":
        writer.add_rope_dimension_count(int(width * part))
    if rope:
        writer.add_rope_freq_base(globally["rope_theta"])
    if "sliding_attention" in rope:
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if keys.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(keys["attn_logit_softcapping"])
    if keys.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(keys["final_logit_softcapping"])
    if arch in ("gemma2", "gemma3", "phi3"):
        writer.add_sliding_window(keys["sliding_window"] or 0)
    if globally.get("rope_type") == "longrope":
        writer.add_rope_scaling_orig_ctx_len(keys["original_max_position_embeddings"])
        for kind in ("short", "long"):
            writer.add_tensor(f"rope_factors_{kind}.weight", np.array(globally[f"{kind}_factor"], dtype=np.float32))
    if "use_parallel_residual" in keys:
        writer.add_parallel_residual(keys["use_parallel_residual"])


def write_gguf(source: Path, path: Path, arch: str, *, kinds: dict[str, str] | None = None, more: Any = None) -> Path:
    """A GGUF file. kinds: the type of some tensors, by their GGUF names; else F32. more: called with the writer."""
    import gguf

    keys, tensors = read(source)
    writer = gguf.GGUFWriter(path, arch)
    gguf_keys(writer, arch, keys)
    if more is not None:
        more(writer)
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(architecture, keys.get("num_hidden_layers", keys.get("n_layer")))
    for name, tensor in tensors.items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        kind = gguf.GGMLQuantizationType[(kinds or {}).get(theirs, "F32")]
        numbers = converted(arch, name, tensor.float(), keys).contiguous().numpy()
        writer.add_tensor(theirs, gguf.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
