"""Folders: each format that we read, what we refuse, and what Hugging Face reads of what we write."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.errors import TokenizerError
from clearhead.text import KINDS, Tokenizer, folder
from tests.text.corpus import LINES, MINILM, TROUBLE, unchecked
from tests.text.test_train import TRAINED

# transformers says in its own ways what it will change some day; none of it is ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:::transformers")


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def auto(folder, **options):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), **options)


def assert_same_ids(ours, theirs, texts=(*TROUBLE, *LINES)):
    for text in texts:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
        assert ours.encode(text, special=False).ids == theirs(text, add_special_tokens=False)["input_ids"], text
    pair = ours.encode(texts[-1], texts[-2])
    assert pair.ids == theirs(texts[-1], texts[-2])["input_ids"]


def assert_same_roles(ours, theirs):
    for role in ("pad", "bos", "eos", "cls", "sep", "mask"):
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id"), role


# ----------------------------------------------------------------------------------------------------------- save


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_train_is_read_by_transformers(kind, tmp_path):
    specials = None if kind == "wordpiece" else ["<pad>", "<bos>", "<eos>"]
    size = {"byte-bpe": 300, "bpe": 200, "wordpiece": 250, "unigram": 160}.get(kind)
    ours = Tokenizer.train(LINES, kind=kind, vocab_size=size, special_tokens=specials)
    ours.save(tmp_path / "new" / "folder")
    theirs = auto(tmp_path / "new" / "folder")
    assert_same_ids(ours, theirs)
    assert_same_roles(ours, theirs)
    for text in LINES:
        ids = ours.encode(text).ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    again = Tokenizer.load(tmp_path / "new" / "folder")
    assert again.backend.to_str() == ours.backend.to_str() and again.special_tokens == ours.special_tokens
    assert again.encode(LINES[0]) == ours.encode(LINES[0])


def test_saving_keeps_what_the_origin_said_and_drops_code(tmp_path):
    origin = tmp_path / "origin"
    TRAINED["byte-bpe"].save(origin)
    config = {
        "tokenizer_class": "TokenizersBackend",
        "model_max_length": 77,
        "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]},
        "unknown_key": {"kept": True},
        "chat_template": "{{ messages }}",
        "eos_token": {"content": "Every", "lstrip": True},
    }
    (origin / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(origin)
    ours.save(tmp_path / "copy")
    kept = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    assert "auto_map" not in kept
    assert kept["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert {key: kept[key] for key in ("model_max_length", "unknown_key", "chat_template")} == {
        key: config[key] for key in ("model_max_length", "unknown_key", "chat_template")
    }
    again = Tokenizer.load(tmp_path / "copy")
    assert (again.model_max_length, again.chat_template) == (77, "{{ messages }}")
    assert sorted(os.listdir(tmp_path / "copy")) == ["tokenizer.json", "tokenizer_config.json"]


def test_a_stale_chat_template_beside_is_kept_in_step(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("old")
    ours = Tokenizer.train(LINES, kind="byte")
    ours.chat_template = "new"
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template == "new" == auto(tmp_path).chat_template
    ours.chat_template = None
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template is None


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    TRAINED["byte"].save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def crash(*names):
        raise OSError("disk on fire")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(TokenizerError, match="disk on fire"):
        TRAINED["bpe"].save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["tokenizer.json", "tokenizer_config.json"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenizerError, match="cannot be written"):
        TRAINED["byte"].save(tmp_path / "file" / "folder")


# -------------------------------------------------------------------------------------------------- tokenizer.json


def test_minilm_is_what_transformers_reads():
    ours, theirs = Tokenizer.load(MINILM), auto(MINILM)
    assert_same_ids(ours, theirs)
    assert_same_roles(ours, theirs)
    encoding = ours.encode("A naïve", "pair")
    assert encoding.type_ids == theirs("A naïve", "pair")["token_type_ids"]


def test_stories_llama_is_what_transformers_reads(shared):
    folder = shared / "models" / "stories260K-llama"
    ours, theirs = Tokenizer.load(folder), auto(folder)
    assert_same_ids(ours, theirs)
    assert_same_roles(ours, theirs)
    text = "Once upon a time, a naïve 🙂"
    assert ours.decode(ours.encode(text).ids) == theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True)
    words = ours.encode(text).words
    assert words[0] is None and sorted(set(words[1:])) == [0, 1, 2, 3, 4, 5, 6]


def test_bytes_of_a_broken_character_do_not_take_their_neighbours_along(shared):
    ours = Tokenizer.load(shared / "models" / "stories260K-llama")
    ids = [ours.token_to_id(f"<0x{byte:02X}>") for byte in "日本".encode()]
    assert ours.decode(ids) == "日本"
    assert ours.decode(ids[:-1]) == "日\ufffd\ufffd"
    stream = ours.decode_stream()
    assert [stream.push(id) for id in ids[:-1]] == ["", "", "日", "", ""] and stream.finish() == "\ufffd\ufffd"


@pytest.mark.parametrize("flags", [{"add_bos_token": False}, {"add_bos_token": True, "add_eos_token": True}])
@pytest.mark.parametrize("specials", [["<bos>", "<eos>"], ["<|endoftext|>"]])
def test_what_is_put_around_a_text_stands_in_tokenizer_json(flags, specials, tmp_path):
    Tokenizer.train(LINES, kind="byte-bpe", vocab_size=300, special_tokens=specials).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | flags))
    assert_same_ids(Tokenizer.load(tmp_path), auto(tmp_path), LINES)


def test_tokens_that_only_the_config_knows(tmp_path):
    TRAINED["byte-bpe"].save(tmp_path)
    size = TRAINED["byte-bpe"].vocab_size
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {str(size): {"content": "<new>", "special": True, "normalized": False}},
        "pad_token": "<new>",
        "eos_token": "<never>",
        "split_special_tokens": False,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(tmp_path)
    assert (ours.pad_id, ours.vocab_size, ours.eos_id) == (size, size + 1, None)
    assert ours.encode("a<new>b").special == [False, True, False]
    assert ours.decode(ours.encode("a<new>b").ids) == "ab"
    ours.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").pad_id == size

    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"7": {"content": "<new>"}}}))
    with pytest.raises(TokenizerError, match="do not belong together"):
        Tokenizer.load(tmp_path)


def test_special_tokens_may_be_named_beside_and_split(tmp_path):
    TRAINED["byte-bpe"].save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"split_special_tokens": True}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "e"}, "pad_token": "o"}))
    ours = Tokenizer.load(tmp_path)
    assert ours.special_tokens == {"eos": "e", "pad": "o"}
    assert_same_ids(ours, auto(tmp_path), LINES)


def test_chat_templates_come_from_file_or_config(tmp_path):
    TRAINED["byte"].save(tmp_path)
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named, "model_max_length": 1e30}))
    ours = Tokenizer.load(tmp_path)
    assert (ours.chat_template, ours.model_max_length) == ("plain", None)
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template == "plain"
    (tmp_path / "chat_template.jinja").write_text("of the file")
    assert Tokenizer.load(tmp_path).chat_template == "of the file"


# -------------------------------------------------------------------------------------------------- older formats


def gpt2_folder(folder, config=None):
    folder.mkdir(exist_ok=True)
    trained = Tokenizer.train(LINES, kind="byte-bpe", vocab_size=300, special_tokens=["<|endoftext|>"])
    trained.backend.model.save(str(folder))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("config", [
    {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024},
    {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
    {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True},
])  # fmt: skip
def test_gpt2s_files_are_what_transformers_reads(config, tmp_path):
    folder = gpt2_folder(tmp_path / "gpt2", config)
    ours, theirs = Tokenizer.load(folder), auto(folder)
    assert_same_ids(ours, theirs)
    assert_same_roles(ours, theirs)
    ours.save(tmp_path / "copy")
    assert_same_ids(ours, auto(tmp_path / "copy"))
    text = "the <|endoftext|> street"
    assert ours.encode(text).ids == theirs(text)["input_ids"]


def test_gpt2s_files_need_no_config(tmp_path):
    from transformers import GPT2Tokenizer

    folder = gpt2_folder(tmp_path / "gpt2")
    ours = Tokenizer.load(folder)
    assert_same_ids(ours, GPT2Tokenizer.from_pretrained(str(folder)))
    assert (
        Tokenizer.load(folder / "vocab.json").encode("it").ids == Tokenizer.load(folder / "merges.txt").encode("it").ids
    )
    assert ours.bos_id == ours.eos_id == 0


def test_robertas_files_are_what_transformers_reads(tmp_path):
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    Tokenizer.train(LINES, kind="byte-bpe", vocab_size=300, special_tokens=specials).backend.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    ours, theirs = Tokenizer.load(tmp_path), auto(tmp_path)
    assert_same_ids(ours, theirs)
    assert_same_roles(ours, theirs)
    # RoBERTa's mask takes the blank before it along, as in the hub's tokenizer.json; transformers 5 lost that here.
    assert ours.encode("the <mask> street").ids == theirs("the<mask> street")["input_ids"]


@pytest.mark.parametrize("config", [
    None,
    {"tokenizer_class": "BertTokenizer", "do_lower_case": False},
    {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True, "strip_accents": False},
    {"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": False, "model_max_length": 512},
])  # fmt: skip
def test_berts_vocabulary_is_what_transformers_reads(config, tmp_path):
    from transformers import BertTokenizer

    shutil.copy(MINILM / "vocab.txt", tmp_path)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = Tokenizer.load(tmp_path), BertTokenizer.from_pretrained(str(tmp_path))
    assert_same_ids(ours, theirs)
    assert_same_roles(ours, theirs)
    text = "the [MASK] Café 日本語"
    assert ours.encode(text).ids == theirs(text)["input_ids"]
    ours.save(tmp_path / "copy")
    assert_same_ids(ours, auto(tmp_path / "copy"))


def test_minilm_by_its_vocabulary_is_minilm():
    old, new = Tokenizer.load(MINILM / "vocab.txt"), Tokenizer.load(MINILM)
    for text in (*TROUBLE, *LINES):
        assert old.encode(text) == new.encode(text)


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("files", "message"), [
    ({}, "holds no tokenizer"),
    ({"readme.md": "hello"}, "holds no tokenizer"),
    ({"a.model": "", "b.model": ""}, "there are 2"),
    ({"tokenizer.json": "{"}, "no tokenizer that"),
    ({"tokenizer.json": "{}"}, "no tokenizer that"),
    ({"tokenizer.json": b"\xff\xfe"}, "not UTF-8"),
    ({"vocab.json": "{}"}, "merges.txt is missing"),
    ({"merges.txt": ""}, "vocab.json is missing"),
    ({"vocab.json": "[]", "merges.txt": ""}, "JSON object"),
    ({"vocab.json": '{"a": "b"}', "merges.txt": ""}, "whole number"),
    ({"vocab.json": '{"a": -1}', "merges.txt": ""}, "whole number"),
    ({"vocab.json": '{"a": 0}', "merges.txt": "#version: 0.2\na b c\n"}, "line 2"),
    ({"vocab.json": '{"a": 0}', "merges.txt": "a b"}, "belong together"),
    ({"vocab.json": "{" * 100_000, "merges.txt": ""}, "not valid JSON"),
    ({"vocab.json": '{"a": 0}', "merges.txt": "", "tokenizer_config.json": '{"tokenizer_class": "CLIPTokenizer"}'},
     "CLIPTokenizer"),
    ({"vocab.json": '{"a": 99999999}', "merges.txt": ""}, "has id 99999999"),
    ({"vocab.txt": ""}, "unknown token"),
    ({"vocab.txt": "a\nb\n"}, "unknown token"),
    ({"vocab.txt": "[UNK]\n", "tokenizer_config.json": "nonsense"}, "not valid JSON"),
    ({"vocab.txt": "[UNK]\n", "tokenizer_config.json": '{"pad_token": 5}'}, "is no token"),
    ({"vocab.txt": "[UNK]\n", "tokenizer_config.json": '{"added_tokens_decoder": {"x": "y"}}'}, "whole number"),
    ({"vocab.txt": "[UNK]\n", "tokenizer_config.json": '{"added_tokens_decoder": []}'}, "should be an object"),
    ({"vocab.txt": "[UNK]\n", "added_tokens.json": '{"<x>": 7}'}, "do not belong together"),
    ({"tokenizer.model": ""}, "0 among 0 pieces"),
    ({"tokenizer.model": b"\x00\x01\x02"}, "field number 0"),
    ({"spiece.model": b"x", "tokenizer_config.json": '{"tokenizer_class": "XLNetTokenizer"}'}, "XLNetTokenizer"),
    ({"source.spm": b"x", "tokenizer_config.json": '{"tokenizer_class": "MarianTokenizer"}'}, "vocab.json is missing"),
    ({"vocab.json": "{}", "tokenizer_config.json": '{"tokenizer_class": "M2M100Tokenizer"}'}, "is missing"),
])  # fmt: skip
def test_what_is_no_tokenizer_is_refused_in_one_line(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TokenizerError, match=message) as refused:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


def test_paths_that_lead_nowhere(tmp_path):
    for wrong in (5, None):
        with pytest.raises(TokenizerError, match="looked at"):
            unchecked(folder.read)(wrong)
        with pytest.raises(TokenizerError, match="is no folder"):
            unchecked(Tokenizer.save)(TRAINED["byte"], wrong)
    with pytest.raises(TokenizerError, match="does not exist"):
        Tokenizer.load(tmp_path / "nowhere")
    for name in ("x" * 5000, "nul\0byte"):
        with pytest.raises(TokenizerError, match=r"looked at|does not exist"):
            Tokenizer.load(tmp_path / name)
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        Tokenizer.load(tmp_path / "notes.md")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**33) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SMALL = {kind: json.loads(TRAINED[kind].backend.to_str()) for kind in KINDS}


@given(data=st.data())
def test_damaged_json_gives_a_tokenizer_or_a_tokenizer_error(tmp_path_factory, data):
    content = json.loads(json.dumps(SMALL[data.draw(st.sampled_from(KINDS))]))
    parent, key = {"whole": content}, "whole"
    while isinstance(parent[key], dict | list) and parent[key] and data.draw(st.booleans()):
        parent, node = parent[key], parent[key]
        parent, key = node, data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    parent[key] = data.draw(JSON)
    file = tmp_path_factory.getbasetemp() / "damaged.json"
    file.write_text(json.dumps(content))
    try:
        tokenizer = Tokenizer.load(file)
        tokenizer.decode(tokenizer.encode("the street 日本 🙂").ids)
    except TokenizerError as refused:
        assert "\n" not in str(refused)
