"""Streams: they go on exactly, hold no more than they say, and refuse what has nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.data.encoders import Text, Translation
from clearhead.train.data.packing import Blocks, Documents, Windows
from clearhead.train.data.readers import GivenRows, TextFiles, TextLines
from clearhead.train.data.stream import Stream
from tests.train.data.support import bytes_tokenizer


def told(rows):
    return [{name: values.tolist() for name, values in row.items()} for row in rows]


@settings(max_examples=15, phases=(Phase.explicit, Phase.generate))
@given(
    st.lists(st.text("abé", min_size=1, max_size=9), min_size=1, max_size=12),
    st.sampled_from([Documents(), Blocks(length=4), Blocks(length=11)]),
    st.integers(0, 5),
    st.integers(0, 25),
    st.integers(0, 3),
)
def test_a_stream_goes_on_as_if_it_had_never_stopped(tmp_path_factory, lines, packing, shuffle, stop, seed):
    folder = tmp_path_factory.mktemp("stream")
    for part in range(2):
        (folder / f"{part}.txt").write_text("\n".join(lines[part::2]), "utf-8")

    def stream():
        source = TextLines(paths=(str(folder),))
        return Stream(source, bytes_tokenizer(), Text(), packing=packing, ahead=1, shuffle=shuffle, seed=seed)

    every = told(stream().take(30))
    first = stream()
    assert told(first.take(stop)) == every[:stop]
    state = json.loads(json.dumps(first.state_dict()))
    second = stream()
    second.load_state_dict(state)
    assert told(second.take(30 - stop)) == every[stop:]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(2, 8), st.integers(0, 1))
def test_blocks_are_the_stream_cut(lengths, length, ahead):
    rows = [{"text": chr(97 + n % 26) * size} for n, size in enumerate(lengths)]
    stream = Stream(
        GivenRows(rows), bytes_tokenizer(), Text(), packing=Blocks(length=length), ahead=ahead, shuffle=0, seed=0
    )
    ids = [id for row in rows for id in [*row["text"].encode(), 256]] * 60
    for number, row in enumerate(stream.take(12)):
        assert row["ids"].tolist() == ids[number * length : (number + 1) * length + ahead]
        ends = np.flatnonzero(row["ids"] == 256)
        assert row["documents"].tolist() == [int((ends < at).sum()) for at in range(length + ahead)]


def test_each_epoch_has_every_row_and_pieces_change_places(monkeypatch, tmp_path):
    monkeypatch.setattr("clearhead.train.data.files.PIECE", 40)
    (tmp_path / "a.txt").write_text("".join(f"row {n:03d}\n" for n in range(60)))
    stream = Stream(TextLines(paths=(str(tmp_path),)), bytes_tokenizer(), Text(end=False), shuffle=4, seed=2)
    rows = [bytes(row["ids"].tolist()).decode() for row in stream.take(116)]
    assert len(set(rows[:56])) == 56  # but for those that wait in the buffer
    assert rows[:56] != sorted(rows[:56])
    assert sorted(set(rows)) == [f"row {n:03d}" for n in range(60)]


def test_documents_in_parts_stay_whole(monkeypatch, tmp_path):
    """Parts of one document follow one another, however pieces are shuffled."""
    monkeypatch.setattr("clearhead.train.data.files.PIECE", 8)
    monkeypatch.setattr("clearhead.train.data.files.seam", lambda path, near: near)
    for n, letter in enumerate("abcd"):
        (tmp_path / f"{n}.txt").write_text(letter * 30)
    stream = Stream(
        TextFiles(paths=(str(tmp_path),)), bytes_tokenizer(), Text(), packing=Blocks(length=31), shuffle=0, seed=5
    )
    for row in stream.take(8):
        assert len(set(row["ids"].tolist())) == 2 and row["ids"][-1] == 256
    shuffled = Stream(
        TextFiles(paths=(str(tmp_path),)), bytes_tokenizer(), Text(), packing=Blocks(length=31), shuffle=1, seed=5
    )
    assert all(len(set(row["ids"].tolist())) == 2 for row in shuffled.take(8))


def test_memory_is_bounded(tmp_path):
    import tracemalloc

    path = tmp_path / "a.txt"
    with path.open("w") as handle:
        for n in range(50_000):
            handle.write(f"line {n} of many that are not all held\n")
    stream = Stream(TextLines(paths=(str(path),)), bytes_tokenizer(), Text(), shuffle=50)
    tracemalloc.start()
    for _ in range(5):
        stream.take(100)
    assert tracemalloc.get_traced_memory()[1] < 1_500_000  # the file has 2
    tracemalloc.stop()


def test_what_cannot_be_streamed_is_refused(tmp_path):
    tokenizer = bytes_tokenizer()
    with pytest.raises(ConfigError, match="cannot be packed as Windows"):
        Stream(GivenRows([]), tokenizer, Text(), packing=Windows(length=4))
    for rows in ([], [{"text": ""}]):
        with pytest.raises(TrainingError, match="there was nothing to learn from"):
            Stream(GivenRows(rows), tokenizer, Text(end=False)).take(1)
    with pytest.raises(TrainingError, match="the rows given, row 0 has the id 256, and the model knows ids below 200"):
        Stream(GivenRows([{"text": "a"}]), tokenizer, Text(), vocab_size=200).take(1)
    with pytest.raises(TrainingError, match="no column 'text'; there are 'x'"):
        Stream(GivenRows([{"x": "a"}]), tokenizer, Text()).take(1)
    with pytest.raises(TrainingError, match="no state of a stream"):
        Stream(GivenRows([{"text": "a"}]), tokenizer, Text()).load_state_dict({})


def test_what_is_to_be_written_is_looked_at_too():
    """By the size of its own vocabulary, where it has one: the source's ids may be larger."""

    def stream(**sizes):
        rows = GivenRows([{"source": "az", "target": "ab"}, {"source": "az", "target": "é"}])
        return Stream(rows, bytes_tokenizer(), Translation(), shuffle=0, **sizes)

    assert len(stream().take(4)) == 4 and len(stream(vocab_size=257).take(2)) == 2
    assert len(stream(vocab_size=123, target_vocab_size=257).take(2)) == 2
    for sizes in ({"vocab_size": 200}, {"vocab_size": 257, "target_vocab_size": 200}):
        with pytest.raises(TrainingError, match="row 0 has the id 256, and the model knows ids below 200: tokenizer"):
            stream(**sizes).take(1)
    with pytest.raises(TrainingError, match="row 0 has the id 122, and the model knows ids below 122"):
        stream(vocab_size=122, target_vocab_size=257).take(1)
