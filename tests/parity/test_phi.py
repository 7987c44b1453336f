"""Phi and Phi-3, past their grids: how published files spell LongRoPE, and heads of a width of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Phi3ForCausalLM, PhiForCausalLM

from clearhead.checkpoint import export, load
from clearhead.errors import UnknownKeyError
from tests.parity import support
from tests.parity.grids.phi import small, small3

FACTORS = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [1.0, 2.0, 3.0, 4.0]}


def edited(folder: Path, *without: str, **keys: Any) -> None:
    """Write other keys into the folder's config.json, and take some out."""
    path = folder / "config.json"
    says = {key: value for key, value in json.loads(path.read_text()).items() if key not in without}
    path.write_text(json.dumps(says | keys))


@pytest.mark.parametrize("kind", ["longrope", "su", "yarn"])
def test_longrope_as_version_4_spelled_it_means_the_same(kind: str, tmp_path: Path) -> None:
    theirs = support.tiny(Phi3ForCausalLM, small3(original_max_position_embeddings=8))
    theirs.save_pretrained(tmp_path)
    more = {"attention_bias": False, "lm_head_bias": False, "full_attn_mod": 1, "auto_map": {"AutoConfig": "x.Y"}}
    edited(tmp_path, "rope_parameters", rope_theta=10_000.0, rope_scaling={"type": kind, **FACTORS}, **more)
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20, alone=True)
    export(ours, tmp_path / "out")
    says = json.loads((tmp_path / "out" / "config.json").read_text())
    assert says["rope_scaling"] == {"type": "longrope", **FACTORS}  # version 4 refuses it with any other key
    assert says["rope_parameters"]["rope_type"] == "longrope" and says["original_max_position_embeddings"] == 8
    back = Phi3ForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    support.same_forward(ours.model, back, 20, alone=True)


def test_phi_3_refuses_by_name_what_it_cannot_be(tmp_path: Path) -> None:
    support.tiny(Phi3ForCausalLM, small3()).save_pretrained(tmp_path)
    edited(tmp_path, attention_bias=True)
    with pytest.raises(UnknownKeyError, match="attention_bias=True"):
        load(tmp_path)
    edited(tmp_path, "attention_bias", rope_parameters={"rope_type": "linear", "factor": 2.0})
    with pytest.raises(UnknownKeyError, match="longrope alone"):
        load(tmp_path)


@pytest.mark.parametrize("cls", [PhiForCausalLM, Phi3ForCausalLM])
def test_heads_of_a_width_of_their_own(cls: Any, tmp_path: Path) -> None:
    rope = {"rope_theta": 50.0}
    plain = small3(rope_parameters=rope, head_dim=12) if cls is Phi3ForCausalLM else None
    theirs = support.tiny(cls, plain or small(rope_parameters=rope, head_dim=12, qk_layernorm=False))
    ours = support.loaded(theirs, tmp_path)
    assert ours.config.decoder is not None and ours.config.decoder.attention_of(0).d_head == 12
    support.same_forward(ours.model, theirs, 20)
    support.same_both_ways(ours, theirs, tmp_path)


@torch.no_grad()
def test_the_head_of_phi_has_a_bias_tied_or_not(tmp_path: Path) -> None:
    for tied in (True, False):
        theirs = support.tiny(PhiForCausalLM, small(tie_word_embeddings=tied))
        ours = support.loaded(theirs, tmp_path / str(tied))
        names = set(ours.model.state_dict())
        assert "head.bias" in names and ("head.weight" in names) is not tied
        support.same_forward(ours.model, theirs, 20)
