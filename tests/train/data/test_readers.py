"""Files to rows: what each reader gives, at any cut of the file, and what it refuses in one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.errors import ConfigError, TrainingError
from clearhead.train.data import files
from clearhead.train.data.encoders import Labelled
from clearhead.train.data.readers import Conll, GivenRows, JsonLines, ParallelLines, Table, TextFiles, TextLines
from tests.train.data.support import bytes_tokenizer, cache_of, read


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_a_document(tmp_path):
    written(tmp_path / "b" / "two.txt", "second\r\ntext\n")
    written(tmp_path / "a.txt", b"\xef\xbb\xbffirst\n")
    written(tmp_path / "c.txt.gz", "third\n")
    written(tmp_path / "empty.txt", " \n")
    written(tmp_path / "picture.png", b"\x89PNG")
    written(tmp_path / ".hidden.txt", "no")
    rows, skipped = read(TextFiles(paths=(str(tmp_path),)))
    assert [row["text"] for row in rows] == ["first\n", "second\ntext\n", "third\n"]
    assert skipped == ["empty files"]


def test_a_line_is_a_document(tmp_path):
    path = written(tmp_path / "a.txt", "one\r\n\n two \nthree")
    rows, skipped = read(TextLines(paths=(path,)))
    assert [row["text"] for row in rows] == ["one", " two ", "three"]
    assert skipped == ["blank lines"]
    rows, _ = read(TextLines(paths=(str(tmp_path / "*.txt"),)))
    assert len(rows) == 3


@given(st.lists(st.text("aé🙂 \t", max_size=9), max_size=12), st.integers(1, 40), st.booleans(), st.integers(1, 60))
def test_any_cut_of_a_file_gives_the_same_lines(tmp_path_factory, texts, piece, ends, longest):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    content = "\n".join(texts).encode() + b"\n" * ends
    path.write_bytes(content)
    cut = [line for start, stop in files.spans(path, piece) for line in files.lines(path, start, stop, longest=longest)]
    assert cut == list(files.lines(path, longest=longest))
    expected = content.split(b"\n")[: -1 if content.endswith(b"\n") or not content else None]
    assert [line.content for line in cut] == [line[:longest] for line in expected]
    for line, whole in zip(cut, expected, strict=True):
        assert content[line.at :].startswith(line.content)
        assert (line.length > longest) == (len(whole) > longest)


def test_a_large_document_is_read_in_parts_that_join(tmp_path, monkeypatch):
    monkeypatch.setattr("clearhead.train.data.files.PIECE", 1000)
    text = "".join(f"Line {n} of naïve text.\n" for n in range(400))
    path = written(tmp_path / "a.txt", text)
    source = TextFiles(paths=(path,))
    pieces = source.pieces()
    assert len(pieces) == 1 and len(text.encode()) < 1 << 20  # no second seam within reach
    monkeypatch.setattr(files, "seam", lambda path, near: near)
    ascii_only = written(tmp_path / "b.txt", text.replace("ï", "i"))
    source = TextFiles(paths=(ascii_only,))
    pieces = source.pieces()
    assert len(pieces) > 5
    found = [each for piece in pieces for each in source.read(piece)]
    assert "".join(each.row["text"] for each in found) == text.replace("ï", "i")
    assert [each.first for each in found] == [True, *[False] * (len(pieces) - 1)]
    assert [each.last for each in found] == [*[False] * (len(pieces) - 1), True]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("aaaa bbbb\ncccc\n\ndddd\neeee ffff", 10),  # after a line, before another
        ("aaaaaaaaaa\n\nbbbbbbbbbbbbbbbbbb", 11),  # a line's end at least
        ("aaaaaaa bbbbbbbbbbbbbb ccccccc", 7),  # before a space
        ("ééééééééééééééééé", 6),  # between characters
    ],
)
def test_a_seam_is_where_hardly_a_token_crosses(tmp_path, text, at):
    path = tmp_path / "a.txt"
    path.write_text(text + "x" * 20, "utf-8")
    assert files.seam(path, 5, within=20) == at


def test_wrong_encoding_is_named_with_its_byte(tmp_path):
    path = written(tmp_path / "a.txt", b"good line\nna\xefve\n")
    with pytest.raises(
        TrainingError, match=r"a\.txt is not utf-8: byte 0xEF at byte 12 \(line 2\); convert it \(iconv"
    ):
        read(TextLines(paths=(path,)))
    with pytest.raises(TrainingError, match=r"byte 0xEF at byte 12 \(line 2\)"):
        read(TextFiles(paths=(path,)))
    rows, _ = read(TextLines(paths=(path,), encoding="latin-1"))
    assert rows[1]["text"] == "naïve"
    path = written(tmp_path / "b.txt", "text".encode("utf-16"))
    with pytest.raises(TrainingError, match="looks like UTF-16"):
        read(TextFiles(paths=(path,)))
    with pytest.raises(ConfigError, match="convert the files to UTF-8"):
        TextFiles(paths=(path,), encoding="utf-16")
    with pytest.raises(ConfigError, match="none that Python knows"):
        TextFiles(paths=(path,), encoding="klingon")


def test_a_line_of_100_megabytes_is_refused_skipped_or_cut_and_never_held(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as handle:
        handle.write(b"short\n")
        for _ in range(100):
            handle.write("é".encode() * 500_000)
        handle.write(b"\nend\n")
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(
        TrainingError, match=r"a\.txt, line 2: 100,000,000 bytes, and longest = 1,001 are allowed; give"
    ):
        read(TextLines(paths=(str(path),), longest=1001))
    rows, skipped = read(TextLines(paths=(str(path),), longest=1001, too_long="skip"))
    assert [row["text"] for row in rows] == ["short", "end"]
    assert skipped == ["lines of more than 1,001 bytes"]
    rows, _ = read(TextLines(paths=(str(path),), longest=1001, too_long="cut"))
    assert [row["text"] for row in rows] == ["short", "é" * 500, "end"]
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(TrainingError, match="there is no file or folder"):
        TextLines(paths=(str(tmp_path / "none"),)).open()
    written(tmp_path / "a.pdf", b"%PDF")
    with pytest.raises(TrainingError, match=r"no \.txt file in .*, but 1 \.pdf; name the files themselves"):
        TextFiles(paths=(str(tmp_path),)).open()
    with pytest.raises(TrainingError, match="no file is called"):
        TextFiles(paths=(str(tmp_path / "*.txt"),)).open()
    with pytest.raises(TrainingError, match="name at least one"):
        TextFiles(paths=()).open()
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"text" * 1000)[:-10])
    with pytest.raises(TrainingError, match="damaged"):
        read(TextLines(paths=(str(path),)))


def test_packed_files_are_unpacked_as_they_are_read(tmp_path):
    content = b"one\ntwo\n"
    for suffix, pack in ((".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        path = folder / f"a.txt{suffix}"
        path.write_bytes(pack(content))
        (folder / f"a.pdf{suffix}").write_bytes(pack(b"no"))
        assert read(TextLines(paths=(str(folder),)))[0] == [{"text": "one"}, {"text": "two"}]
        assert read(TextFiles(paths=(str(path),)))[0] == [{"text": "one\ntwo\n"}]
        (folder / f"t.tsv{suffix}").write_bytes(pack(b"text\tlabel\na\t0\n"))
        assert read(Table(paths=(str(folder),)))[0] == [{"text": "a", "label": "0"}]
        for damaged in (pack(content * 999)[:-9], b"no such file", pack(content)[:6] + b"\xff" * 30):
            path.write_bytes(damaged)
            with pytest.raises(TrainingError, match=r"is damaged .*fetch it again"):
                read(TextLines(paths=(str(path),)))


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (gzip.compress(b"text" * 99, mtime=0), "packed by gzip; let its name end in .gz"),
        (lzma.compress(b"text" * 99), "packed by xz; let its name end in .xz"),
        (b"PK\x03\x04\xff\xfe", "a zip archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd\xff", "packed by zstd; unpack it first"),
        (b"%PDF-\xff\xfe", "a PDF; take the text out of it first"),
        (b"PAR1\xff\xfe", "Parquet; read it with kind = 'parquet'"),
        ("wie schön".encode("latin-1"), r"byte 0xF6 at byte 7 \(line 1\); convert it \(iconv -f LATIN1 -t UTF-8 a.txt"),
    ],
    ids=["gzip", "xz", "zip", "zstd", "pdf", "parquet", "latin-1"],
)
@pytest.mark.parametrize("kind", [TextFiles, TextLines, JsonLines, Table, Conll])
def test_what_is_no_text_is_told_by_how_it_begins(tmp_path, kind, content, hint):
    with pytest.raises(TrainingError, match=f"a.txt is not utf-8: .*{hint}"):
        read(kind(paths=(written(tmp_path / "a.txt", content),)))


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (TextFiles, "a\n"),
        (TextLines, "a\n"),
        (JsonLines, '{"text": "a"}\n'),
        (Table, "text\na\n"),
        (Conll, "a O\n"),
    ],
)
def test_an_empty_file_among_good_ones_is_counted(tmp_path, kind, good):
    paths = (written(tmp_path / "a", good), written(tmp_path / "empty", ""), written(tmp_path / "z", good))
    rows, skipped = read(kind(paths=paths))
    assert len(rows) == 2 and rows[0] == rows[1] and skipped == ["empty files"]


# ── rows with columns ────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_lines(tmp_path):
    content = [{"text": "naïve\u2028line", "n": 1}, {"text": "null", "extra": None}]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, content)) + "\n")
    rows, _ = read(JsonLines(paths=(path,)))
    assert rows == content  # no key is made up
    for bad, match in (
        ('{"text": 1}\n{"text"', "line 2 is not JSON"),
        ("[1,\n", "one object a line"),
        ('"x"\n', "is a str"),
    ):
        with pytest.raises(TrainingError, match=match):
            read(JsonLines(paths=(written(tmp_path / "b.jsonl", bad),)))
    with pytest.raises(ConfigError, match="cannot be cut"):
        JsonLines(paths=(path,), too_long="cut")


def test_tables(tmp_path):
    path = written(tmp_path / "a.csv", 'text,label\n"one, ""two""\nlines",1\n\nnull,\n')
    rows, skipped = read(Table(paths=(path,)))
    assert rows == [{"text": 'one, "two"\nlines', "label": "1"}, {"text": "null", "label": ""}]
    assert skipped == ["blank lines"]
    path = written(tmp_path / "a.tsv", 'say "hello\t0\nNA\t1\n')
    rows, _ = read(Table(paths=(path,), columns=("text", "label")))
    assert rows == [{"text": 'say "hello', "label": "0"}, {"text": "NA", "label": "1"}]
    with pytest.raises(TrainingError, match=r"b\.csv, line 3: 3 cells, and there are 2 columns \(text, label\)"):
        read(Table(paths=(written(tmp_path / "b.csv", "text,label\na,b\na,b,c\n"),)))
    with pytest.raises(TrainingError, match="two columns have one name"):
        read(Table(paths=(written(tmp_path / "b.csv", "a,a\n1,2\n"),)))
    with pytest.raises(TrainingError, match="give quotes = false"):
        read(Table(paths=(written(tmp_path / "b.csv", 'a,b\n"1,2\n'),)))
    with pytest.raises(ConfigError, match="one character"):
        Table(paths=(path,), separator="||")


def test_a_line_of_names_that_was_not_thought_of(tmp_path):
    """Columns are named, and so does the file; or they are not, and the first row was taken for names."""
    path = written(tmp_path / "a.tsv", "Sentence\tLabel\ngood film\tpositive\n")
    with pytest.raises(
        TrainingError, match=r"a\.tsv, line 1 is no row: it names the columns, Sentence, Label; leave co"
    ):
        read(Table(paths=(path,), columns=("sentence", "label")))
    tokenizer, encoder = bytes_tokenizer(), Labelled(labels=("negative", "positive"))
    with pytest.raises(
        TrainingError, match=r"a\.tsv, line 1: the label 'Label' in column 'label' is none of negative, "
    ):
        cache_of(tmp_path, Table(paths=(path,), columns=("text", "label")), tokenizer, encoder)
    with pytest.raises(TrainingError, match=r"Does the file's first line name the columns\? Then leave columns out"):
        cache_of(tmp_path, Table(paths=(path,), columns=("text", "label")), tokenizer, encoder)
    path = written(tmp_path / "b.tsv", "bad film\tnegative\ngood film\tpositive\n")
    with pytest.raises(
        TrainingError, match=r"b\.tsv, line 2: there is no column 'text'; .* no header\? Then name the co"
    ):
        cache_of(tmp_path, Table(paths=(path,)), tokenizer, encoder)
    path = written(tmp_path / "c.tsv", "text\tlabel\ngood film\tpositive\n\nfine film\tpositve\n")
    with pytest.raises(TrainingError, match=r"c\.tsv, line 4: the label 'positve' .*; did you mean 'positive'\?$"):
        cache_of(tmp_path, Table(paths=(path,)), tokenizer, encoder)


def test_conll(tmp_path):
    content = "-DOCSTART- -X- O\n\nen:Paris NNP B-LOC\nen:is VBZ O\n\n\nen:Yes UH O"
    rows, _ = read(Conll(paths=(written(tmp_path / "a.conll", content),), prefix="en:"))
    assert rows == [{"tokens": ["Paris", "is"], "tags": ["B-LOC", "O"]}, {"tokens": ["Yes"], "tags": ["O"]}]
    with pytest.raises(TrainingError, match="line 2: 'alone' is no word and tag"):
        read(Conll(paths=(written(tmp_path / "b.conll", "a O\nalone\n"),)))
    with pytest.raises(TrainingError, match="line 1 has 2 columns"):
        read(Conll(paths=(written(tmp_path / "b.conll", "a O\n"),), tag=3))


def test_lines_in_parallel(tmp_path, monkeypatch):
    monkeypatch.setattr("clearhead.train.data.texts.LINES", 100)
    de, en = written(tmp_path / "de.gz", "ein\n\nzwei\n"), written(tmp_path / "en", "one\nx\ntwo\n")
    rows, skipped = read(ParallelLines(source=de, target=en))
    assert rows == [{"source": "ein", "target": "one"}, {"source": "zwei", "target": "two"}]
    assert skipped == ["pairs with a blank side"]
    many = [f"{n} ja" for n in range(250)]
    de, en = written(tmp_path / "de.gz", "\n".join(many)), written(tmp_path / "en", "\n".join(many) + "\n")
    source = ParallelLines(source=de, target=en)
    assert len(source.open().pieces()) == 3 and read(source)[0] == [{"source": each, "target": each} for each in many]
    with pytest.raises(TrainingError, match=r"has 250 lines, and .*en has 1; they should have a line for a line"):
        read(ParallelLines(source=de, target=written(tmp_path / "en", "one\n")))


def test_given_rows_are_known_by_what_they_say():
    one, same = GivenRows([{"text": "a"}]), GivenRows([{"text": "a"}], name="other")
    assert one.identity() == same.identity() != GivenRows([{"text": "b"}]).identity()
    assert read(GivenRows([{"n": n} for n in range(4500)]))[0][4321] == {"n": 4321}
