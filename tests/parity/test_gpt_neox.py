"""GPT-NeoX, past its grid: Pythia's files, whose keys and tensors are older."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXForCausalLM

from clearhead.checkpoint import export, load
from clearhead.errors import CheckpointError
from tests.checkpoint.support import change_config
from tests.parity import support
from tests.parity.grids.gpt_neox import small

ROPE = {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 0.5}
OLD = {"rope_parameters": ..., "rotary_emb_base": 77.0, "rotary_pct": 0.5}


def test_pythias_keys_mean_the_same_and_both_spellings_are_written(tmp_path: Path) -> None:
    theirs = support.tiny(GPTNeoXForCausalLM, small(rope_parameters=dict(ROPE)))
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, **OLD)
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    export(ours, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["rope_parameters"] == ROPE and written["rope_scaling"] is None
    assert written["rotary_emb_base"] == 77.0 and written["rotary_pct"] == 0.5


def test_what_4_57_wrote_beside_them_is_read_and_must_agree(tmp_path: Path) -> None:
    theirs = support.tiny(GPTNeoXForCausalLM, small(rope_parameters=dict(ROPE)))
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, **OLD, rope_theta=77.0, partial_rotary_factor=0.5, rope_scaling=None)
    support.same_forward(load(tmp_path).model, theirs, 20)
    change_config(tmp_path, rope_theta=78.0)
    with pytest.raises(CheckpointError, match="rope_theta and rotary_emb_base disagree"):
        load(tmp_path)


def test_masks_and_frequencies_in_old_files_are_ignored_by_name(tmp_path: Path) -> None:
    theirs = support.tiny(GPTNeoXForCausalLM, small())
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        "attention.bias": torch.ones(1, 1, 24, 24).tril().bool(),
        "attention.masked_bias": torch.tensor(-1e9),
        "attention.rotary_emb.inv_freq": torch.ones(1),
    }
    more = {f"gpt_neox.layers.{layer}.{name}": tensor.clone() for layer in (0, 1) for name, tensor in old.items()}
    save_file(tensors | more, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    assert {account.name for account in ours.report.tensors if account.fate == "ignored"} == set(more)
