"""SmolLM 1 and 2 are Llama; SmolLM 3 past its grid: which layers turn, as its files say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, SmolLM3ForCausalLM

from clearhead.checkpoint import export, load
from clearhead.errors import CheckpointError
from clearhead.model.config import NoPosition
from tests.checkpoint.support import change_config
from tests.parity import support
from tests.parity.grids import llama, smollm3


def test_smollm_2_is_llama(tmp_path: Path) -> None:
    """The keys of its own files."""
    theirs = support.tiny(LlamaForCausalLM, llama.small(tie_word_embeddings=True, num_key_value_heads=1))
    theirs.save_pretrained(tmp_path)
    own: dict[str, Any] = {
        "is_llama_config": True,
        "rope_interleaved": False,
        "rope_theta": 10_000,
        "rope_scaling": None,
        "pretraining_tp": 1,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    }
    change_config(tmp_path, rope_parameters=..., head_dim=..., **own)
    ours = load(tmp_path)
    assert ours.family == "llama"
    support.same_forward(ours.model, theirs, 20)


def test_smollm_3_as_its_own_file_has_it(tmp_path: Path) -> None:
    theirs = support.tiny(SmolLM3ForCausalLM, smollm3.small(num_hidden_layers=4, use_sliding_window=False))
    theirs.save_pretrained(tmp_path)
    own = {
        "no_rope_layers": [1, 0, 1, 0, 1, 0],  # more than there are layers
        "rope_theta": 2_000_000.0,
        "rope_scaling": None,
        "sliding_window": None,
        "max_window_layers": 28,
        "pretraining_tp": 2,
    }
    change_config(tmp_path, rope_parameters=..., layer_types=["full_attention"] * 4, **own)
    ours = load(tmp_path)
    decoder = ours.config.decoder
    assert decoder is not None
    assert [decoder.attention_of(layer).rotary for layer in range(4)] == [None, NoPosition()] * 2
    support.same_forward(ours.model, theirs, 20)
    keys = json.loads((export(ours.model, tmp_path / "out", family="smollm3") / "config.json").read_text())
    assert (keys["no_rope_layers"], keys["no_rope_layer_interval"]) == ([1, 0, 1, 0], 2)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"no_rope_layers": [1]}, r"no_rope_layers=\[1\] is not a list of 1 or 0 for each of 2 layers"),
        ({"no_rope_layers": [1, "0"]}, "is not a list of 1 or 0"),
        ({"no_rope_layers": ..., "no_rope_layer_interval": 0}, "no_rope_layer_interval=0 is not a number of layers"),
        ({"layer_types": ["full_attention"]}, "layer_types=.* is not a list of 2"),
    ],
)
def test_a_pattern_that_is_none_is_one_line(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    support.tiny(SmolLM3ForCausalLM, smollm3.small()).save_pretrained(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=what):
        load(tmp_path)
