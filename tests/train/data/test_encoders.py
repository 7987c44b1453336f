"""Rows to ids: labels at the right tokens, cuts that keep what must be kept, answers found or refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.errors import ConfigError, TrainingError
from clearhead.text import Tokenizer
from clearhead.train.data.chat import answers
from clearhead.train.data.encoders import IGNORED, Chat, Labelled, Scored, Tagged, Text, Translation
from tests.train.data.support import VERSES, bytes_tokenizer, pieces_tokenizer

WORDS = st.lists(
    st.sampled_from(
        ["God", "earth", "beginning", "light", "darkness", "upon", "heaven", "void;", "x", "(", "void,", "naïve", "🙂"]
    ),
    min_size=1,
)


def encode(encoder, row, tokenizer, notes=None, *, first=True, last=True):
    return encoder.encode(row, tokenizer, notes if notes is not None else Counter(), first=first, last=last)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_documents_end_where_they_end():
    tokenizer = bytes_tokenizer(bos_token="<bos>", eos_token="<eos>")
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    text = Text(begin=True)
    assert encode(text, {"text": "ab"}, tokenizer) == {"ids": [bos, 97, 98, eos]}
    assert encode(text, {"text": "ab"}, tokenizer, last=False) == {"ids": [bos, 97, 98]}
    assert encode(text, {"text": "ab"}, tokenizer, first=False) == {"ids": [97, 98, eos]}
    notes = Counter()
    assert encode(Text(longest=3), {"text": "abcd"}, tokenizer, notes) == {"ids": [97, 98, eos]}
    assert notes == {"texts cut to 3 tokens": 1}


@given(WORDS, st.booleans(), st.integers(3, 30))
def test_words_begin_where_they_begin(words, special, longest):
    tokenizer = pieces_tokenizer()
    found = encode(Text(special=special, words=True, end=False, longest=longest), {"text": " ".join(words)}, tokenizer)
    assert len(found["ids"]) == len(found["starts"]) <= longest
    for id, start in zip(found["ids"], found["starts"], strict=True):
        assert start == (not tokenizer.id_to_token(id).startswith("##"))
    if special:
        assert found["ids"][0] == tokenizer.cls_id and found["ids"][-1] == tokenizer.sep_id


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_label_is_a_name_or_a_number():
    tokenizer = pieces_tokenizer()
    encoder = Labelled(labels=("bad", "good"))
    for value, number in (("good", 1), (1, 1), ("0", 0), ("bad", 0)):
        assert encode(encoder, {"text": "God", "label": value}, tokenizer)["label"] == [number]
    assert encode(Labelled(labels=("1", "0")), {"text": "x", "label": 1}, tokenizer)["label"] == [
        0
    ]  # a name comes first
    for value, match in (
        ("goood", "did you mean 'good'"),
        (2, "is none of bad, good"),
        (None, "none of"),
        (True, "none"),
    ):
        with pytest.raises(TrainingError, match=match):
            encode(encoder, {"text": "God", "label": value}, tokenizer)
    several = Labelled(labels=("a", "b", "c"), several=",")
    assert encode(several, {"text": "God", "label": ["c", "a"]}, tokenizer)["label"] == [1.0, 0.0, 1.0]
    assert encode(several, {"text": "God", "label": "b,c"}, tokenizer)["label"] == [0.0, 1.0, 1.0]
    assert encode(several, {"text": "God", "label": ""}, tokenizer)["label"] == [0.0, 0.0, 0.0]
    assert encode(Scored(), {"text": "God", "score": "2.5"}, tokenizer)["score"] == [2.5]
    with pytest.raises(TrainingError, match="'much', which is no number"):
        encode(Scored(), {"text": "God", "score": "much"}, tokenizer)
    with pytest.raises(ConfigError, match="names one twice"):
        Labelled(labels=("a", "a"))
    with pytest.raises(ConfigError, match="at least one"):
        Labelled(labels=())


def test_a_missing_column_names_those_there_are():
    tokenizer = bytes_tokenizer()
    with pytest.raises(TrainingError, match="no column 'text'; did you mean 'texts'"):
        encode(Text(), {"texts": ""}, tokenizer)
    with pytest.raises(TrainingError, match="no column 'text'; there are 'a', 'b'"):
        encode(Text(), {"a": "", "b": ""}, tokenizer)
    with pytest.raises(TrainingError, match="has 3, which is no text"):
        encode(Text(), {"text": 3}, tokenizer)


@given(WORDS, st.none() | WORDS, st.integers(4, 40))
def test_a_cut_keeps_special_tokens_and_takes_from_the_longer(first, second, longest):
    tokenizer = pieces_tokenizer()
    row = {"text": " ".join(first), "pair": " ".join(second or []), "label": 0}
    pair = "pair" if second is not None else None
    notes = Counter()
    whole = encode(Labelled(labels=("a",), pair=pair), row, tokenizer)
    cut = encode(Labelled(labels=("a",), pair=pair, longest=longest), row, tokenizer, notes)
    assert len(cut["ids"]) == min(longest, len(whole["ids"]))
    assert bool(notes) == (len(whole["ids"]) > longest)
    special = {tokenizer.cls_id, tokenizer.sep_id}
    assert [id for id in cut["ids"] if id in special] == [id for id in whole["ids"] if id in special]
    if second is not None:
        sizes = [
            [t for id, t in zip(x["ids"], x["types"], strict=True) if id not in special].count(0) for x in (cut, whole)
        ]
        others = [len(x["ids"]) - 3 - size for x, size in zip((cut, whole), sizes, strict=True)]
        assert sizes[0] == sizes[1] or others[0] == others[1] or abs(sizes[0] - others[0]) <= 1


@pytest.mark.parametrize("kind", ["pieces", "bytes", "bpe", "unigram"])
@settings(max_examples=20)
@given(words=WORDS)
def test_a_tag_stands_at_its_words_first_token(kind, words):
    tokenizer = TOKENIZERS[kind]
    labels = tuple(f"T{n}" for n in range(len(words)))
    found = encode(Tagged(labels=labels), {"tokens": words, "tags": list(labels)}, tokenizer)
    encoding = tokenizer.encode(" ".join(words))
    assert [tag for tag in found["tags"] if tag != IGNORED] == list(range(len(words)))
    starts = [len(" ".join(words[:n])) + bool(n) for n in range(len(words))]
    for at, tag in enumerate(found["tags"]):
        if tag != IGNORED:
            begin, end = encoding.offsets[at]
            assert begin <= starts[tag] < end


TOKENIZERS = {
    "pieces": pieces_tokenizer(),
    "bytes": bytes_tokenizer(),
    "bpe": Tokenizer.train(VERSES, kind="byte-bpe", vocab_size=300),
    "unigram": Tokenizer.train(VERSES, kind="unigram", vocab_size=80),
}


def test_words_without_a_token_are_counted():
    notes = Counter()
    row = {"tokens": ["God", "\x00", "earth"], "tags": ["A", "B", "A"]}
    found = encode(Tagged(labels=("A", "B")), row, pieces_tokenizer(), notes)
    assert [tag for tag in found["tags"] if tag != IGNORED] == [0, 0]
    assert notes == {"words without a token, whose tags are not learned": 1}
    with pytest.raises(TrainingError, match="lists of one length"):
        encode(Tagged(labels=("A",)), {"tokens": ["a"], "tags": []}, pieces_tokenizer())
    with pytest.raises(TrainingError, match="the label 'C' in column 'tags' is none of A"):
        encode(Tagged(labels=("A",)), {"tokens": ["a"], "tags": ["C"]}, pieces_tokenizer())


def test_a_translation_ends_in_eos():
    tokenizer = bytes_tokenizer()
    found = encode(Translation(), {"source": "ab", "target": "cd"}, tokenizer)
    assert found == {"ids": [97, 98], "target": [99, 100, 256]}
    nested = Translation(source="de", target="en", nested="translation", longest=2)
    assert encode(nested, {"translation": {"de": "abc", "en": "cde"}}, tokenizer) == {
        "ids": [97, 98],
        "target": [99, 256],
    }


# ── conversations ────────────────────────────────────────────────────────────────────────────────────────────────────

CHATML = """{% for m in messages %}{{'<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n'}}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
MARKED = """{% for m in messages %}
    {% if m.role == 'assistant' %}
        {%- generation %}
{{ m.content | trim }}<|im_end|>
        {%- endgeneration %}

    {% else %}
{{ m.role }}: {{ m.content }}
    {% endif %}
{% endfor %}"""
REWRITES = """{% for m in messages %}{{ m.role }}: {{ m.content if loop.last else m.content | upper }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi 🙂"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": " Naïve "},
]


def chat_tokenizer(template):
    tokenizer = Tokenizer.train([], kind="byte", special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = template
    return tokenizer


def test_answers_are_found_as_the_text_grows():
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    text, spans = answers(chat_tokenizer(CHATML), TALK)
    assert [text[a:b] for a, b in spans] == ["Hello!<|im_end|>", " Naïve <|im_end|>"]
    assert text[: spans[0][0]].endswith("assistant\n")
    greeting = [{"role": "assistant", "content": "Hi"}, *TALK[1:3]]
    text, spans = answers(chat_tokenizer(CHATML), greeting)
    assert [text[a:b] for a, b in spans] == ["Hello!<|im_end|>"]


def test_answers_are_found_by_the_templates_own_marks():
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    tokenizer = chat_tokenizer(MARKED)
    text, spans = answers(tokenizer, TALK)
    assert text == tokenizer.chat(TALK, add_generation_prompt=False)
    assert [text[a:b].strip("\n") for a, b in spans] == ["Hello!<|im_end|>", "Naïve<|im_end|>"]


@pytest.mark.parametrize("begin", ["{% generation %}", "{%- generation -%}", "{% generation -%}", "{%- generation %}"])
@pytest.mark.parametrize("end", ["{% endgeneration %}", "{%- endgeneration -%}", "{%- endgeneration %}"])
@pytest.mark.parametrize("gap", ["", "\n", "\n  ", " ", "\n\n"])
def test_marks_leave_blanks_as_they_were(begin, end, gap):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    template = (
        f"{{% for m in messages %}}{{{{ m.role }}}}:{gap}{begin}{gap}{{{{ m.content }}}}{gap}{end}{gap};{{% endfor %}}"
    )
    text, spans = answers(chat_tokenizer(template), TALK)
    assert [text[a:b].strip() for a, b in spans] == [m["content"].strip() for m in TALK]


def test_a_template_that_rewrites_the_past_is_refused():
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    with pytest.raises(TrainingError, match=r"rewrites the text before message 2 .*put \{% generation %\}"):
        answers(chat_tokenizer(REWRITES), TALK)
    depends = (
        "{% set x %}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{% endset %}"
    )
    with pytest.raises(TrainingError, match="cannot be found"):
        answers(chat_tokenizer(depends + "{{ x | length }}"), TALK)
    with pytest.raises(TrainingError, match="no chat template"):
        answers(bytes_tokenizer(), TALK)
    for bad in ("text", [], [1], [{"content": "x"}]):
        with pytest.raises(TrainingError, match=r"conversation|has no 'role'"):
            answers(chat_tokenizer(CHATML), bad)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.text("aé🙂 \n", max_size=6), st.text("bö🙂 \n", max_size=6)), min_size=1, max_size=4))
def test_only_the_tokens_of_answers_are_learned(turns):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    tokenizer = chat_tokenizer(CHATML)
    talk = [
        message
        for question, answer in turns
        for message in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    ]
    found = encode(Chat(), {"messages": talk}, tokenizer)
    learned = [id for id, on in zip(found["ids"], found["learned"], strict=True) if on]
    assert tokenizer.decode(learned, skip_special=False) == "".join(answer + "<|im_end|>" for _, answer in turns)


def test_a_conversation_is_cut_at_its_end():
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    notes = Counter()
    found = encode(Chat(longest=20), {"messages": TALK}, chat_tokenizer(CHATML), notes)
    assert len(found["ids"]) == 20 and not any(found["learned"])
    assert notes == {"texts cut to 20 tokens": 1, "conversations without an answer to learn from": 1}
