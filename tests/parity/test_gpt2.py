"""GPT-2 against transformers, over a grid of its config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

from clearhead.checkpoint import load
from tests.parity import support

CLASSES = {
    "lm": GPT2LMHeadModel,
    "base": GPT2Model,
    "sequence": GPT2ForSequenceClassification,
    "token": GPT2ForTokenClassification,
}


@st.composite
def configs(draw: st.DrawFn) -> GPT2Config:
    heads = draw(st.sampled_from([1, 2, 4]))
    return GPT2Config(
        vocab_size=draw(st.integers(11, 40)),
        n_embd=heads * draw(st.sampled_from([4, 8])),
        n_head=heads,
        n_layer=draw(st.integers(1, 3)),
        n_positions=draw(st.integers(9, 20)),
        n_inner=draw(st.sampled_from([None, 12, 40])),
        activation_function=draw(st.sampled_from(["gelu_new", "gelu", "relu", "silu", "gelu_pytorch_tanh"])),
        layer_norm_epsilon=draw(st.sampled_from([1e-5, 1e-3])),
        scale_attn_weights=draw(st.booleans()),
        scale_attn_by_inverse_layer_idx=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=support.PAD,
        bos_token_id=1,
        eos_token_id=draw(st.sampled_from([2, [2, 3]])),
    )


@settings(max_examples=20)
@given(configs(), st.sampled_from(sorted(CLASSES)))
def test_gpt2_gives_the_same_and_goes_both_ways(config: GPT2Config, kind: str) -> None:
    theirs = support.tiny(CLASSES[kind], config)
    with support.folder() as path:
        ours = support.loaded(theirs, path)
        support.same_forward(ours.model, theirs, config.vocab_size)
        if kind == "lm":
            support.same_cached(ours.model, theirs, config.vocab_size)
        support.same_both_ways(ours, theirs, path)


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
