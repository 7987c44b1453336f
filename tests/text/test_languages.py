"""Translators: the languages of their texts, and Marian's two vocabularies, beside transformers."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("sentencepiece", reason="the sentencepiece package, which trains the folders, is not installed")

from clearhead.errors import TokenizerError
from clearhead.text import Tokenizer
from tests.text.corpus import LINES
from tests.text.published import TEXTS, write
from tests.text.test_families import auto

pytestmark = pytest.mark.filterwarnings("ignore:::transformers")
LANGUAGES = {
    "mbart": ("fr_XX", "ro_RO"),
    "mbart, from French": ("en_XX", "de_DE"),
    "mbart50": ("fr_XX", "sl_SI"),
    "nllb": ("fra_Latn", "ace_Arab"),
    "nllb, legacy": ("eng_Latn", "ace_Arab"),
    "m2m_100": ("fr", "zu"),
}


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize("saved", [False, True])
def test_a_text_is_read_in_the_language_it_is_said_to_be_in(name, saved, tmp_path):
    folder = write(tmp_path, name)
    ours = Tokenizer.load(folder)
    if saved:
        ours.save(tmp_path / "b")
        shutil.copy(folder / "config.json", tmp_path / "b")
        ours, folder = Tokenizer.load(tmp_path / "b"), tmp_path / "b"
    theirs = auto(folder)
    source, target = LANGUAGES[name]
    inputs = {"return_tensors": None} if theirs.is_fast else {}
    before = ours.encode(TEXTS[0])
    for text in TEXTS:
        said = ours.encode(text, source_language=source, target_language=target)
        # what the translation pipeline hands to generate()
        asked = theirs._build_translation_inputs(text, src_lang=source, tgt_lang=target, **inputs)
        assert said.ids == asked["input_ids"]
        assert ours.first_id(target) == ours.language_id(target) == asked["forced_bos_token_id"]
        theirs.tgt_lang = target
        assert ours.encode_target(text, target).ids == theirs(text_target=text)["input_ids"]
        assert ours.encode(text, special=False).ids == ours.encode(text, special=False, source_language=source).ids
        place = said.ids.index(ours.language_id(source))
        assert said.special[place] and said.tokens[place] == ours.id_to_token(said.ids[place]) == said.labels[place]
    assert ours.encode(TEXTS[0]) == before  # no call leaves anything behind


@pytest.mark.parametrize(("name", "written", "read"), [
    ("mbart", "A </s> en_XX", "A </s> en_XX"),
    ("mbart, from French", "A </s> fr_XX", "A </s> ro_RO"),
    ("mbart50", "en_XX A </s>", "en_XX A </s>"),
    ("nllb", "eng_Latn A </s>", "eng_Latn A </s>"),
    ("nllb, legacy", "A </s> fra_Latn", "A </s> fra_Latn"),
    ("m2m_100", "__en__ A </s>", "__en__ A </s>"),
    ("marian", "A </s>", "A </s>"),
    ("pegasus", "A </s>", "A </s>"),
    ("bart", "<s> A </s>", "<s> A </s>"),
])  # fmt: skip
def test_where_nothing_is_said_the_files_decide(name, written, read, tmp_path):
    ours = Tokenizer.load(write(tmp_path, name))
    for shape, encoding in ((written, ours.encode("A")), (read, ours.encode_target("A"))):
        before, after = shape.split("A")
        tokens = encoding.tokens
        assert tokens[: len(before.split())] == before.split()
        assert tokens[len(tokens) - len(after.split()) :] == after.split()


def test_languages_go_by_their_codes_or_their_tokens(tmp_path):
    ours = Tokenizer.load(write(tmp_path / "m2m", "m2m_100"))
    assert ours.languages[:3] == ("af", "am", "ar") and len(ours.languages) == 100
    assert ours.language_id("fr") == ours.language_id("__fr__") == ours.token_to_id("__fr__")
    marian = Tokenizer.load(write(tmp_path / "marian", "marian, many languages"))
    assert marian.languages == ("fra", "zle_Cyrl")
    assert marian.language_id("fra") == marian.token_to_id(">>fra<<")
    assert marian.first_id("fra") is None


def test_marian_is_told_in_the_text_what_to_write(tmp_path):
    folder = write(tmp_path, "marian, many languages")
    ours, theirs = Tokenizer.load(folder), auto(folder)
    for text in [text for text in TEXTS if text]:
        told = ours.encode(text, target_language="fra")
        assert told.ids == theirs(f">>fra<< {text}")["input_ids"] == ours.encode(f">>fra<< {text}").ids
        assert told.offsets[0] == (0, 0) and told.sequences[0] is None and told.words[1] == 0
        assert told.offsets[1:] == ours.encode(text).offsets
    for text in (
        ">>xyz<< the",
        ">>fra<<the",
        "the >>fra<< street",
        ">>the street",
        ">>fra<<>>fra<< it",
        "</s>>>fra<< it",
    ):
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    with pytest.raises(TokenizerError, match="leave source_language out"):
        ours.encode("the", source_language="fra")


@pytest.mark.parametrize("name", ["marian", "marian, two lists"])
def test_marian_reads_with_one_vocabulary_and_writes_with_another(name, tmp_path):
    folder = write(tmp_path, name)
    ours, theirs = Tokenizer.load(folder), auto(folder)
    assert ours.target is not ours and ours.target.target is ours.target
    for text in [*TEXTS, *LINES]:
        ids = ours.encode_target(text).ids
        assert ids == theirs(text_target=text)["input_ids"]
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True)
        stream = ours.decode_stream()
        assert "".join(map(stream.push, ids)) + stream.finish() == ours.decode(ids)
    ours.save(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted(
        path.name for path in folder.iterdir() if path.is_file() and path.name != "config.json"
    )


def test_what_sentencepiece_does_not_know_may_be_a_token_all_the_same(tmp_path):
    """Marian's list has the pieces of both languages: a letter that the source's model lacks is found in it."""
    folder = write(tmp_path, "marian")
    ours, theirs = Tokenizer.load(folder), auto(folder)
    text = "日 street"
    assert ours.unk_id not in ours.encode(text).ids
    assert ours.encode(text).ids == theirs(text)["input_ids"]


def test_a_language_that_is_none_is_refused_in_one_line(tmp_path):
    ours = Tokenizer.load(write(tmp_path / "nllb", "nllb"))
    for call in (
        lambda: ours.encode("the", source_language="fra"),
        lambda: ours.encode("the", target_language="fra"),
        lambda: ours.encode_target("the", "fra"),
        lambda: ours.language_id("fra"),
        lambda: ours.first_id("fra"),
    ):
        with pytest.raises(TokenizerError, match=r"no language 'fra'; it has fra_Latn …$"):
            call()
    plain = Tokenizer.load(write(tmp_path / "t5", "t5"))
    assert plain.languages == () and plain.target is plain
    assert plain.encode_target("the") == plain.encode("the")
    for call in (
        lambda: plain.encode("the", source_language="fr"),
        lambda: plain.encode("the", target_language="fr"),
        lambda: plain.first_id("fr"),
    ):
        with pytest.raises(TokenizerError, match="has no languages"):
            call()
