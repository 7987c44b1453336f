"""BLOOM, past its grid: the hub's files, and the one flag that is not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForCausalLM

from clearhead.checkpoint import export, load
from clearhead.errors import UnknownKeyError
from tests.parity import support

CONFIG = {"vocab_size": 20, "hidden_size": 12, "n_head": 3, "n_layer": 2, "pad_token_id": 3}


def test_the_hubs_file_has_older_keys_and_no_prefix(tmp_path: Path) -> None:
    theirs = support.tiny(BloomForCausalLM, BloomConfig(**CONFIG))
    theirs.save_pretrained(tmp_path)
    keys = json.loads((tmp_path / "config.json").read_text())
    keys |= {"n_embed": keys.pop("hidden_size"), "num_attention_heads": keys.pop("n_head"), "pretraining_tp": 4}
    keys |= {"attention_softmax_in_fp32": True, "masked_softmax_fusion": True, "bias_dropout_fusion": True}
    keys |= {"offset_alibi": 100, "skip_bias_add": True, "skip_bias_add_qkv": False, "n_inner": None}
    keys |= {"seq_length": 64, "unk_token_id": 0, "architectures": None}
    (tmp_path / "config.json").write_text(json.dumps(keys))
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    assert ours.config.context == 64
    support.same_forward(ours.model, theirs, 20)
    back, info = BloomForCausalLM.from_pretrained(
        export(ours, tmp_path / "out"), output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values())
    support.same_forward(ours.model, back.eval(), 20)


def test_outputs_summed_in_slices_are_refused(tmp_path: Path) -> None:
    config = BloomConfig(slow_but_exact=True, pretraining_tp=2, **CONFIG)
    support.tiny(BloomForCausalLM, config).save_pretrained(tmp_path)
    with pytest.raises(UnknownKeyError, match="slow_but_exact=True with pretraining_tp=2"):
        load(tmp_path)
