"""The tokenizer of each family, from its folder as it is published, beside transformers; what is saved of it, too."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sentencepiece", reason="the sentencepiece package, which trains the folders, is not installed")

from clearhead.errors import TokenizerError
from clearhead.text import Tokenizer
from tests.text.published import NEWER, OLDER, TEXTS, write
from tests.text.test_folder import JSON

# transformers says in its own ways what it will change some day; none of it is ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:::transformers")
KINDS = [*((name, False) for name in OLDER), *((name, True) for name in NEWER)]
SPECIAL = {
    "[SEP]": "the[SEP] street [MASK] it",
    "<|im_end|>": "<|im_start|>user\nit was<|im_end|>\n<|im_start|>the",
    "<|eot_id|>": "<|start_header_id|>user<|end_header_id|>\n\nthe street<|eot_id|>",
    "<end_of_turn>": "<start_of_turn>user\nthe street<end_of_turn>\n",
    "<extra_id_0>": "the <extra_id_0> street <extra_id_1>",
    "▁<extra_id_0>": "the <extra_id_0> street <extra_id_1>",
    "<mask_2>": "<mask_1>the<mask_2><unk_7>street",
    "</s>": "the street</s>it was<unk>too",
    "<|endoftext|>": "the street<|endoftext|>it was",
}
"""A text for the first of these tokens that a tokenizer has."""
LOST = {("smollm", "it was 9, then 2001, then 12345; ok?")}
"""What transformers 5.23 reads otherwise than the tokenizer.json says: its GPT2Tokenizer loses a step."""


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def auto(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def texts_for(ours):
    return [*TEXTS, next(text for token, text in SPECIAL.items() if ours.token_to_id(token) is not None)]


def spans(text, tokens, offsets):
    """Where tokens were read from, without the blanks that some pipelines count to them; not that of a lone mark."""
    kept = []
    for token, (start, end) in zip(tokens, offsets, strict=True):
        inner = text[start:end].strip()
        if token not in ("▁", "Ġ"):
            kept.append((start + text[start:end].find(inner), len(inner)) if inner else None)
    return kept


def assert_same(ours, theirs, texts, *, offsets=True):
    for text in texts:
        encoding = ours.encode(text)
        their = theirs(text, return_offsets_mapping=theirs.is_fast)
        assert encoding.ids == ours.encode_ids(text) == their["input_ids"], text
        bare = ours.encode(text, special=False).ids
        assert bare == theirs(text, add_special_tokens=False)["input_ids"], text
        if theirs.is_fast and offsets:
            mine = spans(text, encoding.tokens, encoding.offsets)
            assert mine == spans(text, encoding.tokens, their["offset_mapping"]), text
        written, back = ours.decode(encoding.ids), theirs.decode(their["input_ids"], skip_special_tokens=True)
        if type(theirs).__name__ == "M2M100Tokenizer":  # it shows its languages, unlike all others
            back = back.removeprefix("__en__")
        assert written == back or (not theirs.is_fast and written.strip() == back), text
        if theirs.is_fast:
            assert ours.decode(encoding.ids, skip_special=False) == theirs.decode(their["input_ids"]), text
        stream = ours.decode_stream()
        assert "".join(map(stream.push, encoding.ids)) + stream.finish() == written, text
    assert ours.encode(texts[0], texts[1]).ids == theirs(texts[0], texts[1])["input_ids"]


@pytest.mark.parametrize(("name", "newer"), KINDS)
def test_a_published_folder_is_what_transformers_reads(name, newer, tmp_path):
    folder = write(tmp_path, name, newer=newer)
    ours, theirs = Tokenizer.load(folder), auto(folder)
    assert_same(ours, theirs, [text for text in texts_for(ours) if (name, text) not in LOST])
    assert ours.vocab_size == len(theirs)
    for role in ("pad", "bos", "eos", "cls", "sep", "mask"):
        if role == "mask" and "gemma" in name:  # transformers 5 has made a role of what was a piece
            continue
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id"), role


@pytest.mark.parametrize(("name", "newer"), KINDS)
def test_what_is_saved_is_read_alike(name, newer, tmp_path):
    folder = write(tmp_path / "a", name, newer=newer)
    ours = Tokenizer.load(folder)
    ours.save(tmp_path / "b")
    shutil.copy(folder / "config.json", tmp_path / "b")
    again, theirs = Tokenizer.load(tmp_path / "b"), auto(tmp_path / "b")
    texts = texts_for(ours)
    for text in [*texts, "  blanks around ", "ﬁne ①, e\u0301te\u0301"]:
        assert again.encode(text) == ours.encode(text), text
        assert again.encode_target(text) == ours.encode_target(text), text
    assert (again.special_tokens, again.languages) == (ours.special_tokens, ours.languages)
    assert_same(again, theirs, texts)
    origin = auto(folder)
    if name not in ("mistral", "phi3"):  # which version 4 pads on the left, and so do their files
        assert theirs.padding_side == origin.padding_side
    if name not in ("albert", "albert, cased", "distilbert"):  # of types of tokens, transformers 4 is right, not 5
        assert list(theirs("the")) == list(origin("the"))


def test_a_mask_takes_the_blank_before_it_along(tmp_path):
    """As in the hub's tokenizer.json and in transformers 4; version 5 loses it where there are bare vocabularies."""
    for name in ("roberta", "bart", "xlm-roberta", "camembert", "mbart"):
        ours = Tokenizer.load(write(tmp_path / name, name))
        assert ours.encode("the <mask> street").ids == ours.encode("the<mask> street").ids, name


@pytest.mark.parametrize(("name", "newer"), KINDS)
def test_folders_need_no_config_of_the_model_to_be_read_where_they_name_a_class(name, newer, tmp_path):
    folder = write(tmp_path, name, newer=newer)
    ours = Tokenizer.load(folder)
    (folder / "config.json").unlink()
    config = folder / "tokenizer_config.json"
    if not config.is_file() or "tokenizer_class" not in json.loads(config.read_text()):
        return
    assert Tokenizer.load(folder).encode(TEXTS[0]) == ours.encode(TEXTS[0])


def test_a_models_config_may_be_anything(tmp_path):
    folder = write(tmp_path, "gpt2")
    for content in ("[]", "nonsense", '{"model_type": 5}', '{"model_type": "unheard-of"}'):
        (folder / "config.json").write_text(content)
        assert Tokenizer.load(folder).encode("it").ids == Tokenizer.load(folder / "vocab.json").encode("it").ids


@pytest.mark.parametrize(("name", "change", "message"), [
    ("pegasus", {"offset": 5}, "offset=5"),
    ("t5", {"extra_ids": -1}, "extra_ids=-1"),
    ("m2m_100", {"language_codes": "klingon"}, "klingon"),
    ("mbart", {"src_lang": "tlh_XX"}, "tlh_XX"),
    ("xlm-roberta", {"tokenizer_class": "XLNetTokenizer"}, "XLNetTokenizer"),
    ("xlm-roberta", {"tokenizer_class": "GPT2Tokenizer"}, "GPT2Tokenizer"),
])  # fmt: skip
def test_what_is_not_known_is_refused_by_name(name, change, message, tmp_path):
    folder = write(tmp_path, name)
    config = folder / "tokenizer_config.json"
    known = json.loads(config.read_text()) if config.is_file() else {}
    config.write_text(json.dumps(known | change))
    with pytest.raises(TokenizerError, match=message) as refused:
        Tokenizer.load(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("file", "content", "message"), [
    ("vocab.json", '{"a": 0}', "no <unk>"),
    ("vocab.json", '{"<unk>": 0, "a": 0}', "one id for two"),
    ("vocab.json", '{"<unk>": 0, "a": "b"}', "whole number"),
    ("vocab.json", "[]", "JSON object"),
    ("target.spm", "x", "damaged"),
    ("target.spm", None, "target.spm is missing"),
])  # fmt: skip
def test_a_damaged_marian_is_refused_in_one_line(file, content, message, tmp_path):
    folder = write(tmp_path, "marian")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(TokenizerError, match=message) as refused:
        Tokenizer.load(folder)
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


KEYS = [
    "tokenizer_class", "src_lang", "tgt_lang", "additional_special_tokens", "extra_special_tokens", "extra_ids",
    "added_tokens_decoder", "legacy", "legacy_behaviour", "add_prefix_space", "separate_vocabs", "language_codes",
    "eos_token", "unk_token", "mask_token", "model_max_length", "chat_template", "do_lower_case", "offset",
]  # fmt: skip
FUZZED = ["bert", "qwen2", "llama", "t5", "albert", "pegasus", "camembert", "mbart", "nllb", "m2m_100", "marian"]


@pytest.mark.parametrize("name", FUZZED)
@settings(max_examples=8)
@given(data=st.data())
def test_a_config_gone_wrong_gives_a_tokenizer_or_a_tokenizer_error(name, data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / f"fuzzed {name}"
    if not folder.exists():
        write(folder, name)
    config = folder / "tokenizer_config.json"
    kept = folder / "kept.json"
    if not kept.exists():
        kept.write_bytes(config.read_bytes() if config.is_file() else b"{}")
    wrong = data.draw(st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=2))
    config.write_text(json.dumps(json.loads(kept.read_text()) | wrong))
    try:
        tokenizer = Tokenizer.load(folder)
        tokenizer.decode(tokenizer.encode_target("the street 日本 🙂").ids)
        tokenizer.save(folder / "saved")
    except TokenizerError as refused:
        assert "\n" not in str(refused)
