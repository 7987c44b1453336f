"""What a reviewer broke: folders that reach out, files that an export must not touch, and errors of another family."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clearhead.checkpoint import Pretrained, export, load
from clearhead.errors import CheckpointError, ClearheadError, UnknownKeyError, UnknownModelError, UnsafeFileError
from clearhead.model import build, presets
from clearhead.model.config import SentenceEmbedding
from tests.checkpoint import support

LONE = "\ud800"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return support.checkpoint(tmp_path / "model")


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    config = presets.bert(n_layers=1, n_heads=2, d_model=8, vocab_size=20, context=16)
    model = Pretrained(build(config), None, config)
    bert = export(model, tmp_path / "bert")
    loaded = load(bert, head=SentenceEmbedding(pooling="mean", normalise=True))
    return export(loaded, tmp_path / "embedder")


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path in it, and the bytes of the files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


# ── folders that reach out ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["..", ".", "", "../bert", "/etc", "a/b", "a\\b", "c:x", "a\0b", LONE, 3, None])
def test_a_pooling_folder_is_one_of_the_folders_own(name: object, embedder: Path) -> None:
    (embedder.parent / "config.json").write_text('{"pooling_mode": "cls"}')
    steps = json.loads((embedder / "modules.json").read_text())
    steps[1]["path"] = name
    (embedder / "modules.json").write_text(json.dumps(steps))
    with pytest.raises(UnsafeFileError, match="none of its own"):
        load(embedder)


def test_a_pooling_folder_may_not_be_a_link_out(embedder: Path, tmp_path: Path) -> None:
    pooling = embedder / "1_Pooling"
    pooling.rename(tmp_path / "elsewhere")
    pooling.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError, match="none of its own"):
        load(embedder)
    pooling.unlink()
    pooling.symlink_to(pooling)
    with pytest.raises(UnsafeFileError, match="none of its own"):
        load(embedder)


def test_files_that_are_links_are_read_as_the_hubs_cache_has_them(embedder: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (embedder / "1_Pooling" / "config.json").rename(blob)
    (embedder / "1_Pooling" / "config.json").symlink_to(blob)
    assert isinstance(load(embedder).config.head, SentenceEmbedding)


# ── what an export may replace ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["notes.txt", "thesis.json"], "notes.txt"),
        (["thesis.json"], "thesis.json"),
        (["tokenizer.json"], "tokenizer.json"),
        (["my-model.safetensors"], "my-model.safetensors"),
        (["1_Pooling/notes.json"], "1_Pooling/notes.json"),
        (["tokenizer.json/mine"], "tokenizer.json"),
    ],
)
@pytest.mark.parametrize("exported", [False, True])
def test_overwriting_touches_no_file_of_the_users(names: list[str], named: str, exported: bool, tmp_path: Path) -> None:
    folder = tmp_path / "mydata"
    if exported:
        support.checkpoint(folder)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("years of work")
    before = snapshot(tmp_path)
    if exported and names == ["tokenizer.json"]:  # an export's own file
        export(support.tiny_model(), folder, overwrite=True)
        return
    with pytest.raises(CheckpointError, match=f"holds {named}") as caught:
        export(support.tiny_model(), folder, overwrite=True)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"model_type": 3}'])
def test_a_config_of_something_else_is_not_overwritten(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        export(support.tiny_model(), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == text


def test_whatever_an_export_writes_it_may_replace(embedder: Path, tmp_path: Path) -> None:
    minilm = load("minilm")
    for what in (load(embedder), minilm, support.tiny_model()):
        export(what, tmp_path / "out", overwrite=True, max_shard_size=3_000_000 if what is minilm else 3000)
    assert export(support.tiny_model(), tmp_path / "out", overwrite=True) == tmp_path / "out"


def test_a_file_that_comes_while_we_write_is_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearhead.checkpoint import pretrained, writing

    written = writing.write_safetensors

    def slow(*those: object, **more: object) -> None:
        written(*those, **more)  # type: ignore[arg-type]
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "thesis.json").write_text("years of work")

    loaded = load(folder)
    monkeypatch.setattr(pretrained, "write_safetensors", slow)
    with pytest.raises(CheckpointError, match=r"thesis\.json"):
        export(loaded, tmp_path / "new")
    assert (tmp_path / "new" / "thesis.json").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "new"]


def test_the_path_that_is_returned_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert export(support.tiny_model(), "~/out") == tmp_path / "out"
    assert export(support.tiny_model(), "there") == tmp_path / "there"
    assert load("~/out").config == load(tmp_path / "there").config


# ── one family of errors ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["~nosuchuser/x", "", "two\nlines", "./two\nlines", "model\n", LONE, "./" + LONE])
def test_a_name_that_nothing_can_have_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        load(name)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["a\0b", "~nosuchuser/x", LONE, "x" * 5000])
def test_a_folder_that_cannot_be_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        export(support.tiny_model(), name)
    str(caught.value).encode()
    assert not list(tmp_path.iterdir())


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for attempt in (lambda: export(support.tiny_model(), tmp_path / "round"), lambda: load(tmp_path / "round")):
        with pytest.raises(CheckpointError):
            attempt()


def test_half_a_character_in_a_value_is_exported_as_it_was(folder: Path, tmp_path: Path) -> None:
    support.change_config(folder, _name_or_path=LONE)
    (folder / "generation_config.json").write_text(json.dumps({"note": LONE}))
    copy = export(load(folder), tmp_path / "copy")
    assert json.loads((copy / "config.json").read_text())["_name_or_path"] == LONE
    assert json.loads((copy / "generation_config.json").read_text())["note"] == LONE


def test_what_cannot_be_printed_is_escaped(folder: Path) -> None:
    support.change_config(folder, **{f"a{LONE}\n\x1b[31m": 1})
    with pytest.raises(UnknownKeyError, match=r"a\\ud800 \\x1b\[31m") as caught:
        load(folder)
    str(caught.value).encode()
    assert str(ClearheadError("d_model=100: 768 × 12 … “é” 中")) == "d_model=100: 768 × 12 … “é” 中"


def test_a_folder_whose_name_breaks_the_line_is_one_line_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "two\nlines").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json") as caught:
        load(tmp_path / "two\nlines")
    assert "\n" not in str(caught.value)


# ── files that are none ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "1_Pooling/config.json"])
def test_a_pipe_or_a_folder_is_no_file(make: type, name: str, embedder: Path) -> None:
    (embedder / name).unlink()
    make(embedder / name)
    with pytest.raises(CheckpointError):
        load(embedder)


def test_a_shard_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    shards = export(support.tiny_model(), tmp_path / "sharded", max_shard_size=3000)
    first = min(shards.glob("*.safetensors"))
    first.unlink()
    os.mkfifo(first)
    with pytest.raises(CheckpointError, match="no regular file"):
        load(shards)


def test_a_shard_whose_name_no_file_can_have_is_refused(tmp_path: Path) -> None:
    shards = export(support.tiny_model(), tmp_path / "sharded", max_shard_size=3000)
    index = shards / "model.safetensors.index.json"
    for name in ("a\0b.safetensors", f"{LONE}.safetensors"):
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            load(shards)
        str(caught.value).encode()
