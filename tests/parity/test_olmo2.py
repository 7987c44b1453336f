"""OLMo 2, past its grid: scaling as transformers 4 wants it spelled, and norms over all heads at once."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import Olmo2ForCausalLM

from clearhead.checkpoint import export, load
from tests.checkpoint.support import change_config
from tests.parity import support
from tests.parity.grids.olmo2 import small


def test_scaling_is_spelled_as_transformers_4_wants_it(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}
    theirs = support.tiny(Olmo2ForCausalLM, small(rope_parameters=rope))
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, rope_parameters=..., rope_theta=77.0, rope_scaling={"type": "linear", "factor": 2.0})
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    keys = json.loads((export(ours, tmp_path / "out") / "config.json").read_text())
    assert keys["rope_scaling"] == {"type": "linear", "factor": 2.0} and keys["rope_theta"] == 77.0
    assert keys["rope_parameters"] == rope


def test_q_and_k_have_one_norm_over_all_their_heads(tmp_path: Path) -> None:
    state = support.loaded(support.tiny(Olmo2ForCausalLM, small()), tmp_path).model.state_dict()
    assert state["decoder.blocks.0.attention.q_norm.weight"].shape == (16,)
    assert state["decoder.blocks.0.attention.k_norm.weight"].shape == (8,)
    assert not any("before" in name for name in state)
