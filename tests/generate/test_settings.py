"""Settings: written once, changed by name, and what a checkpoint says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from clearhead.errors import CheckpointError, ConfigError, ContextError
from clearhead.generate import GenerationSettings, generate_ids
from clearhead.generate.defaults import notes, read
from clearhead.generate.settings import settled
from tests.model import tiny

pytestmark = pytest.mark.usefixtures("as_a_user")


# ── changed by name ──────────────────────────────────────────────────────────────────────────────────────────────


def test_changes_count_before_what_was_there() -> None:
    before = GenerationSettings(max_new_tokens=5, top_k=3, num_beams=4)
    assert settled(before, {}) == before
    assert settled(before, {"top_k": None, "max_new_tokens": 9}) == GenerationSettings(max_new_tokens=9, num_beams=4)
    assert settled(before, {"max_length": 9}).max_new_tokens is None
    assert settled(before, {"temperature": 0.5}).num_beams == 1, "who asks for chance sets the beams aside"
    assert settled(None, {}) == GenerationSettings()
    with pytest.raises(ConfigError, match="num_beams=4"):
        settled(before, {"temperature": 0.5, "num_beams": 4})


@pytest.mark.parametrize(
    ("name", "says"),
    [("num_beam", "did you mean 'num_beams'?"), ("sparkle", "GenerationSettings says which there are")],
)
def test_what_is_no_setting_is_said(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no setting '{name}'") as error:
        generate_ids(tiny.decoder(), tiny.ids(1, 3), **{name: 2})
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"eos": "</s>"}, "GenerationSettings.eos='</s>' is no id and no list of ids"),
        ({"eos": [1.5]}, "is no id and no list of ids"),
        ({"suppress_tokens": True}, "is no id and no list of ids"),
        ({"bad_words_ids": [[1], []]}, "or an empty one; write [[5], [7, 2]]"),
        ({"bad_words_ids": [1, 2]}, "write [[5], [7, 2]]"),
        ({"bad_words_ids": "no"}, "is no list of lists"),
        ({"no_repeat_ngram_size": -1}, "lies outside 0…"),
        ({"min_new_tokens": 1.5}, "is not a whole number"),
        ({"forced_bos_token_id": -2}, "lies outside 0…"),
        ({"forced_eos_token_id": 3, "suppress_tokens": [3, 4]}, "choose one of the two"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        GenerationSettings(**wrong)
    message = str(error.value)
    assert says in message and "\n" not in message and message.endswith(".")


@pytest.mark.parametrize("name", ["suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id", "bad_words_ids"])
def test_an_id_outside_the_vocabulary_is_refused(name: str) -> None:
    value: Any = [[5, 61]] if name == "bad_words_ids" else [5, 61]
    with pytest.raises(ConfigError, match=rf"{name}=\[5, 61\] is outside the vocabulary of 61"):
        generate_ids(tiny.decoder(), tiny.ids(1, 3), **{name: value})


# ── how far ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lengths_count_the_prompt_or_do_not() -> None:
    model, ids = tiny.decoder(), tiny.ids(1, 5)
    assert generate_ids(model, ids, max_length=9, eos=()).shape == (1, 9)
    assert generate_ids(model, ids, max_length=9, max_new_tokens=2, eos=()).shape == (1, 7)
    translator = tiny.translator()
    assert generate_ids(translator, ids, max_length=9, eos=()).shape == (1, 9), "the start token is counted"
    with pytest.raises(ContextError, match="max_length=5 counts it"):
        generate_ids(model, ids, max_length=5)


def test_without_a_word_it_is_fifty_or_what_fits() -> None:
    model = tiny.decoder(whole={"context": 20})
    assert generate_ids(model, tiny.ids(1, 5), eos=()).shape == (1, 20)
    assert generate_ids(model, tiny.ids(1, 5), max_length=400, eos=()).shape == (1, 20)
    assert generate_ids(tiny.decoder(whole={"context": 200}), tiny.ids(1, 5), eos=()).shape == (1, 55)
    with pytest.raises(ContextError, match="no new token fits"):
        generate_ids(model, tiny.ids(1, 20))


# ── what a checkpoint says ───────────────────────────────────────────────────────────────────────────────────────

MARIAN = {
    "bad_words_ids": [[65000]],
    "bos_token_id": 0,
    "decoder_start_token_id": 65000,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "max_length": 512,
    "num_beams": 4,
    "pad_token_id": 65000,
    "renormalize_logits": True,
    "transformers_version": "4.32.0",
}


def test_a_translators_file_is_taken_over() -> None:
    assert read(MARIAN, {"num_beams": 9}) == GenerationSettings(
        bad_words_ids=[[65000]],
        decoder_start=65000,
        eos=0,
        forced_eos_token_id=0,
        max_length=512,
        num_beams=4,
        pad=65000,
        renormalize_logits=True,
    )
    assert notes(MARIAN, {}) == ()


def test_a_chat_models_file_gives_its_ends_and_no_chance() -> None:
    keys = {"eos_token_id": [128001, 128009], "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    assert read(keys, {}) == GenerationSettings(eos=(128001, 128009))
    assert notes(keys, {}) == (
        "generation_config.json asks for do_sample, temperature, top_p, which is not applied: "
        "writing is greedy unless you ask for a temperature",
    )


def test_old_configs_hold_it_themselves() -> None:
    keys = {"num_beams": 4, "length_penalty": 2.0, "min_length": 56, "max_length": 142, "early_stopping": True}
    keys |= {"no_repeat_ngram_size": 3, "forced_bos_token_id": 0, "eos_token_id": 2, "vocab_size": 9}
    expected = {name: value for name, value in keys.items() if name not in ("eos_token_id", "vocab_size")}
    assert read(None, keys) == GenerationSettings(**expected)
    theirs = transformers.GenerationConfig.from_model_config(dict(keys))
    assert all(getattr(theirs, name) == value for name, value in expected.items())
    assert read(None, {"max_length": 20, "num_beams": 1, "pad_token_id": -1}) == GenerationSettings()
    assert read(None, {"force_bos_token_to_be_generated": True, "bos_token_id": 0}).forced_bos_token_id == 0


def test_what_is_not_run_is_noted_and_nothing_else() -> None:
    quiet = transformers.GenerationConfig._get_default_generation_params()
    assert notes(quiet, {}) == () and notes(None, {"task_specific_params": {}}) == ()
    assert read({**quiet, "max_length": None}, {}) == GenerationSettings(
        min_length=0, repetition_penalty=1.0, no_repeat_ngram_size=0, encoder_no_repeat_ngram_size=0
    )
    [note] = notes(None, {"exponential_decay_length_penalty": [5, 1.1], "guidance_scale": 2.0})
    assert "config.json asks for exponential_decay_length_penalty, guidance_scale" in note


@pytest.mark.parametrize(
    "keys", [{"num_beams": 0}, {"eos_token_id": "x"}, {"bad_words_ids": 3}, {"length_penalty": {}}]
)
def test_a_file_that_cannot_be_is_refused_in_one_line(keys: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"^generation_config\.json: ") as error:
        read(json.loads(json.dumps(keys)), {})
    assert "\n" not in str(error.value)


def test_every_setting_of_transformers_is_known(tmp_path: Path) -> None:
    """What decides the text is read, or noted; the rest are caches, outputs, helpers' models and the like."""
    from clearhead.generate.defaults import NOT_RUN, READ, SAMPLING

    other = ("assistant", "cache", "output_", "compile", "continuous", "_", "lookbehind", "lookup", "matching_ngram")
    more = {"bos_token_id", "transformers_version", "return_dict_in_generate", "low_memory", "use_mtp"}
    more |= {"prefill_chunk_size", "speculation_type"}
    names = set(vars(transformers.GenerationConfig())) - set(READ) - set(SAMPLING) - set(NOT_RUN) - more
    assert not {name for name in names if not any(mark in name if mark != "_" else name[0] == "_" for mark in other)}


@pytest.mark.parametrize(
    "keys",
    [
        {"max_new_tokens": 10**5000},
        {"repetition_penalty": 10**400},
        {"early_stopping": "a" * 3000},
        {"pad": "a" * 3000},
        {"suppress_tokens": [10**400]},
        {"bad_words_ids": "a" * 3000},
        {"top_p": 10**300},
        {"length_penalty": 10**300},
        {"temperature": 10**300, "num_beams": 2},
    ],
)
def test_a_value_without_end_is_refused_in_a_short_line(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        GenerationSettings(**keys)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_a_whole_number_that_torch_does_not_take_is_a_float() -> None:
    ids = generate_ids(tiny.decoder(), torch.tensor([[3, 4]]), max_new_tokens=2, repetition_penalty=10**30)
    assert ids.shape == (1, 4)
