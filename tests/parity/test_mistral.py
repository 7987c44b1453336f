"""Mistral, past its grid: what a missing key means, and a file whose layers differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import MistralForCausalLM

from clearhead.checkpoint import load
from clearhead.errors import UnknownKeyError
from tests.checkpoint.support import change_config
from tests.parity import support
from tests.parity.grids.mistral import small


def test_a_silent_file_has_a_window_of_4096_and_8_key_value_heads(tmp_path: Path) -> None:
    theirs = support.tiny(MistralForCausalLM, small(num_attention_heads=8, num_key_value_heads=8, sliding_window=4096))
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, sliding_window=..., num_key_value_heads=..., rope_parameters=..., rope_theta=10_000)
    ours = load(tmp_path)
    assert ours.config.decoder is not None and ours.config.decoder.attention_of(0).window == 4096
    support.same_forward(ours.model, theirs, 20)


def test_layers_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    support.tiny(MistralForCausalLM, small()).save_pretrained(tmp_path)
    change_config(tmp_path, layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(
        UnknownKeyError, match=r"layer_types=.* cannot be run: Mistral's layers all have the one window"
    ):
        load(tmp_path)
