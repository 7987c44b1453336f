"""Translators of several languages, told what they read and what they are to write, beside transformers' `generate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
)

pytest.importorskip("sentencepiece", reason="the sentencepiece package, which trains the folders, is not installed")

import clearhead
from clearhead.errors import TokenizerError
from clearhead.text import Tokenizer
from tests.parity import support
from tests.parity.grids.bart import SMALL
from tests.text.corpus import LINES
from tests.text.published import write
from tests.text.test_families import auto

pytestmark = [pytest.mark.filterwarnings("ignore:::transformers"), pytest.mark.usefixtures("as_a_user")]

CLASSES: dict[str, tuple[Any, Any]] = {
    "mbart": (MBartConfig, MBartForConditionalGeneration),
    "mbart50": (MBartConfig, MBartForConditionalGeneration),
    "nllb": (M2M100Config, M2M100ForConditionalGeneration),
    "m2m_100": (M2M100Config, M2M100ForConditionalGeneration),
    **dict.fromkeys(("marian", "marian, many languages"), (MarianConfig, MarianMTModel)),
}


def translator(name: str, folder: Path, **keys: Any) -> Any:
    """A tiny random translator of transformers in a folder, with a tokenizer as they are published."""
    write(folder, name)
    tokenizer = Tokenizer.load(folder)
    tokens = {"pad_token_id": tokenizer.pad_id, "eos_token_id": tokenizer.eos_id, "bos_token_id": None}
    config, cls = CLASSES[name]
    size = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 100, "d_model": 16}
    theirs = support.tiny(cls, config(**{**SMALL, **size, **tokens, "forced_eos_token_id": None, **keys}))
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("mbart50", "fr_XX", "sl_SI"),
        ("nllb", "fra_Latn", "ace_Arab"),
        ("m2m_100", "fr", "zu"),
        ("m2m_100", "__fr__", "__zu__"),
    ],
)
def test_both_languages_are_told_as_transformers_tells_them(
    name: str, source: str, target: str, tmp_path: Path
) -> None:
    theirs, lm = translator(name, tmp_path), clearhead.load(tmp_path)
    tokenizer = auto(tmp_path)
    for text in LINES[:3]:
        codes = {"src_lang": source.strip("_"), "tgt_lang": target.strip("_")}
        asked = tokenizer._build_translation_inputs(text, return_tensors="pt", **codes)
        ids = theirs.generate(**asked, max_new_tokens=12, do_sample=False, num_beams=1)
        want = tokenizer.decode(ids[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        said = {"source_language": source, "target_language": target, "max_new_tokens": 12}
        assert lm.generate(text, **said).strip() == want.strip()
        assert lm.generate([text, text], **said) == [lm.generate(text, **said)] * 2
        assert "".join(lm.stream(text, **said)) == lm.generate(text, **said)


def test_mbart_starts_from_the_language_that_it_writes(tmp_path: Path) -> None:
    start = Tokenizer.load(write(tmp_path / "words", "mbart")).language_id("ro_RO")
    theirs = translator("mbart", tmp_path, decoder_start_token_id=start)
    lm, tokenizer = clearhead.load(tmp_path), auto(tmp_path)
    tokenizer.src_lang = "fr_XX"
    ids = tokenizer(LINES[0], return_tensors="pt")
    for code in ("ro_RO", "de_DE"):
        begin = tokenizer.convert_tokens_to_ids(code)
        new = theirs.generate(**ids, decoder_start_token_id=begin, max_new_tokens=12, do_sample=False, num_beams=1)
        want = tokenizer.decode(new[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        said = lm.generate(LINES[0], source_language="fr_XX", target_language=code, max_new_tokens=12)
        assert said.strip() == want.strip()


def test_marian_is_told_in_the_source(tmp_path: Path) -> None:
    pad = Tokenizer.load(write(tmp_path, "marian, many languages")).pad_id
    theirs = translator("marian, many languages", tmp_path, decoder_start_token_id=pad)
    lm, tokenizer = clearhead.load(tmp_path), auto(tmp_path)
    ids = tokenizer(f">>fra<< {LINES[0]}", return_tensors="pt")
    new = theirs.generate(**ids, max_new_tokens=12, do_sample=False, num_beams=1, bad_words_ids=None)
    want = tokenizer.decode(new[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert lm.generate(LINES[0], target_language="fra", max_new_tokens=12, bad_words_ids=()).strip() == want.strip()
    with pytest.raises(TokenizerError, match="leave source_language out"):
        lm.generate(LINES[0], source_language="fra", target_language="fra")


def test_an_unknown_language_is_refused_with_those_that_are_near(tmp_path: Path) -> None:
    translator("nllb", tmp_path)
    lm = clearhead.load(tmp_path)
    for side in ("source_language", "target_language"):
        for wrong, near in (("fra", "fra_Latn"), ("eng_Latin", "eng_Latn"), (5, "ace_Arab"), ([], "ace_Arab")):
            with pytest.raises(TokenizerError, match=f"has no language .*; it has .*{near}"):
                lm.generate(LINES[0], **{side: wrong})


def test_a_translator_of_two_languages_is_told_none(tmp_path: Path) -> None:
    translator("marian", tmp_path)
    for side in ("source_language", "target_language"):
        with pytest.raises(TokenizerError, match=r"no languages.*; leave source_language and target_language out"):
            clearhead.load(tmp_path).generate(LINES[0], **{side: "de"})


def test_a_phrase_for_a_task_is_said_and_not_put_there(tmp_path: Path) -> None:
    translator("nllb", tmp_path)
    file = tmp_path / "config.json"
    tasks = {f"translation_{one}": {"prefix": f"translate {one}: ", "num_beams": 4} for one in "abcd"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"task_specific_params": tasks}))
    [note] = [note for note in clearhead.load(tmp_path).report.notes if "before a prompt" in note]
    assert "'translate a: ', 'translate b: ', 'translate c: ' …" in note and "write it yourself" in note
