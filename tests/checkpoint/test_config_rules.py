"""The config tables: defaults of the family, both spellings, and an account of every key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearhead.checkpoint import export, load
from clearhead.checkpoint.families import families
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.places import differences, fill, get, spelled_out
from clearhead.errors import CheckpointError, ConfigError, UnknownKeyError
from clearhead.model import presets
from clearhead.model.config import (
    AttentionConfig,
    LanguageModel,
    LayerNorm,
    ModelConfig,
    Rotary,
    SequenceClassification,
    YarnScaling,
)
from tests.checkpoint import support


class NoTensors:
    def has(self, name: str) -> bool:
        return False

    def same(self, one: str, other: str) -> bool:
        return False


def read(family: str, **keys: Any) -> ModelConfig:
    config, _, _, errors = families()[family].read(keys, NoTensors())
    if errors:
        raise errors[0]
    assert config is not None
    return config


@pytest.mark.parametrize(("family", "tied"), [("gpt2", True), ("llama", False)])
def test_a_missing_tie_means_what_the_family_means(family: str, tied: bool) -> None:
    assert read(family).head == LanguageModel(tied=tied)
    assert read(family, tie_word_embeddings=not tied).head == LanguageModel(tied=not tied)


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    transformers = pytest.importorskip("transformers")
    for family in families():
        spelled = json.loads(transformers.CONFIG_MAPPING[family]().to_json_string(use_diff=False))
        same = differences(spelled_out(read(family)), spelled_out(read(family, **spelled)))
        assert not list(same), family


def test_every_config_of_a_family_is_written_and_read_again() -> None:
    for family in families().values():
        config = read(family.model_type)
        written = family.write(config)
        again = read(family.model_type, **written)
        assert not list(differences(spelled_out(again), spelled_out(config))), family.model_type
        assert family.write(again) == written


def test_the_inverse_layer_scale_becomes_each_layers_own() -> None:
    config = read("gpt2", n_layer=3, n_embd=8, n_head=2, scale_attn_by_inverse_layer_idx=True)
    assert get(config, "decoder.attention[].scale") == (0.5, 0.25, 0.5 / 3)
    assert families()["gpt2"].write(config)["scale_attn_by_inverse_layer_idx"] is True


@pytest.mark.parametrize(
    ("family", "key", "value", "says"),
    [
        ("gpt2", "add_cross_attention", True, "half of an encoder-decoder"),
        ("gpt2", "activation_function", "quick_gelu", "not a choice"),
        ("bert", "is_decoder", True, "one way only"),
        ("bert", "position_embedding_type", "relative_key", "relative"),
        ("bert", "pruned_heads", {"0": [1]}, "pruned"),
        ("llama", "rope_scaling", {"rope_type": "proportional"}, "not a scaling"),
        ("llama", "rope_scaling", {"rope_type": "linear", "factor": 2.0, "twist": 3}, "twist"),
        ("llama", "quantization_config", {"bits": 4}, "quantised"),
        ("llama", "attention_sinks", 4, "does not know the key"),
        ("llama", "partial_rotary_factor", 0.5, "does not know the key"),
        ("gpt2", "architectures", ["GPT2DoubleHeadsModel"], "head="),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(family: str, key: str, value: Any, says: str) -> None:
    with pytest.raises(UnknownKeyError, match=says) as caught:
        read(family, **{key: value})
    assert key in str(caught.value) or "rope" in key


@pytest.mark.parametrize(
    "keys",
    [
        {"n_layer": "12"},
        {"n_layer": 5000},
        {"n_layer": -1},
        {"n_layer": 10**400},
        {"n_head": None},
        {"n_head": 0},
        {"n_embd": 1.5},
        {"n_embd": True},
        {"n_embd": 100},
        {"layer_norm_epsilon": float("nan")},
        {"layer_norm_epsilon": 10**400},
        {"resid_pdrop": 1.5},
        {"tie_word_embeddings": "yes"},
        {"architectures": "GPT2LMHeadModel"},
        {"eos_token_id": "2"},
        {"id2label": {"1": "a"}, "architectures": ["GPT2ForSequenceClassification"]},
        {"num_labels": 10**9, "architectures": ["GPT2ForSequenceClassification"]},
        {"num_labels": 0, "architectures": ["GPT2ForSequenceClassification"]},
    ],
)
def test_values_that_cannot_be_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises((CheckpointError, ConfigError)):
        read("gpt2", **keys)


def test_spellings_of_rope_that_disagree_are_refused() -> None:
    new = {"rope_type": "default", "rope_theta": 500.0}
    assert read("llama", rope_parameters=new, rope_theta=500).decoder.position == Rotary(theta=500.0)  # type: ignore[union-attr]
    for keys in ({"rope_theta": 10_000.0}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}):
        with pytest.raises(CheckpointError, match="disagree"):
            read("llama", rope_parameters=new, **keys)


def test_code_is_ignored_said_so_and_never_written_back(tmp_path: Path) -> None:
    folder = support.checkpoint(tmp_path / "in")
    code = {
        "auto_map": {"AutoModel": "evil.Model"},
        "_attn_implementation_internal": "evil/kernel",
        "trust_remote_code": True,
    }
    support.change_config(folder, **code, transformers_version="4.9.9", use_cache=False)
    loaded = load(folder)
    fates = {account.name: account for account in loaded.report.keys}
    assert set(fates) == set(json.loads((folder / "config.json").read_text()))
    for key in code:
        assert fates[key].fate == "ignored" and "never run" in fates[key].why
    export(loaded, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not set(code) & set(written)
    assert written["transformers_version"] == "4.9.9" and written["use_cache"] is False


def test_generation_config_is_kept_but_its_code_is_not(tmp_path: Path) -> None:
    folder = support.checkpoint(tmp_path / "in")
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "custom_generate": "evil"}))
    export(load(folder), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {"temperature": 0.3}


def yarn() -> ModelConfig:
    config = support.tiny_config()
    assert config.decoder is not None
    position = Rotary(scaling=YarnScaling(factor=2.0, original_context=16))
    return replace(config, decoder=replace(config.decoder, position=position))


@pytest.mark.parametrize(
    ("family", "config", "says"),
    [
        ("llama", presets.gpt2(n_layers=1, n_heads=1, d_model=4, vocab_size=5), "decoder"),
        ("bert", support.tiny_config(), "bert"),
        ("gpt2", yarn(), "decoder"),
        (
            "llama",
            replace(support.tiny_config(), embedding=replace(support.tiny_config().embedding, scale=2.0)),
            "scale",
        ),
        (
            "llama",
            replace(support.tiny_config(), head=SequenceClassification(labels=("a",), pooling="mean", bias=False)),
            "pooling",
        ),
    ],
)
def test_a_model_that_a_family_cannot_say_is_refused_with_the_choice(
    family: str, config: ModelConfig, says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        families()[family].write(config)


def test_choices_of_training_do_not_stand_in_the_way() -> None:
    config = support.tiny_config()
    assert config.decoder is not None
    families()["llama"].write(replace(config, decoder=replace(config.decoder, dropout=0.1)))


def test_places_reach_into_nested_choices() -> None:
    config = support.tiny_config()
    filled = fill(
        config, {"decoder.attention.n_heads": 8, "decoder.attention[].window": (4, None), "head.norm.eps?": 3}
    )
    assert filled.decoder is not None and isinstance(filled.decoder.attention, tuple)
    assert [layer.window for layer in filled.decoder.attention] == [4, None]
    assert get(filled, "decoder.attention[].window") == (4, None)
    assert [layer.n_heads for layer in filled.decoder.attention] == [8, 8]
    same = fill(config, {"decoder.attention[].window": (4, 4)})
    assert same.decoder is not None and isinstance(same.decoder.attention, AttentionConfig)
    assert list(differences(LayerNorm(eps=1.0), LayerNorm(eps=2.0))) == [("eps", 1.0, 2.0)]


def test_a_family_stays_small() -> None:
    import clearhead.checkpoint.families as package

    for path in Path(package.__path__[0]).glob("*.py"):
        assert len(path.read_text().splitlines()) <= 125, path
    assert all(isinstance(family, Family) for family in families().values())
