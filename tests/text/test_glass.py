"""glassllm's tokenizer, beside its own."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.errors import TokenizerError
from clearhead.text import Tokenizer, load_glass
from clearhead.text.glass import from_glass

theirs = pytest.importorskip("glassllm.tokenizer", reason="glassllm, whose tokenizer this reads, is not installed")
WEIGHTS = Path(inspect.getfile(theirs)).parent / "weights"
FILES = {name: WEIGHTS / f"{name}.tokenizer.json" for name in ("en", "pt")}
OURS = {name: load_glass(file) for name, file in FILES.items()}
THEIRS = {name: theirs.Tokenizer.load(file) for name, file in FILES.items()}
WORDS = ["Alice", "was", "beginning", "tired", "—", "“and", "what", "use", "book,”", "ù\n\n▁", "<eos>", "<unk>", ""]
# Unassigned characters are left out: Python and the library know different versions of Unicode.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])


@pytest.mark.parametrize("name", FILES)
@given(text=st.text(CHARACTERS) | st.text(st.sampled_from("aehlintsu ▁\nAé\u0301“”")))
def test_any_text_has_their_ids(name, text):
    assert OURS[name].encode(text).ids == OURS[name].encode_ids(text) == THEIRS[name].encode(text)


@pytest.mark.parametrize("name", FILES)
@given(words=st.lists(st.sampled_from(WORDS), max_size=30))
def test_sentences_have_their_ids(name, words):
    text = " ".join(words)
    assert OURS[name].encode(text).ids == THEIRS[name].encode(text)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_any_ids_have_their_text(name, data):
    ids = data.draw(st.lists(st.integers(0, THEIRS[name].vocab_size - 1)))
    assert OURS[name].decode(ids) == THEIRS[name].decode(ids)
    stream = OURS[name].decode_stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == THEIRS[name].decode(ids)


def test_it_is_a_tokenizer_like_the_others(tmp_path):
    ours = OURS["en"]
    assert (ours.pad_id, ours.unk_id, ours.bos_id, ours.eos_id) == (0, 1, 2, 3)
    assert ours.vocab_size == THEIRS["en"].vocab_size
    encoding = ours.encode("Alice was tired")
    assert "".join(encoding.labels) == "Alice was tired"
    assert encoding.words[-1] == 2
    ours.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    text = "said Alice <eos> 🙂"
    assert again.encode(text).ids == THEIRS["en"].encode(text)


@pytest.mark.parametrize("data", [
    {},
    {"version": 2, "alphabet": ["a"], "merges": []},
    {"version": 1, "alphabet": "ab", "merges": []},
    {"version": 1, "alphabet": ["a", 1], "merges": []},
    {"version": 1, "alphabet": ["a", "b"], "merges": [["a"]]},
    {"version": 1, "alphabet": ["a", "b"], "merges": [["a", "c"]]},
    {"version": 1, "alphabet": ["a", "a"], "merges": []},
])  # fmt: skip
def test_damaged_files_are_refused(data):
    with pytest.raises(TokenizerError):
        from_glass(data)
