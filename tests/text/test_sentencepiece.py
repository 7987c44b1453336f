"""Sentencepiece models, trained here, beside the sentencepiece library."""

from __future__ import annotations

import io
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.errors import TokenizerError
from clearhead.text import Tokenizer
from clearhead.text.protobuf import fields
from clearhead.text.sentencepiece import Kind, backend_from_sentencepiece, parse
from tests.text.corpus import LINES, TROUBLE

spm = pytest.importorskip("sentencepiece", reason="the sentencepiece package, to compare with, is not installed")

MODELS = {
    "unigram": {"model_type": "unigram"},
    "unigram, bytes, folded": {
        "model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "nmt_nfkc_cf", "vocab_size": 350,
    },
    "unigram, own symbols": {"model_type": "unigram", "user_defined_symbols": ["<sym>", "##"]},
    "bpe": {"model_type": "bpe"},
    "bpe, as Llama": {
        "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "split_digits": True, "vocab_size": 350,
    },
    "bpe, as Gemma": {
        "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "add_dummy_prefix": False,
        "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "vocab_size": 350,
        "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
    },
    "bpe, own symbols": {"model_type": "bpe", "user_defined_symbols": ["<sym>", "##"]},
    "bpe, across words": {"model_type": "bpe", "split_by_whitespace": False},
}  # fmt: skip


def trained(**options):
    out = io.BytesIO()
    lines = [line.strip() for line in LINES]
    settings = {"vocab_size": 94, "hard_vocab_limit": False, "minloglevel": 3, "num_threads": 1} | options
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, **settings)
    return out.getvalue()


BYTES = {name: trained(**options) for name, options in MODELS.items()}
THEIRS = {name: spm.SentencePieceProcessor(model_proto=data) for name, data in BYTES.items()}
OURS = {name: backend_from_sentencepiece(parse(data)) for name, data in BYTES.items()}

# The joiner U+200D and unusual accents are left out: the tokenizers library maps whole graphemes.
PIECES = [*"aehtdn  \t.,'!2ßüé日本🙂①ﬁ½…", "<sym>", "##", "the ", "street", "\n", "\u3000", "\u00a0"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@pytest.mark.parametrize("name", MODELS)
@given(text=TEXTS)
def test_ids_and_text_are_theirs(name, text):
    if text.strip(" \t\n\u3000\u00a0") in ("<sym>", "##"):
        return  # a text that is one user-defined symbol: the known difference
    ids = THEIRS[name].encode(text)
    assert OURS[name].encode(text, add_special_tokens=False).ids == ids
    if THEIRS[name].unk_id() not in ids:
        assert OURS[name].decode(ids) == THEIRS[name].decode(ids)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("text", [*(text for text in TROUBLE if "\u200d" not in text), *LINES, "".join(LINES)])
def test_ids_of_sentences_are_theirs(name, text):
    assert OURS[name].encode(text, add_special_tokens=False).ids == THEIRS[name].encode(text)


def load(folder, name, config=None, file="tokenizer.model"):
    (folder / file).write_bytes(BYTES[name])
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.load(folder)


@pytest.mark.parametrize("name", MODELS)
def test_offsets_lead_back_to_the_text(name, tmp_path):
    tokenizer = load(tmp_path, name)
    for text in ["naïve Café", "日本語 und 🙂", "die  Straße ist", " e\u0301te\u0301 hier", "ﬁne ① …"]:
        encoding = tokenizer.encode(text)
        covered = {at for start, end in encoding.offsets for at in range(start, end)}
        assert {at for at, character in enumerate(text) if not character.isspace()} <= covered
        for (start, end), label, id in zip(encoding.offsets, encoding.labels, encoding.ids, strict=True):
            if label.isascii() and label.isalpha() and id != tokenizer.unk_id and "ﬁ" not in text:
                assert text[start:end].strip().lower() == label.lower()
        words = [number for number in encoding.words if number is not None]
        assert words == sorted(words) and len(set(words)) >= len(text.split())


def test_a_model_file_is_a_tokenizer(tmp_path):
    tokenizer = load(tmp_path, "unigram")
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, None)
    assert tokenizer.vocab_size == THEIRS["unigram"].vocab_size()
    assert tokenizer.decode(tokenizer.encode("the street").ids) == "the street"
    assert tokenizer.encode("the").ids == THEIRS["unigram"].encode("the")
    assert Tokenizer.load(tmp_path / "tokenizer.model").encode("the") == tokenizer.encode("the")
    gemma = load(tmp_path, "bpe, as Gemma")
    assert (gemma.pad_id, gemma.eos_id, gemma.bos_id, gemma.unk_id) == (0, 1, 2, 3)


def test_the_config_says_what_is_put_around_a_text(tmp_path):
    plain = load(tmp_path, "bpe").encode("the street").ids
    llama = load(tmp_path, "bpe", {"tokenizer_class": "LlamaTokenizer"})
    assert llama.encode("the street").ids == [llama.bos_id, *plain]
    both = load(tmp_path, "bpe", {"add_bos_token": True, "add_eos_token": True})
    assert both.encode("the street").ids == [both.bos_id, *plain, both.eos_id]
    bare = load(tmp_path, "bpe", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False})
    assert bare.encode("the street").ids == plain
    glued = load(tmp_path, "bpe", {"add_prefix_space": False})
    assert glued.encode("the street").tokens[0][0] != "▁"


def test_t5_has_sentinels_after_its_pieces(tmp_path):
    tokenizer = load(tmp_path, "unigram", {"tokenizer_class": "T5Tokenizer", "extra_ids": 3}, "spiece.model")
    size = THEIRS["unigram"].vocab_size()
    assert [tokenizer.id_to_token(size + n) for n in range(4)] == ["<extra_id_2>", "<extra_id_1>", "<extra_id_0>", None]
    encoding = tokenizer.encode("the <extra_id_0> street")
    assert encoding.ids == [*THEIRS["unigram"].encode("the"), size + 2, *THEIRS["unigram"].encode("street"), 2]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:::transformers")
def test_saved_as_json_transformers_reads_the_same_ids(name, tmp_path):
    from transformers import AutoTokenizer

    (tmp_path / "a").mkdir()
    ours = load(tmp_path / "a", name, {"add_bos_token": True})
    ours.save(tmp_path / "b")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "b"))
    for text in TROUBLE + LINES:
        assert ours.encode(text).ids == theirs(text)["input_ids"]


def test_stories_llama_has_the_same_ids_in_both_its_files(shared):
    folder = shared / "models" / "stories260K-llama"
    whole, pieces = Tokenizer.load(folder), Tokenizer.load(folder / "tokenizer.model")
    theirs = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in TROUBLE + LINES:
        assert pieces.encode(text).ids == theirs.encode(text)
        if (
            text == " ".join(text.split(" ")).strip(" ") and "  " not in text
        ):  # the conversion keeps blanks, sentencepiece not
            assert whole.encode(text, special=False).ids == theirs.encode(text)


# ---------------------------------------------------------------------------------------------------------- damage


def message(*parts):
    """A protobuf message of `(number, value)`: int as varint, float as fixed 32 bits, bytes with their length."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += bytes([number << 3 & 0x7F | (0x80 if number > 15 else 0)]) + (
                bytes([number >> 4]) if number > 15 else b""
            )
            while value > 0x7F:
                out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
            out += bytes([value])
        elif isinstance(value, float):
            out += bytes([number << 3 | 5]) + struct.pack("<f", value)
        else:
            out += bytes([number << 3 | 2, len(value)]) + value
    return out


def piece(text, kind=Kind.NORMAL, score=-1.0):
    return (1, message((1, text if isinstance(text, bytes) else text.encode()), (2, score), (3, int(kind))))


UNK = piece("<unk>", Kind.UNKNOWN)


@pytest.mark.parametrize(("parts", "complaint"), [
    ([], "one unknown piece"),
    ([piece("a")], "one unknown piece"),
    ([UNK, UNK], "one unknown piece"),
    ([UNK, piece("a"), piece("a")], "both 'a'"),
    ([UNK, piece("")], "0 characters"),
    ([UNK, piece("a" * 60, score=float("nan"))], "nan"),
    ([UNK, piece("a", score=float("inf"))], "inf"),
    ([UNK, piece("a", Kind.UNUSED)], "unused"),
    ([UNK, piece(b"\xff")], "UTF-8"),
    ([UNK, (1, message((1, b"a"), (3, 9)))], "unknown kind"),
    ([UNK, (1, message((1, 5)))], "wrong type"),
    ([UNK, (1, 5)], "no message"),
    ([UNK, (2, message((3, 3)))], "type 3"),
    ([UNK, (2, message((3, 1.0)))], "whole number"),
    ([UNK, (2, message((24, 1)))], "end of words"),
    ([UNK, (2, message((35, 1)))], "256 byte pieces"),
    ([UNK, (3, message((5, 0)))], "does not mark"),
    ([UNK, (3, message((2, 7)))], "no run of bytes"),
])  # fmt: skip
def test_models_that_contradict_themselves_are_refused(parts, complaint):
    with pytest.raises(TokenizerError, match=complaint):
        parse(message(*parts))


def test_a_damaged_character_map_is_refused():
    with pytest.raises(TokenizerError, match="damaged"):
        backend_from_sentencepiece(parse(message(UNK, piece("a"), (3, message((2, b"\xff\xff\xff\xff"))))))


def test_a_tiny_model_made_by_hand():
    backend = backend_from_sentencepiece(parse(message(UNK, piece("▁a"), piece("b", score=-2.0))))
    assert backend.encode("ab a").ids == [1, 2, 1]


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_tokenizer_error(data):
    try:
        list(fields(data))
        parse(data)
    except TokenizerError as refused:
        assert "\n" not in str(refused)


@pytest.mark.parametrize("name", ["unigram", "bpe, as Llama"])
@given(data=st.data())
def test_a_damaged_model_is_a_tokenizer_or_a_tokenizer_error(name, data, tmp_path_factory):
    whole = bytearray(BYTES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, min(len(whole), 4000) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(0, len(whole)) | st.just(len(whole))) :]
    file = tmp_path_factory.getbasetemp() / "damaged.model"
    file.write_bytes(whole)
    try:
        tokenizer = Tokenizer.load(file)
        tokenizer.decode(tokenizer.encode("the street 日本 🙂 ①").ids)
    except TokenizerError as refused:
        assert "\n" not in str(refused)
