"""inspect: the drawing, the figures, and every key with what became of it, also of a checkpoint that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clearhead.cli import main
from clearhead.cli.diagram import diagram
from clearhead.model import presets
from clearhead.model.config import (
    AttentionConfig,
    FeedForwardConfig,
    LanguageModel,
    ModelConfig,
    Parallel,
    Rotary,
    StackConfig,
)

GPT2 = """\
    ids
    │
    ◆  embedding 50,257 × 768 + learned positions 1,024
    │
╭───┼── decoder block × 12 ────────────────────────────╮
│   ├──╮                                               │
│   │  LayerNorm                                       │
│   │  self-attention    12 heads × 64, causal         │
│   ⊕──╯                                               │
│   ├──╮                                               │
│   │  LayerNorm                                       │
│   │  feed-forward      768 → 3,072 → 768, gelu tanh  │
│   ⊕──╯                                               │
╰───┼──────────────────────────────────────────────────╯
    │
    ◆  LayerNorm
    │
    ◆  language model, 50,257 logits, tied to the embedding"""


def test_gpt2_is_drawn() -> None:
    assert "\n".join(diagram(presets.gpt2())) == GPT2


def test_both_stacks_of_the_first_transformer_are_drawn() -> None:
    lines = diagram(presets.vaswani())
    assert "    source ids" in lines and "    target ids" in lines
    assert any("cross-attention   8 heads × 64, reads the encoder" in line for line in lines)
    assert sum("◆  LayerNorm" in line for line in lines) == 5  # after each branch, on the stream


def test_layers_that_differ_and_branches_side_by_side_are_told() -> None:
    local, whole = AttentionConfig(n_heads=4, n_kv_heads=1, window=16), AttentionConfig(n_heads=4, n_kv_heads=1)
    stack = StackConfig(
        n_layers=7,
        attention=(local, local, whole, local, local, whole, local),
        feedforward=FeedForwardConfig(d_ff=64, gated=True),
        position=Rotary(theta=1e6, fraction=0.5),
        residual=Parallel(shared_norm=True),
    )
    drawn = diagram(ModelConfig(vocab_size=99, d_model=32, context=64, decoder=stack, head=LanguageModel(tied=False)))
    text = "\n".join(drawn)
    assert all(len(line) <= 80 for line in drawn)
    assert "window 16" in text and "layers 0–1, 3–4, 6" in " ".join(text.replace("│", " ").split()), text
    assert "and beside it" in text and text.count("LayerNorm") == 2
    assert "over 1 key/value head," in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 20}
    config = LlamaConfig(vocab_size=20, num_hidden_layers=2, max_position_embeddings=64, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_every_key_stands_with_what_became_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder), "--tensors"]) == 0
    said = capsys.readouterr().out
    for key in json.loads((folder / "config.json").read_text()):
        assert key in said
    assert "decoder block × 2" in said and "lm_head.weight" in said
    assert "keys and values, a token" in said and "128 B" in said  # 2 layers · (k, v) · 2 heads · 4 · 4 bytes


def test_a_refused_checkpoint_is_told_whole_and_ends_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"surprising_flag": True}))
    assert main(["inspect", str(folder)]) == 2
    said = capsys.readouterr()
    assert "it cannot be loaded" in said.out.replace("\n", "") and "Refused" in said.out and "hidden_size" in said.out
    assert said.err.count("\n") == 1 and "surprising_flag" in said.err
