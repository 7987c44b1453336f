"""Data that cannot be learned from, from the command line: one line that says what, where and what to do; exit 2."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from clearhead.cli import main
from clearhead.text.tokenizer import Tokenizer
from clearhead.train import state
from clearhead.train.data.cache import Cache

pytestmark = pytest.mark.usefixtures("as_a_user")

SMALL: dict[str, Any] = {
    "batch": 4,
    "tokenizer": {"kind": "new-tokenizer", "learn": "byte", "special": ["<eos>"]},
    "model": {"kind": "gpt2", "n_layers": 1, "n_heads": 2, "d_model": 16, "context": 600},
    "loop": {"steps": 2, "precision": "float32"},
    "evaluation": {"batches": 1},
}
CLASSES = {
    "objective": {"kind": "sequence-classification"},
    "model": {"kind": "bert", "n_layers": 1, "n_heads": 2, "d_model": 16, "context": 600},
}
LINES = {"kind": "text-lines"}
TABLE = {"kind": "table", "encoder": {"kind": "labelled", "labels": ["negative", "positive"]}, **CLASSES}
GOOD = "a good line\n" * 20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))


def train(folder: Path, kind: dict[str, Any], *changes: str, paths: str = "data") -> int:
    parts = dict(kind)
    source = {"kind": parts.pop("kind"), "paths": [str(folder / paths)], **parts.pop("source", {})}
    data = {"source": source, **({"encoder": parts.pop("encoder")} if "encoder" in parts else {})}
    return begin(folder, {**SMALL, **parts, "data": data}, *changes)


def begin(folder: Path, tables: dict[str, Any], *changes: str) -> int:
    path = folder / "recipe" / "run.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"recipe": tables}))
    return main(["train", str(path), *changes, "--out", str(folder / "run")])


def refused(folder: Path, capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line that was said, where nothing was begun."""
    *before, said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and not any("Traceback" in line or "rror" in line for line in before)
    assert not state.checkpoints(folder / "run") and not (folder / "run" / "run.json").exists()
    assert not list((folder / "cache").glob("*.tmp")) and not list((folder / "cache").glob("*/*.part"))
    return said


@pytest.mark.parametrize(
    ("kind", "files", "said"),
    [
        (LINES, {"a.txt": ""}, ("a.txt: there is nothing to learn from", "1 empty files")),
        (LINES, {"a.txt": "\n \n"}, ("a.txt: there is nothing to learn from", "2 blank lines")),
        ({"kind": "text-files"}, {"a.txt": " "}, ("there is nothing to learn from", "1 empty files")),
        ({"kind": "json-lines"}, {"a.jsonl": ""}, ("there is nothing to learn from",)),
        (TABLE, {"a.tsv": "text\tlabel\n"}, ("there is nothing to learn from",)),
        (LINES, {}, ("data", "no files")),
        (LINES, {"a.pdf": "%PDF"}, ("no .txt file in", "1 .pdf; name the files")),
        (
            LINES,
            {"a.txt": GOOD.encode() + b"na\xefve\n"},
            ("a.txt", "byte 0xEF at byte 242 (line 21)", "data.source.encoding=latin-1"),
        ),
        (LINES, {"a.txt": gzip.compress(b"x" * 99)}, ("packed by gzip; let its name end in .gz",)),
        (LINES, {"a.txt.gz": gzip.compress(GOOD.encode())[:-9]}, ("a.txt.gz is damaged", "fetch it again")),
        (
            {**LINES, "source": {"longest": 1000}},
            {"a.txt": GOOD + "x" * 5000 + "\n" + GOOD},
            ("a.txt, line 21: 5,000 bytes", "data.source.too_long=skip"),
        ),
        ({"kind": "json-lines"}, {"a.jsonl": '{"text": "a"}\n{"text": \n'}, ("a.jsonl, line 2 is not JSON",)),
        ({"kind": "json-lines"}, {"a.jsonl": '{"texts": "a"}\n'}, ("a.jsonl, line 1", "did you mean 'texts'?")),
        (
            TABLE,
            {"a.tsv": "text\tlabel\ngood\tpositive\nfine\tpositve\n"},
            ("a.tsv, line 3: the label 'positve' in column 'label'", "did you mean 'positive'?"),
        ),
        (TABLE, {"a.tsv": "good\tpositive\nbad\tnegative\n"}, ("a.tsv, line 2", "Is the file's first line no header?")),
        (
            {**TABLE, "source": {"columns": ["text", "label"]}},
            {"a.tsv": "text\tlabel\ngood\tpositive\n"},
            ("a.tsv, line 1 is no row: it names the columns",),
        ),
        (TABLE, {"a.tsv": "text\tlabel\ngood\n"}, ("a.tsv, line 2: 1 cells, and there are 2 columns",)),
    ],
)
def test_a_line_says_what_is_wrong_and_where(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: dict[str, Any],
    files: dict[str, str | bytes],
    said: tuple[str, ...],
) -> None:
    (tmp_path / "data").mkdir()
    for name, content in files.items():
        (tmp_path / "data" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for learn in ("byte", "byte-bpe"):  # one reads nothing, one reads the data before it is tokenised
        size = ["tokenizer.vocab_size=300"] if learn == "byte-bpe" else []
        told = refused(tmp_path, capsys, train(tmp_path, kind, f"tokenizer.learn={learn}", *size))
        if "nothing to learn" in said[0] and learn == "byte-bpe":
            said = ("there is no text to learn from",)
        assert all(part in told for part in said), told
        assert "cannot be trained" not in told  # it is not the tokenizer that is at fault


def test_an_empty_file_among_good_ones_is_no_harm_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for name, content in (("a.txt", GOOD), ("b.txt", ""), ("c.txt", GOOD)):
        (tmp_path / "data" / name).write_text(content)
    assert train(tmp_path, LINES) == 0
    assert "tokenised 40 rows" in (told := capsys.readouterr().err) and "1 empty files" in told


def test_a_damaged_cache_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From its files, which are the truth; the run is the one that it would have been."""
    (tmp_path / "data").write_text(GOOD)
    assert train(tmp_path, LINES) == 0
    (file,) = (tmp_path / "cache").glob("*/ids.bin")
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    first = (tmp_path / "run" / "metrics.jsonl").read_text()
    (tmp_path / "run").rename(tmp_path / "before")
    capsys.readouterr()
    assert train(tmp_path, LINES) == 0
    told = capsys.readouterr().err
    assert "the cache is damaged and is made again" in told and "its hash differs" in told
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in (first, _metrics(tmp_path))]
    assert losses[0] == losses[1] and len(Cache(file.parent)) == 20


def _metrics(folder: Path) -> str:
    return (folder / "run" / "metrics.jsonl").read_text()


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint whose tokenizer was exchanged for one that knows more tokens."""
    (tmp_path / "data").write_text(GOOD)
    assert train(tmp_path, LINES) == 0
    model = tmp_path / "run" / "model"
    other = Tokenizer.train([GOOD], kind="byte-bpe", vocab_size=262, special_tokens=["<pad>", "<eos>"])
    for file in model.glob("*token*"):
        file.unlink()
    other.save(model)
    (tmp_path / "run").rename(tmp_path / "first")
    capsys.readouterr()
    tables = json.loads((tmp_path / "recipe" / "run.json").read_text())["recipe"]
    del tables["tokenizer"]
    code = begin(tmp_path, {**tables, "model": {"kind": "checkpoint", "name": str(tmp_path / "first" / "model")}})
    assert "tokenizer" in (told := refused(tmp_path, capsys, code)) and "25" in told
