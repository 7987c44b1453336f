"""The cache: whole or not there, never taken for another, noticed when damaged; the same from several processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from clearhead.errors import TrainingError
from clearhead.text import Tokenizer
from clearhead.train.data import prepare, tokenise
from clearhead.train.data.cache import Cache
from clearhead.train.data.encoders import Labelled, Text, Translation
from clearhead.train.data.readers import GivenRows, TextFiles, TextLines
from tests.train.data.support import VERSES, bytes_tokenizer, cache_of


def texts(cache, tokenizer):
    return [tokenizer.decode(row["ids"].tolist()) for row in cache]


def file_of(tmp_path, lines, name="a.txt"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def test_rows_come_back(tmp_path):
    tokenizer = bytes_tokenizer()
    cache = cache_of(tmp_path, TextLines(paths=(file_of(tmp_path, VERSES),)), tokenizer, Text())
    assert texts(cache, tokenizer) == VERSES
    assert cache[0]["ids"].dtype == np.uint16
    assert cache.n_tokens() == sum(len(verse.encode()) + 1 for verse in VERSES)
    assert isinstance(cache.columns["ids"].numbers.base, np.memmap)
    assert cache.columns["ids"].lengths.tolist() == [len(verse.encode()) + 1 for verse in VERSES]


@settings(max_examples=12, phases=(Phase.explicit, Phase.generate))
@given(st.lists(st.lists(st.text("aé ", min_size=1, max_size=5), max_size=3), min_size=1, max_size=8))
def test_parts_join_to_what_one_part_gives(tmp_path_factory, pieces):
    """Pieces of documents, some of which go on: the cache has each document whole."""

    class Pieces(GivenRows):
        def read(self, piece):
            for found in super().read(piece):
                yield found._replace(first=found.row["first"], last=found.row["last"])

        def pieces(self):
            whole = super().pieces()[0]
            return [whole._replace(start=n, stop=n + 1) for n in range(len(self.rows))]

    rows = [
        {"text": text, "first": n == 0, "last": n == len(piece) - 1} for piece in pieces for n, text in enumerate(piece)
    ]
    if not rows:
        return
    folder = tmp_path_factory.mktemp("cache")
    cache = cache_of(folder, Pieces(rows), bytes_tokenizer(), Text())
    assert texts(cache, bytes_tokenizer()) == ["".join(piece) for piece in pieces if piece]
    assert all(row["ids"][-1] == 256 and 256 not in row["ids"][:-1] for row in cache)


def test_many_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("clearhead.train.data.files.PIECE", 700)
    lines = [f"{n} {verse}" for n in range(40) for verse in VERSES]
    source = TextLines(paths=(file_of(tmp_path, lines), file_of(tmp_path, lines[::-1], "b.txt")))
    assert len(source.pieces()) > 10
    tokenizer = Tokenizer.train(VERSES, kind="wordpiece", vocab_size=100)
    one = cache_of(tmp_path / "one", source, tokenizer, Text(special=True, words=True), workers=1)
    many = cache_of(tmp_path / "many", source, tokenizer, Text(special=True, words=True), workers=2)
    assert one.fingerprint == many.fingerprint
    assert one.manifest["fields"] == many.manifest["fields"]  # hashes and all
    assert not [each for each in (tmp_path / "many" / "cache").iterdir() if each.name.endswith(".tmp")]


def test_an_error_in_another_process_names_the_row(tmp_path, monkeypatch):
    monkeypatch.setattr("clearhead.train.data.files.PIECE", 100)
    path = tmp_path / "a.txt"
    path.write_bytes(b"good line\n" * 50 + b"b\xe4d\n" + b"good line\n" * 50)
    with pytest.raises(TrainingError, match=r"byte 0xE4 at byte 501 \(line 51\)"):
        cache_of(tmp_path, TextLines(paths=(str(path),)), bytes_tokenizer(), Text(), workers=2)
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]


def test_a_process_that_dies_is_said(tmp_path, monkeypatch):
    real = tokenise._Process.ask

    def killed(self, piece, prefix):
        self._process.kill()
        self._process.wait()
        return real(self, piece, prefix)

    monkeypatch.setattr(tokenise._Process, "ask", killed)
    source = GivenRows([{"text": "a"}] * 5000)
    with pytest.raises(TrainingError, match=r"ended \(killed\); if the memory was full, ask for fewer"):
        cache_of(tmp_path, source, bytes_tokenizer(), Text(), workers=2)


def test_it_is_found_again_and_made_anew_for_anything_else(tmp_path, monkeypatch):
    made = []
    real = prepare._make
    monkeypatch.setattr(prepare, "_make", lambda *a: (made.append(1), real(*a)))
    path = file_of(tmp_path, VERSES)
    os.utime(path, (1, 1))
    source, tokenizer = TextLines(paths=(path,)), bytes_tokenizer()
    first = cache_of(tmp_path, source, tokenizer, Text())
    assert cache_of(tmp_path, source, bytes_tokenizer(), Text()).folder == first.folder and len(made) == 1
    moved = file_of(tmp_path, VERSES, "moved.txt")  # the same data under another name
    assert cache_of(tmp_path, TextLines(paths=(moved,)), tokenizer, Text()).folder == first.folder and len(made) == 1
    others = [
        (source, tokenizer, Text(end=False)),
        (TextLines(paths=(path,), longest=99), tokenizer, Text()),
        (TextFiles(paths=(path,)), tokenizer, Text()),
        (source, bytes_tokenizer(bos_token="<eos>"), Text()),
    ]
    folders = {cache_of(tmp_path, *other).folder for other in others} | {first.folder}
    assert len(folders) == 5
    file_of(tmp_path, [*VERSES[:-1], "Other."])
    assert cache_of(tmp_path, source, tokenizer, Text()).folder not in folders


@pytest.mark.parametrize("damage", ["shorter", "longer", "flipped", "gone", "manifest", "not json", "empty manifest"])
def test_damage_is_noticed_said_and_mended(tmp_path, damage, capsys):
    path = file_of(tmp_path, VERSES)
    source, tokenizer = TextLines(paths=(path,)), bytes_tokenizer()
    folder = cache_of(tmp_path, source, tokenizer, Text()).folder
    file = folder / ("manifest.json" if "manifest" in damage or damage == "not json" else "ids.bin")
    content = bytearray(file.read_bytes())
    if damage == "shorter":
        content = content[:-2]
    elif damage == "longer":
        content += b"\0\0"
    elif damage == "flipped":
        content[7] ^= 1
    elif damage == "manifest":
        told = json.loads(content)
        del told["fields"]["ids"]["dtype"]
        content = json.dumps(told).encode()
    elif damage == "not json":
        content = content[:-3]
    else:
        content = b""
    file.unlink()
    if damage != "gone":
        file.write_bytes(content)
    with pytest.raises(TrainingError):
        Cache(folder)
    capsys.readouterr()
    again = prepare.prepared(source, tokenizer, Text(), folder=tmp_path / "cache")
    assert texts(again, tokenizer) == VERSES
    assert "the cache is damaged and is made again: " in capsys.readouterr().err
    assert sorted(each.name for each in again.folder.iterdir()) == ["ids.bin", "ids.offsets.bin", "manifest.json"]


def test_nothing_to_learn_from_is_said(tmp_path):
    for lines, match in (([], r"a\.txt: there is nothing to learn from"), (["", " "], "2 blank lines")):
        with pytest.raises(TrainingError, match=match):
            cache_of(
                tmp_path,
                TextLines(paths=(file_of(tmp_path, lines) if lines else _empty(tmp_path),)),
                bytes_tokenizer(),
                Text(),
            )
    with pytest.raises(TrainingError, match="the data: there is nothing to learn from"):
        cache_of(tmp_path, GivenRows([]), bytes_tokenizer(), Text())
    with pytest.raises(TrainingError, match="the rows given, row 1: the label 'c' in column 'label' is none of a, b"):
        rows = [{"text": "x", "label": "a"}, {"text": "x", "label": "c"}]
        cache_of(tmp_path, GivenRows(rows), bytes_tokenizer(), Labelled(labels=("a", "b")))


def _empty(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    return str(tmp_path / "a.txt")


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    cache = cache_of(tmp_path, GivenRows([{"text": "ab"}]), bytes_tokenizer(), Text())
    cache.check_fits(257)
    with pytest.raises(
        TrainingError, match="the id 256, and the model knows ids below 256: tokenizer and model do not"
    ):
        cache.check_fits(256)
    pair = cache_of(tmp_path, GivenRows([{"source": "a", "target": "z"}]), bytes_tokenizer(), Translation())
    pair.check_fits(98, 257)
    with pytest.raises(TrainingError, match="belong together"):
        pair.check_fits(257, 200)


def test_large_vocabularies_take_four_bytes(tmp_path):
    vocabulary = {f"w{n}": n for n in range(70_000)}
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    backend = Backend(WordLevel(vocabulary, unk_token="w0"))
    backend.pre_tokenizer = Whitespace()
    cache = cache_of(tmp_path, GivenRows([{"text": "w69999 w3"}]), Tokenizer.from_backend(backend), Text())
    assert cache[0]["ids"].dtype == np.uint32 and cache[0]["ids"].tolist() == [69_999, 3]


def test_what_is_left_out_is_said(tmp_path, capsys):
    path = file_of(tmp_path, ["long line", "", "x"])
    prepare.prepared(TextLines(paths=(path,)), bytes_tokenizer(), Text(longest=4), folder=tmp_path / "cache")
    told = capsys.readouterr().err
    assert "tokenised 2 rows to 6 tokens in" in told and "1 blank lines" in told and "1 texts cut to 4 tokens" in told
    prepare.prepared(TextLines(paths=(path,)), bytes_tokenizer(), Text(longest=4), folder=tmp_path / "cache")
    assert capsys.readouterr().err == ""


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(self, folder, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare.Writer, "finish", full)
    with pytest.raises(TrainingError, match="No space left on device; make room, or give another folder"):
        cache_of(tmp_path, GivenRows([{"text": "a"}]), bytes_tokenizer(), Text())
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]


SCRIPT = """
import sys
from pathlib import Path
from clearhead.train.data.encoders import Text
from clearhead.train.data.prepare import prepared
from clearhead.train.data.readers import GivenRows
from tests.train.data.support import bytes_tokenizer
print("begun", flush=True)
prepared(GivenRows([{"text": f"row {n}"} for n in range(15_000)]), bytes_tokenizer(), Text(), folder=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_cache_or_none(tmp_path):
    """And the next run mends it without a hand."""
    folder = tmp_path / "cache"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7):
        run = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
        )
        assert run.stdout is not None and run.stdout.readline()
        time.sleep(delay)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        for each in folder.glob("[0-9a-f]*") if folder.exists() else ():
            Cache(each)
    cache = prepare.prepared(
        GivenRows([{"text": f"row {n}"} for n in range(15_000)]), bytes_tokenizer(), Text(), folder=folder, quiet=True
    )
    assert len(cache) == 15_000
    left = [each.name for each in folder.iterdir() if each.is_dir() and each.name.endswith(".tmp")]
    assert not left


def test_two_processes_that_ask_at_once_share_one_cache(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env
        )
        for _ in range(2)
    ]
    told = [run.communicate()[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum("tokenised 15,000 rows" in each for each in told) == 1
    shutil.rmtree(tmp_path)
