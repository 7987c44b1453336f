"""What the data says in its own letters: of the documents that are asked for, from the end backwards, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from clearhead.errors import TrainingError
from clearhead.train.data.as_given import AsGiven
from clearhead.train.data.encoders import Text, Translation
from clearhead.train.data.packing import Blocks, Documents, Fitted, Windows, packed
from clearhead.train.data.readers import GivenRows, TextFiles, TextLines
from tests.train.data.support import bytes_tokenizer, cache_of, pieces_tokenizer

LINES = [f"Line {n}, naïve; " + "Ünï " * (n % 5) for n in range(60)]


def given_of(folder, source, tokenizer=None, encoder=None, packing=None):
    tokenizer, encoder = tokenizer or pieces_tokenizer(), encoder or Text(end=False)
    cache = cache_of(folder, source, tokenizer, encoder)
    return AsGiven(source, encoder, cache, packed(cache, packing or Documents()))


@pytest.fixture(params=[40, 10_000])
def pieces(request, monkeypatch):
    """Many pieces, or one."""
    monkeypatch.setattr("clearhead.train.data.files.PIECE", request.param)


@pytest.mark.usefixtures("pieces")
def test_lines_are_had_back_to_the_letter(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LINES[:31]) + "\n\n")
    (tmp_path / "b.txt").write_text("\n" + "\n".join(LINES[31:]))
    given = given_of(tmp_path, TextLines(paths=(str(tmp_path),)))
    assert len(given.cache) == len(LINES)
    for wanted in (set(range(60)), {59}, {0, 33}, {30, 31}, set()):
        assert given.last_texts(wanted) == {n: LINES[n] for n in wanted}
        assert given.n_bytes(wanted) == {n: len(LINES[n].encode()) for n in wanted}


@pytest.mark.usefixtures("pieces")
def test_a_long_document_in_parts_is_counted_whole(tmp_path):
    texts = ["\n".join(LINES[:9]), "short", "\n".join(LINES[9:40])]
    for n, text in enumerate(texts):
        (tmp_path / f"{n}.txt").write_text(text)
    given = given_of(tmp_path, TextFiles(paths=(str(tmp_path),)))
    assert given.n_bytes({0, 1, 2}) == {n: len(text.encode()) for n, text in enumerate(texts)}
    assert given.n_bytes({1}) == {1: 5}


def test_no_more_is_read_than_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("clearhead.train.data.files.PIECE", 100)
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    source, read = TextLines(paths=(str(tmp_path / "a.txt"),)), []
    given = given_of(tmp_path, source)
    real = TextLines.read
    monkeypatch.setattr(TextLines, "read", lambda self, piece: (read.append(piece), real(self, piece))[1])
    assert given.last_texts({58}) == {58: LINES[58]} and 1 <= len(read) <= 2 < len(source.pieces())


def test_of_a_translation_the_target(tmp_path):
    rows = GivenRows([{"translation": {"de": f"Satz {n}", "en": f"Sentence {n}"}} for n in range(5)])
    given = given_of(tmp_path, rows, encoder=Translation(nested="translation", source="de", target="en"))
    assert given.last_texts({1, 4}) == {1: "Sentence 1", 4: "Sentence 4"}


def test_data_that_has_changed_is_not_compared_with(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    given = given_of(tmp_path, TextLines(paths=(str(tmp_path / "a.txt"),)))
    (tmp_path / "a.txt").write_text("\n".join(["Another", *LINES[1:]]))
    with pytest.raises(TrainingError, match=r"a\.txt: the data is not what it was when it was tokenised"):
        given.last_texts({3})


@settings(max_examples=25, phases=(Phase.explicit, Phase.generate))
@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=9).filter(lambda sizes: sum(sizes) > 12),
    st.sampled_from([Documents(), Blocks(length=5), Windows(length=7), Fitted(length=9)]),
)
def test_a_row_knows_its_documents(tmp_path_factory, sizes, packing):
    source = GivenRows([{"text": chr(97 + n) * size} for n, size in enumerate(sizes)])
    cache = cache_of(tmp_path_factory.mktemp("cache"), source, bytes_tokenizer(), Text(end=False))
    rows = packed(cache, packing, ahead=1)
    for row in range(len(rows)):
        there = set((rows[row]["ids"].astype(np.int64) - 97).tolist())
        assert there <= set(rows.documents(row))
        assert all(number in there or not sizes[number] for number in rows.documents(row))
