"""Defaults. What a checkpoint says about generation: in generation_config.json or, in older ones, inside config.json.

What decides which ids are likeliest is taken over: lengths, beams, penalties, forbidden and forced ids, and the special
ids. What asks for chance is not: writing stays greedy until the caller says otherwise. `notes` tells what was left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearhead.errors import CheckpointError, ConfigError
from clearhead.generate.settings import GenerationSettings

READ = {
    "max_length": "max_length",
    "max_new_tokens": "max_new_tokens",
    "min_length": "min_length",
    "min_new_tokens": "min_new_tokens",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size": "encoder_no_repeat_ngram_size",
    "bad_words_ids": "bad_words_ids",
    "suppress_tokens": "suppress_tokens",
    "begin_suppress_tokens": "begin_suppress_tokens",
    "renormalize_logits": "renormalize_logits",
    "forced_bos_token_id": "forced_bos_token_id",
    "forced_eos_token_id": "forced_eos_token_id",
    "num_beams": "num_beams",
    "length_penalty": "length_penalty",
    "early_stopping": "early_stopping",
    "eos_token_id": "eos",
    "pad_token_id": "pad",
    "decoder_start_token_id": "decoder_start",
}
"""Their key, and ours."""

SAMPLING: Mapping[str, object] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Keys that ask for chance, and the value that says nothing."""

NOT_RUN: Mapping[str, object] = {
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "remove_invalid_values": False,
    "sequence_bias": None,
    "guidance_scale": 1.0,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": None,
    "constraints": None,
    "force_words_ids": None,
    "stop_strings": None,
    "max_time": None,
    "token_healing": False,
    "watermarking_config": None,
    "dola_layers": None,
    "task_specific_params": None,
}
"""Keys that would change what is written and that nothing here runs, and the value that says nothing."""

OLD_LENGTH = 20
"""The `max_length` that transformers once wrote into every config.json."""


def read(generation: Mapping[str, Any] | None, config: Mapping[str, Any]) -> GenerationSettings:
    """The settings that a checkpoint asks for. generation: its generation_config.json; without one, config.json's keys.

    Its special ids count before those of config.json, since several may end a text. Raises CheckpointError for a value
    that cannot be.
    """
    where, keys = _source(generation, config)
    given = {ours: keys[theirs] for theirs, ours in READ.items() if keys.get(theirs) is not None}
    if generation is None:
        for name in ("eos", "pad", "decoder_start"):  # the model's own config has read them
            given.pop(name, None)
        if given.get("max_length") == OLD_LENGTH:
            del given["max_length"]
        if keys.get("force_bos_token_to_be_generated") is True and keys.get("bos_token_id") is not None:
            given.setdefault("forced_bos_token_id", keys["bos_token_id"])
    for name in ("pad", "decoder_start"):  # −1 was once written for none
        if isinstance(given.get(name), int) and given[name] < 0:
            del given[name]
    try:
        return GenerationSettings(**given)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from None


def notes(generation: Mapping[str, Any] | None, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a checkpoint asks of generation and does not get, a sentence for each kind."""
    where, keys = _source(generation, config)
    said: list[str] = []
    for table, end in (
        (SAMPLING, "writing is greedy unless you ask for a temperature"),
        (NOT_RUN, "generation here does without"),
    ):
        found = [key for key, nothing in table.items() if keys.get(key) not in (None, nothing, {}, [])]
        if found:
            said.append(f"{where} asks for {', '.join(found)}, which is not applied: {end}")
    phrases = _phrases(config)
    if phrases:
        few = ", ".join(phrases[:3]) + (" …" if len(phrases) > 3 else "")
        said.append(
            f"config.json puts {few} before a prompt, by its task; nothing is put before yours: write it yourself"
        )
    return tuple(said)


def _phrases(config: Mapping[str, Any]) -> list[str]:
    """What a config would have put before prompts: T5's "translate English to German: " and such."""
    tasks = config.get("task_specific_params")
    tasks = [task for task in tasks.values() if isinstance(task, dict)] if isinstance(tasks, dict) else []
    found = [says.get("prefix") for says in (config, *tasks)]
    return list(dict.fromkeys(repr(one[:80]) for one in found if isinstance(one, str) and one.strip()))


def _source(generation: Mapping[str, Any] | None, config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return ("generation_config.json", generation) if generation is not None else ("config.json", config)
