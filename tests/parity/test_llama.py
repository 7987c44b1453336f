"""Llama against transformers, over a grid of its config; stories260K and alice against what their makers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)

from clearhead.checkpoint import export, load
from tests.parity import support

CLASSES = {
    "lm": LlamaForCausalLM,
    "base": LlamaModel,
    "sequence": LlamaForSequenceClassification,
    "token": LlamaForTokenClassification,
}


def ropes(half: int) -> st.SearchStrategy[dict[str, Any]]:
    """Every scaling; the texts of the tests are 9 long, so that some pass the original context."""
    factors = st.lists(st.floats(1.0, 4.0), min_size=half, max_size=half)
    original = {"original_max_position_embeddings": st.integers(6, 16)}
    factor = {"factor": st.sampled_from([1.5, 2.0, 4.0])}
    kind = st.just
    return st.one_of(
        st.fixed_dictionaries({"rope_type": kind("default")}),
        st.fixed_dictionaries({"rope_type": kind("linear"), **factor}),
        st.fixed_dictionaries({"rope_type": kind("dynamic"), **factor}),
        st.fixed_dictionaries(
            {
                "rope_type": kind("llama3"),
                "low_freq_factor": kind(1.0),
                "high_freq_factor": st.sampled_from([2.0, 4.0]),
                **factor,
                **original,
            }
        ),
        st.fixed_dictionaries(
            {"rope_type": kind("yarn"), **factor, **original},
            optional={
                "beta_fast": kind(16.0),
                "attention_factor": kind(1.2),
                "mscale": kind(0.7),
                "mscale_all_dim": kind(0.9),
                "truncate": st.booleans(),
            },
        ),
        st.fixed_dictionaries(
            {"rope_type": kind("longrope"), "short_factor": factors, "long_factor": factors, **original},
            optional={"factor": kind(3.0), "attention_factor": kind(1.1)},
        ),
    )


@st.composite
def configs(draw: st.DrawFn) -> LlamaConfig:
    kv_heads = draw(st.sampled_from([1, 2]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3]))
    width = heads * draw(st.sampled_from([4, 8]))
    head_dim = draw(st.sampled_from([None, 4, 8, 12]))
    rope = draw(ropes((head_dim or width // heads) // 2))
    return LlamaConfig(
        vocab_size=draw(st.integers(11, 40)),
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=draw(st.sampled_from([kv_heads, heads, None])),
        head_dim=head_dim,
        num_hidden_layers=draw(st.integers(1, 3)),
        intermediate_size=draw(st.sampled_from([12, 40])),
        max_position_embeddings=draw(st.sampled_from([8, 24])),
        hidden_act=draw(st.sampled_from(["silu", "gelu_pytorch_tanh", "relu"])),
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-3])),
        attention_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        rope_parameters={"rope_theta": draw(st.sampled_from([100.0, 10_000.0, 500_000.0])), **rope},
        num_labels=draw(st.integers(1, 4)),
        pad_token_id=support.PAD,
    )


@settings(max_examples=30)
@given(configs(), st.sampled_from(sorted(CLASSES)))
def test_llama_gives_the_same_and_goes_both_ways(config: LlamaConfig, kind: str) -> None:
    theirs = support.tiny(CLASSES[kind], config)
    with support.folder() as path:
        ours = support.loaded(theirs, path)
        # With these two, angles depend on the text's length. transformers takes that of the longest text in the batch,
        # and keeps keys as they were turned when the text was shorter; here a text reads the same in any company.
        alone = config.rope_parameters["rope_type"] in ("dynamic", "longrope")
        support.same_forward(ours.model, theirs, config.vocab_size, alone=alone)
        if kind == "lm" and not alone:
            support.same_cached(ours.model, theirs, config.vocab_size)
        support.same_both_ways(ours, theirs, path)


def small(**more: Any) -> LlamaConfig:
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 20}
    return LlamaConfig(vocab_size=20, num_hidden_layers=2, max_position_embeddings=64, **sizes, **more)


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
