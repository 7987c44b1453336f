"""A tiny checkpoint on disk, written by hand, and ways to spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clearhead.checkpoint import export
from clearhead.model import Decoder, ModelConfig, build, presets


def tiny_config(**more: Any) -> ModelConfig:
    return presets.llama(
        n_layers=2, n_heads=4, n_kv_heads=2, d_model=16, d_ff=20, vocab_size=30, context=32, tied=False, **more
    )


def tiny_model(config: ModelConfig | None = None) -> Decoder:
    torch.manual_seed(0)
    model = build(config or tiny_config())
    assert isinstance(model, Decoder)
    return model.eval()


def checkpoint(folder: Path, family: str = "llama") -> Path:
    """A Llama's folder."""
    return export(tiny_model(), folder, family=family)


def change_config(folder: Path, **changes: Any) -> None:
    """Set keys of config.json; `...` takes one away."""
    path = folder / "config.json"
    keys = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in keys.items() if value is not ...}))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Do something to the dict of tensors."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def drop_tensor(folder: Path, name: str) -> None:
    """Take a tensor away."""

    def drop(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    change_tensors(folder, drop)


def raw(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with this header, whatever it says."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data
