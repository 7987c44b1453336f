"""GPT-2, past its grid: the hub's file, spellings, half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from clearhead.checkpoint import load
from tests.parity import support


def test_the_hubs_file_has_no_prefix_and_carries_masks(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = GPT2Config(vocab_size=20, n_embd=8, n_head=2, n_layer=2, n_positions=12)
    theirs = support.tiny(GPT2LMHeadModel, config)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(2):
        bare[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 12, 12).tril()
        bare[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(bare, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    ignored = {account.name for account in ours.report.tensors if account.fate == "ignored"}
    assert ignored == {f"h.{layer}.attn.{name}" for layer in range(2) for name in ("bias", "masked_bias")}


def test_the_spelling_of_a_file_is_kept(tmp_path: Path) -> None:
    import json

    from clearhead.checkpoint import export

    config = GPT2Config(vocab_size=20, n_embd=8, n_head=2, n_layer=1, activation_function="gelu_pytorch_tanh")
    ours = support.loaded(support.tiny(GPT2LMHeadModel, config), tmp_path)
    assert ours.config.decoder is not None and ours.config.decoder.feedforward_of(0).activation == "gelu_tanh"
    export(ours, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["activation_function"] == "gelu_pytorch_tanh"
    assert written["n_inner"] is None and written["summary_type"] == "cls_index"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_and_goes_both_ways(dtype: str, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=20, n_embd=8, n_head=2, n_layer=2, n_positions=12)
    theirs = support.tiny(GPT2LMHeadModel, config).to(getattr(torch, dtype))
    ours = support.loaded(theirs, tmp_path)
    assert ours.model.dtype == getattr(torch, dtype)
    support.same_both_ways(ours, theirs, tmp_path)
    assert load(tmp_path, dtype="float32").model.dtype == torch.float32
