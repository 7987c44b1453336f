"""Training: six kinds, each deterministic, each as lossless as it says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.errors import TokenizerError
from clearhead.text import KINDS, Tokenizer
from tests.text.corpus import LINES, TROUBLE, unchecked

SIZES = {"byte": None, "character": None, "byte-bpe": 300, "bpe": 200, "wordpiece": 250, "unigram": 160}
LOSSLESS = [kind for kind in KINDS if kind != "wordpiece"]
TRAINED = {kind: Tokenizer.train(LINES, kind=kind, vocab_size=SIZES[kind]) for kind in KINDS}
SEEN = sorted(set("".join(LINES)))


def train_unchecked(texts, **given):
    return unchecked(Tokenizer.train)(Tokenizer, texts, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer(kind):
    files = {Tokenizer.train(LINES, kind=kind, vocab_size=SIZES[kind]).backend.to_str() for _ in range(4)}
    assert files == {TRAINED[kind].backend.to_str()}


@pytest.mark.parametrize("kind", ["byte", "byte-bpe"])
@given(text=st.text())
def test_kinds_of_bytes_give_back_any_text(kind, text):
    tokenizer = TRAINED[kind]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("kind", LOSSLESS)
@given(text=st.text(st.sampled_from(SEEN)))
def test_kinds_of_characters_give_back_any_text_of_seen_ones(kind, text):
    tokenizer = TRAINED[kind]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from([*SEEN, "é", "\u0301", "ﬁ", "👩", "\u200d"])))
def test_ids_alone_are_the_ids_of_the_encoding(kind, text):
    assert TRAINED[kind].encode_ids(text) == TRAINED[kind].encode(text).ids


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("text", [*TROUBLE, "".join(LINES)])
def test_offsets_of_lossless_kinds_cover_the_text_without_a_gap(kind, text):
    spans = TRAINED[kind].encode(text).offsets
    at = 0
    for start, end in spans:
        assert start <= at <= end and start < end  # a character whose bytes are divided is in both its tokens
        at = end
    assert at == len(text)


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("text", [*TROUBLE, "".join(LINES)])
def test_offsets_give_the_piece_of_text_that_the_token_stands_for(kind, text):
    encoding = TRAINED[kind].encode(text)
    for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        piece = TRAINED[kind].bytes_of(id)
        assert id == TRAINED[kind].unk_id or piece in text[start:end].encode()
        assert id == TRAINED[kind].unk_id or len(piece) > len(text[start + 1 : end - 1].encode())


@pytest.mark.parametrize(("text", "pieces"), [
    ("naïve Café", ["naïve", "Café"]),
    ("e\u0301te\u0301 x", ["e\u0301te\u0301", "x"]),
    ("日本", ["日", "本"]),
    (" 🙂 the", ["🙂", "the"]),
])  # fmt: skip
def test_wordpieces_point_at_their_words(text, pieces):
    encoding = TRAINED["wordpiece"].encode(text)
    found: dict[int, list[int]] = {}
    for word, (start, end) in zip(encoding.words, encoding.offsets, strict=True):
        if word is not None:
            found.setdefault(word, []).extend([start, end])
    assert [text[min(span) : max(span)] for span in found.values()] == pieces


def test_words_are_the_same_whatever_they_are_cut_into():
    text = "The animal didn't"
    whole = TRAINED["byte-bpe"].encode(text)
    for kind in ("byte", "character", "bpe", "unigram"):
        encoding = TRAINED[kind].encode(text)
        starts = [
            start for (start, _), (a, b) in zip(encoding.offsets[1:], pairwise(encoding.words), strict=True) if a != b
        ]
        assert starts[0] == 3 == whole.offsets[whole.words.index(1)][0]


def test_labels_are_for_people():
    encoding = TRAINED["byte"].encode("a 🙂é")
    assert encoding.labels == ["a", " ", "\\xf0", "\\x9f", "\\x99", "\\x82", "\\xc3", "\\xa9"]
    assert encoding.tokens[1] == "Ġ"
    assert TRAINED["wordpiece"].encode("tired").labels[0] == "[CLS]"
    assert TRAINED["unigram"].encode("ж").tokens == TRAINED["unigram"].encode("ж").labels == ["<unk>"]


def test_special_tokens_get_their_roles_and_places():
    tokenizer = Tokenizer.train(LINES, kind="byte-bpe", vocab_size=300, special_tokens=["<pad>", "<bos>", "<eos>"])
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, None)
    encoding = tokenizer.encode("it was")
    assert encoding.ids[0] == tokenizer.bos_id
    assert encoding.special == [True] + [False] * (len(encoding) - 1)
    assert encoding.words[0] is None and encoding.offsets[0] == (0, 0)
    assert tokenizer.encode("it was", special=False).ids == encoding.ids[1:]
    assert tokenizer.decode(encoding.ids) == "it was"
    assert tokenizer.decode(encoding.ids, skip_special=False) == "<bos>it was"

    gpt2 = Tokenizer.train(LINES, kind="byte-bpe", vocab_size=300, special_tokens=["<|endoftext|>"])
    assert gpt2.bos_id == gpt2.eos_id == 0
    assert gpt2.encode("it").special == [False]

    named = Tokenizer.train(LINES, kind="character", special_tokens={"bos_token": "⟨", "eos_token": "⟩"})
    assert named.token_to_id("⟨") == named.bos_id and named.token_to_id("<unk>") == named.unk_id == 0
    assert named.decode(named.encode("it").ids) == "it"

    bytewise = Tokenizer.train(LINES, kind="byte", special_tokens=["<eos>"])
    assert (bytewise.vocab_size, bytewise.eos_id) == (257, 256)
    assert bytewise.encode("é").ids == list("é".encode())


def test_a_pair_is_joined_as_bert_joins_it():
    tokenizer = TRAINED["wordpiece"]
    first, second = "it was", "too tired"
    both = tokenizer.encode(first, second)
    assert both.tokens.count("[SEP]") == 2 and both.ids[0] == tokenizer.cls_id
    assert both.type_ids == [0] * (len(tokenizer.encode(first))) + [1] * (len(tokenizer.encode(second)) - 1)
    texts = [first, second]
    read = [texts[s][a:b] for (a, b), s in zip(both.offsets, both.sequences, strict=True) if s is not None]
    assert "".join(read) == "itwastootired"


def test_sizes_hold():
    for kind in ("byte-bpe", "bpe", "wordpiece", "unigram"):
        assert TRAINED[kind].vocab_size <= SIZES[kind]
    assert TRAINED["byte"].vocab_size == len(TRAINED["byte"]) == 256
    assert TRAINED["character"].vocab_size == len(SEEN) + 1


@pytest.mark.parametrize(("given", "message"), [
    ({"kind": "words", "vocab_size": 10}, "no kind of tokenizer"),
    ({"kind": "byte-bpe", "vocab_size": 255}, "too small"),
    ({"kind": "byte", "vocab_size": 100}, "too small"),
    ({"kind": "bpe", "vocab_size": 5}, "byte-bpe"),
    ({"kind": "character", "vocab_size": 5}, "too small"),
    ({"kind": "wordpiece", "vocab_size": 5}, "too small"),
    ({"kind": "unigram", "vocab_size": 5}, "too small"),
    ({"kind": "bpe"}, "give vocab_size"),
    ({"kind": "bpe", "vocab_size": 0}, "whole number"),
    ({"kind": "bpe", "vocab_size": True}, "whole number"),
    ({"kind": ["bpe"], "vocab_size": 99}, "no kind of tokenizer"),
    ({"kind": "bpe", "vocab_size": 99, "special_tokens": [""]}, "should be texts"),
    ({"kind": "bpe", "vocab_size": 99, "special_tokens": 5}, "should be texts"),
    ({"kind": "bpe", "vocab_size": 99, "special_tokens": {"begin": "<s>"}}, "no special token's name"),
])  # fmt: skip
def test_bad_wishes_are_refused_in_one_line(given, message):
    with pytest.raises(TokenizerError, match=message) as refused:
        train_unchecked(LINES, **given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "byte"])
@pytest.mark.parametrize(("texts", "message"), [
    ([], "no text to learn from"),
    (["", ""], "no text to learn from"),
    (["fine", 5], "text 1 is a int"),
    (["fine", "a\ud800"], "lone surrogate"),
])  # fmt: skip
def test_bad_texts_are_refused(kind, texts, message):
    with pytest.raises(TokenizerError, match=message):
        train_unchecked(texts, kind=kind, vocab_size=400)


def test_one_text_may_stand_for_a_list_of_them():
    alone = Tokenizer.train("the street", kind="character")
    assert alone.vocab_size == len(set("the street")) + 1
