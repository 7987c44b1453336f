"""StableLM, past its grid: what a missing key means, and a norm that is missing for one head."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import StableLmForCausalLM

from clearhead.checkpoint import load
from clearhead.errors import CheckpointError
from tests.checkpoint.support import change_config, drop_tensor
from tests.parity import support
from tests.parity.grids.stablelm import small


def test_a_file_that_is_silent_turns_a_quarter_of_each_head_and_has_32_key_value_heads(tmp_path: Path) -> None:
    config = small(hidden_size=256, num_attention_heads=32, num_key_value_heads=32, qk_layernorm=False)
    theirs = support.tiny(StableLmForCausalLM, config)
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, rope_parameters=..., num_key_value_heads=..., rope_theta=10_000)
    support.same_forward(load(tmp_path).model, theirs, 20)


def test_each_head_has_a_norm_of_its_own_and_a_missing_one_is_named(tmp_path: Path) -> None:
    ours = support.loaded(support.tiny(StableLmForCausalLM, small()), tmp_path)
    assert ours.model.state_dict()["decoder.blocks.0.attention.q_norm.weight"].shape == (4, 8)
    assert ours.model.state_dict()["decoder.blocks.0.attention.k_norm.weight"].shape == (2, 8)
    drop_tensor(tmp_path, "model.layers.1.self_attn.q_layernorm.norms.3.weight")
    with pytest.raises(CheckpointError, match=r"lacks the tensor layers\.1\.self_attn\.q_layernorm\.norms\.3\.weight"):
        load(tmp_path)
