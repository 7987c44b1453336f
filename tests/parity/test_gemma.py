"""Gemma, past its grid: how files spell it, what is rounded in bfloat16, and what transformers 4 is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    Gemma3TextModel,
    GemmaConfig,
    GemmaForCausalLM,
    GemmaModel,
)

from clearhead.checkpoint import export, load
from clearhead.errors import CheckpointError, UnknownFamilyError, UnknownKeyError
from clearhead.model import Decoder, Encoder
from tests.parity import support
from tests.parity.grids.gemma import GLOBAL, LOCAL, by_length_somewhere, gemma3, small, small2, small3
from tests.parity.test_families import NO_SHRINKING


def edited(folder: Path, *without: str, **keys: Any) -> None:
    """Write other keys into the folder's config.json, and take some out."""
    path = folder / "config.json"
    says = {key: value for key, value in json.loads(path.read_text()).items() if key not in without}
    path.write_text(json.dumps(says | keys))


def written(folder: Path) -> dict[str, Any]:
    says: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return says


@torch.no_grad()
def test_embeddings_and_norms_are_rounded_as_transformers_rounds_them(tmp_path: Path) -> None:
    config = GemmaConfig(
        vocab_size=11,
        hidden_size=3072,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        num_hidden_layers=1,
        intermediate_size=8,
    )
    theirs = support.tiny(GemmaModel, config).to(torch.bfloat16)
    ours = support.loaded(theirs, tmp_path).model
    assert isinstance(ours, Decoder) and ours.dtype == torch.bfloat16
    ids = torch.arange(11)[None]
    got = ours.decoder.embedding(ids, torch.arange(11)[None])
    assert torch.equal(got, theirs.embed_tokens(ids))
    assert torch.equal(got, ours.decoder.embedding.tokens.weight[None] * 55.5)  # √3072 = 55.43
    norm = ours.decoder.block(0).attention_norm.before
    assert norm is not None and torch.equal(norm(got), theirs.layers[0].input_layernorm(got))


@pytest.mark.parametrize("other", [{}, {"hidden_activation": None}, {"hidden_activation": "gelu_pytorch_tanh"}])
def test_the_first_files_say_gelu_and_mean_its_tanh_approximation(other: dict[str, Any], tmp_path: Path) -> None:
    theirs = support.tiny(GemmaForCausalLM, small())
    theirs.save_pretrained(tmp_path)
    edited(tmp_path, hidden_act="gelu", **other)
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    export(ours, tmp_path / "out")
    assert written(tmp_path / "out")["hidden_act"] == "gelu"
    back = GemmaForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    support.same_forward(ours.model, back, 20)


def test_two_activations_that_disagree_are_refused(tmp_path: Path) -> None:
    support.tiny(GemmaForCausalLM, small()).save_pretrained(tmp_path)
    edited(tmp_path, hidden_activation="relu")
    with pytest.raises(UnknownKeyError, match="hidden_activation='relu' disagree"):
        load(tmp_path)


def test_gemma_2_without_layer_types_has_every_even_layer_local(tmp_path: Path) -> None:
    theirs = support.tiny(Gemma2ForCausalLM, small2(num_hidden_layers=3))
    theirs.save_pretrained(tmp_path)
    edited(tmp_path, "layer_types", cache_implementation="hybrid", hidden_act="gelu_pytorch_tanh")
    ours = load(tmp_path)
    assert ours.config.decoder is not None
    assert [ours.config.decoder.attention_of(layer).window for layer in range(3)] == [4, None, 4]
    support.same_forward(ours.model, theirs, 20)
    export(ours, tmp_path / "out")
    assert written(tmp_path / "out")["layer_types"] == [LOCAL, GLOBAL, LOCAL]


def test_what_a_class_has_no_use_for_is_kept(tmp_path: Path) -> None:
    theirs = support.tiny(Gemma2ForCausalLM, small2(final_logit_softcapping=7.0)).model
    ours = support.loaded(theirs, tmp_path)
    assert ours.config.head is None
    export(ours, tmp_path / "out")
    assert written(tmp_path / "out")["final_logit_softcapping"] == 7.0


SCALED = {"rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize("every", [None, 2])
def test_gemma_3_as_version_4_spelled_it_means_the_same_and_both_are_written(every: int | None, tmp_path: Path) -> None:
    layers = {"num_hidden_layers": 7, "layer_types": None}
    rope = {LOCAL: {"rope_type": "default", "rope_theta": 30.0}, GLOBAL: {**SCALED, "rope_theta": 500.0}}
    older = {} if every is None else {"sliding_window_pattern": every}
    theirs = support.tiny(Gemma3ForCausalLM, small3(**layers, **older, rope_parameters=rope))
    theirs.save_pretrained(tmp_path)
    edited(
        tmp_path,
        *("rope_parameters", "layer_types", "_sliding_window_pattern"),
        **older,
        rope_theta=500.0,
        rope_local_base_freq=30.0,
        rope_scaling=SCALED,
    )
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    export(ours, tmp_path / "out")
    says = written(tmp_path / "out")
    assert says["rope_parameters"] == rope
    assert (says["rope_theta"], says["rope_local_base_freq"], says["rope_scaling"]) == (500.0, 30.0, SCALED)
    kinds = [LOCAL if (layer + 1) % (every or 6) else GLOBAL for layer in range(7)]
    assert says["layer_types"] == kinds and says.get("sliding_window_pattern") == every


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 7.0},
        {"rope_parameters": {"rope_theta": 7.0}},
        {"layer_types": [LOCAL, GLOBAL]},
        {"layer_types": ["chunked_attention"] * 3},
        {"sliding_window": None},
        {"query_pre_attn_scalar": 0},
        {"attn_logit_softcapping": 50.0},
    ],
)
def test_gemma_3_refuses_by_name_what_cannot_be_so(keys: dict[str, Any], tmp_path: Path) -> None:
    support.tiny(Gemma3ForCausalLM, small3()).save_pretrained(tmp_path)
    edited(tmp_path, **keys)
    with pytest.raises(CheckpointError, match="|".join(keys)):
        load(tmp_path)


def test_the_two_spellings_of_the_local_rotation_have_to_agree(tmp_path: Path) -> None:
    support.tiny(Gemma3ForCausalLM, small3()).save_pretrained(tmp_path)
    edited(tmp_path, rope_local_base_freq=7.0)
    with pytest.raises(CheckpointError, match="sliding_attention: rope_parameters, rope_theta disagree"):
        load(tmp_path)


def test_gemma_3_of_one_rotation_for_all_layers_goes_both_ways(tmp_path: Path) -> None:
    one = {"rope_type": "default", "rope_theta": 500.0}
    theirs = support.tiny(Gemma3ForCausalLM, small3(rope_parameters={LOCAL: dict(one), GLOBAL: dict(one)}))
    ours = support.loaded(theirs, tmp_path)
    assert ours.config.decoder is not None and ours.config.decoder.attention_of(0).rotary is None
    support.same_forward(ours.model, theirs, 20)
    support.same_both_ways(ours, theirs, tmp_path)


def test_an_untied_head_in_a_file_that_says_tied_is_read_as_untied(tmp_path: Path) -> None:
    theirs = support.tiny(Gemma2ForCausalLM, small2(tie_word_embeddings=False))
    theirs.save_pretrained(tmp_path)
    edited(tmp_path, tie_word_embeddings=True)
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, weights)
    assert "head.weight" not in load(tmp_path).model.state_dict()


ENCODERS = [Gemma3TextModel, Gemma3TextForSequenceClassification]


@settings(max_examples=6, phases=NO_SHRINKING)
@given(gemma3(use_bidirectional_attention=True), st.sampled_from(ENCODERS))
def test_gemma_3_that_reads_both_ways_is_an_encoder(config: Gemma3TextConfig, cls: Any) -> None:
    theirs = support.tiny(cls, config)
    with support.folder() as path:
        ours = support.loaded(theirs, path)
        assert isinstance(ours.model, Encoder) and ours.family == "gemma3_text"
        support.same_forward(ours.model, theirs, config.vocab_size, alone=by_length_somewhere(config))
        support.same_packed(ours.model, theirs, config.vocab_size)
        support.same_both_ways(ours, theirs, path)


def test_a_language_model_that_reads_both_ways_is_refused(tmp_path: Path) -> None:
    support.tiny(Gemma3ForCausalLM, small3(use_bidirectional_attention=True)).save_pretrained(tmp_path)
    with pytest.raises(UnknownKeyError, match="Gemma3ForCausalLM"):
        load(tmp_path)


def test_gemma_3_with_its_eyes_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": {}, "vision_config": {}}))
    with pytest.raises(UnknownFamilyError, match=r"model_type='gemma3' .* gemma3_text"):
        load(tmp_path)
