"""Encoding, decoding and streaming: what leaves is right or a TokenizerError."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models

from clearhead.errors import TokenizerError
from clearhead.text import Tokenizer
from tests.text.corpus import LINES, MINILM, TROUBLE, unchecked
from tests.text.test_train import TRAINED

MINI = Tokenizer.load(MINILM)
ALL = {**TRAINED, "minilm": MINI}


def test_a_sentence_of_minilm_reads_as_people_write_it():
    encoding = MINI.encode("The animal didn't cross the street because it was too tired")
    assert " ".join(encoding.labels) == "[CLS] the animal didn ' t cross the street because it was too tired [SEP]"
    assert encoding.special == [True, *[False] * 13, True]
    assert MINI.labels(MINI.encode("unaffable").ids) == ["[CLS]", "una", "##ffa", "##ble", "[SEP]"]


def test_minilm_neither_pads_nor_truncates_though_its_file_says_so():
    assert len(MINI.encode("one two")) == 4
    assert len(MINI.encode("word " * 600)) == 602
    assert MINI.switched_off["padding"]["length"] == MINI.switched_off["truncation"]["max_length"] == 128
    assert MINI.model_max_length == 512
    assert (MINI.pad_id, MINI.unk_id, MINI.cls_id, MINI.sep_id, MINI.mask_id) == (0, 100, 101, 102, 103)
    assert MINI.bos_id is None and MINI.eos_id is None


def test_a_special_token_spelt_in_the_text_is_one():
    encoding = MINI.encode("the [MASK] sat", special=False)
    assert encoding.ids[1] == MINI.mask_id and encoding.special == [False, True, False]
    assert encoding.offsets[1] == (4, 10) and encoding.sequences[1] == 0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("skip", [True, False])
@settings(max_examples=20)
@given(data=st.data())
def test_a_stream_adds_up_to_the_text(name, skip, data):
    tokenizer = ALL[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12))
    stream = tokenizer.decode_stream(skip_special=skip)
    pieces = [stream.push(id) for id in ids]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids, skip_special=skip)
    assert stream.finish() == ""


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", TROUBLE)
def test_a_stream_shows_whole_characters_only(name, text):
    tokenizer = ALL[name]
    ids = tokenizer.encode(text).ids
    stream = tokenizer.decode_stream()
    pieces = [stream.push(id) for id in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=10)
@given(cut=st.integers(0, 30))
def test_a_stream_goes_on_from_a_prompt(name, cut):
    tokenizer = ALL[name]
    ids = tokenizer.encode("Every effort moves you, every step counts: one, two, three.").ids
    prompt, rest = ids[:cut], ids[cut:]
    stream = tokenizer.decode_stream(prompt)
    written = "".join(map(stream.push, rest)) + stream.finish()
    assert tokenizer.decode(prompt) + written == tokenizer.decode(ids)


def test_an_unfinished_character_is_held_and_then_replaced():
    tokenizer = TRAINED["byte"]
    stream = tokenizer.decode_stream()
    assert [stream.push(id) for id in "é🙂".encode()[:-1]] == ["", "é", "", "", ""]
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize("id", [-1, 30522, 2**40, "7", 1.0, None])
@pytest.mark.parametrize("method", ["decode", "labels"])
def test_ids_that_no_token_has_are_refused(id, method):
    with pytest.raises(TokenizerError, match="30522"):
        unchecked(getattr(Tokenizer, method))(MINI, [id])
    if isinstance(id, int):
        with pytest.raises(TokenizerError, match="30522"):
            MINI.decode_stream().push(id)


@pytest.mark.parametrize("method", ["decode", "labels"])
def test_one_id_is_no_list_of_them(method):
    with pytest.raises(TokenizerError, match="no list of ids"):
        unchecked(getattr(Tokenizer, method))(MINI, 7)


def test_a_hole_in_the_vocabulary_counts_but_decodes_to_nothing():
    holey = Tokenizer.from_backend(Backend(models.WordLevel({"a": 0, "b": 5}, unk_token="a")))
    assert holey.vocab_size == 6 and holey.id_to_token(3) is None
    with pytest.raises(TokenizerError, match="no token has the id 3"):
        holey.decode([0, 3])


@pytest.mark.parametrize(("text", "message"), [
    (5, "the text is of type int"),
    (None, "the text is of type NoneType"),
    (b"bytes", "the text is of type bytes"),
    (["list"], "the text is of type list"),
    ("half \ud83d a pair", "at character 5"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["encode", "encode_ids"])
def test_what_is_no_text_is_refused(text, message, method):
    for tokenizer in ALL.values():
        with pytest.raises(TokenizerError, match=message):
            unchecked(getattr(Tokenizer, method))(tokenizer, text)
    if text is not None:
        with pytest.raises(TokenizerError, match=message.replace("text", "pair")):
            unchecked(Tokenizer.encode)(MINI, "fine", text)


def test_tokens_and_ids_name_each_other():
    for tokenizer in ALL.values():
        for id in range(0, tokenizer.vocab_size, 37):
            assert tokenizer.token_to_id(tokenizer.id_to_token(id)) == id
        assert tokenizer.token_to_id("no such token at all") is None
        assert tokenizer.id_to_token(tokenizer.vocab_size) is None
        assert tokenizer.id_to_token(-1) is None


def test_a_backend_is_taken_over():
    backend = Backend(models.BPE({"a": 0, "b": 1, "<s>": 2}, []))
    backend.enable_truncation(1)
    tokenizer = Tokenizer.from_backend(backend, bos_token="<s>", model_max_length=9)
    assert tokenizer.bos_id == 2 and tokenizer.model_max_length == 9
    assert tokenizer.encode("abab").ids == [0, 1, 0, 1]
    assert tokenizer.encode("a<s>").ids == [0, 2] and tokenizer.decode([0, 2]) == "a"
    assert tokenizer.switched_off["truncation"]["max_length"] == 1
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        Tokenizer.from_backend(backend, eos_token="</s>")
    with pytest.raises(TokenizerError, match="no special token's name"):
        Tokenizer.from_backend(backend, start_token="<s>")
    with pytest.raises(TokenizerError, match="no tokens"):
        Tokenizer.from_backend(Backend(models.BPE()))


def test_dropout_is_off_so_that_encoding_stays_the_same():
    backend = Tokenizer.train(LINES, kind="byte-bpe", vocab_size=300).backend
    backend.model.dropout = 0.9
    tokenizer = Tokenizer.from_backend(backend)
    assert tokenizer.switched_off["dropout"] == pytest.approx(0.9)
    assert tokenizer.encode(LINES[0]).ids == TRAINED["byte-bpe"].encode(LINES[0]).ids
