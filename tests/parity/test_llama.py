"""Llama, past its grid: how files spell rotary positions; stories260K and alice against what their makers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from clearhead.checkpoint import export, load
from tests.parity import support
from tests.parity.grids.llama import small

SCALING = {"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize("kind", ["rope_type", "type"])
def test_the_old_spelling_of_rope_means_the_same_and_both_are_written(kind: str, tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500.0, **SCALING}
    theirs = support.tiny(LlamaForCausalLM, small(rope_parameters=rope))
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 500.0, "rope_scaling": {kind: "llama3", **SCALING}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    export(ours, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["rope_parameters"] == rope
    assert written["rope_theta"] == 500.0
    assert written["rope_scaling"] == {"rope_type": "llama3", **SCALING}


def test_a_theta_alone_is_not_lost(tmp_path: Path) -> None:
    theirs = support.tiny(LlamaForCausalLM, small(rope_parameters={"rope_type": "default", "rope_theta": 77.0}))
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_theta": 77.0, "rope_scaling": None}))
    support.same_forward(load(tmp_path).model, theirs, 20)


def test_stories_load_and_write_as_their_readme_says(shared: Path) -> None:
    folder = shared / "models" / "stories260K-llama"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    ours = load(folder)
    theirs = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert ours.tokenizer is not None
    support.same_forward(ours.model, theirs, 512)
    support.same_cached(ours.model, theirs, 512)


def test_alice_gives_the_logits_of_her_own_package(tmp_path: Path) -> None:
    glassllm = pytest.importorskip("glassllm", reason="pip install glassllm brings alice")
    model, tokenizer = glassllm.load_pretrained("en")
    ours = load("alice")
    ids = tokenizer.encode("Alice was beginning to get very tired of sitting by her sister")
    assert (
        ours.tokenizer is not None
        and ours.tokenizer.encode("Alice was beginning to get very tired of sitting by her sister").ids == ids
    )
    with glassllm.no_grad():
        want = torch.from_numpy(model(ids).data)
    with torch.no_grad():
        got = ours.model(torch.tensor([ids])).logits
    assert got is not None and (got - want).abs().max() <= 1e-5 * want.abs().max()

    export(ours, tmp_path / "out")
    theirs, info = LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        support.close(got, theirs.eval()(torch.tensor([ids])).logits, "logits of the export")
