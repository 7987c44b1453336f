"""Meta's layout, llama2.c's files, PyTorch's pickles, single files: the same model as its safetensors, or one line."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead.checkpoint import Pretrained, export, load
from clearhead.checkpoint.places import spelled_out
from clearhead.errors import CheckpointError, ClearheadError, TokenizerError, UnknownKeyError, UnsafeFileError
from clearhead.model.config import LanguageModel, Llama3Scaling, Rotary
from clearhead.text.llama2c import load_llama2c
from clearhead.text.tiktoken import load_tiktoken
from tests.checkpoint import support, writers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return support.checkpoint(tmp_path / "model")


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    from dataclasses import replace

    return export(
        support.tiny_model(replace(support.tiny_config(), head=LanguageModel(tied=True))),
        tmp_path / "tied",
        family="llama",
    )


@pytest.fixture
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K-llama"


def same(one: Pretrained, other: Pretrained) -> None:
    """The same tensors, bit for bit, and the same model around them."""
    first, second = one.model.state_dict(), other.model.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name
    said, again = spelled_out(one.config), spelled_out(other.config)
    assert said.decoder == again.decoder and said.head == again.head
    assert (one.config.vocab_size, one.config.context) == (other.config.vocab_size, other.config.context)


def accounted(loaded: Pretrained) -> dict[str, str]:
    return {account.name: account.fate for account in loaded.report.keys}


# ── Meta ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("slices", "by_rows"), [(1, False), (2, False), (2, True)])
def test_metas_layout_is_the_same_model(slices: int, by_rows: bool, folder: Path, tmp_path: Path) -> None:
    meta = writers.write_meta(folder, tmp_path / "meta", slices=slices, by_rows=by_rows, max_seq_len=32)
    loaded = load(meta, pickle=True)
    same(loaded, load(folder))
    same(load(meta / "consolidated.00.pth", pickle=True), loaded)
    keys = json.loads((meta / "params.json").read_text())
    assert accounted(loaded) == {key: "ignored" if key in ("multiple_of", "vocab_size") else "read" for key in keys}
    same(load(export(loaded, tmp_path / "out")), loaded)


def test_what_params_json_leaves_out_is_said_and_noted(folder: Path, tmp_path: Path) -> None:
    scaled = writers.write_meta(folder, tmp_path / "scaled", rope_theta=500_000.0, use_scaled_rope=True)
    loaded = load(scaled, pickle=True)
    assert loaded.config.decoder is not None
    assert loaded.config.decoder.position == Rotary(
        theta=500_000.0,
        scaling=Llama3Scaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192),
    )
    assert loaded.config.context == 131_072
    assert len(loaded.report.notes) == 2 and all("params.json does not say" in note for note in loaded.report.notes)
    with pytest.raises(UnknownKeyError, match="moe"):
        load(writers.write_meta(folder, tmp_path / "strange", moe={"experts": 8}), pickle=True)


def test_metas_layout_in_safetensors_needs_no_flag(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    _, tensors = writers.as_meta(folder)
    meta = writers.write_meta(folder, tmp_path / "meta", max_seq_len=32)
    with pytest.raises(UnsafeFileError, match="pickle=True"):
        load(meta)
    save_file({name: tensor.clone() for name, (tensor, _) in tensors.items()}, meta / "consolidated.safetensors")
    same(load(meta), load(folder))


@pytest.mark.parametrize(
    "change",
    [
        *({"n_heads": 3}, {"n_heads": 0}, {"n_heads": "4"}, {"n_kv_heads": 2**40}, {"dim": 2**40}, {"n_layers": 10**9}),
        *({"dim": ...}, {"head_dim": 3}, {"rope_theta": []}, {"use_scaled_rope": 3}, {"n_layers": 1}),
    ],
)
def test_params_that_lie_are_one_line(change: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    meta = writers.write_meta(folder, tmp_path / "meta", **change)
    with pytest.raises(ClearheadError) as caught:
        load(meta, pickle=True)
    assert "\n" not in str(caught.value)


def test_slices_of_two_models_are_refused(folder: Path, tmp_path: Path) -> None:
    meta = writers.write_meta(folder, tmp_path / "meta", slices=2)
    part = torch.load(meta / "consolidated.01.pth", weights_only=True)
    del part["norm.weight"]
    torch.save(part, meta / "consolidated.01.pth")
    with pytest.raises(CheckpointError, match="not slices of one model"):
        load(meta, pickle=True)


def test_metas_tokenizers(folder: Path, tmp_path: Path, stories: Path) -> None:
    meta = writers.write_meta(folder, tmp_path / "meta")
    (meta / "tokenizer.model").write_bytes((stories / "tokenizer.model").read_bytes())
    ours = load(meta, pickle=True).tokenizer
    theirs = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(stories / "tokenizer.model"))
    assert ours is not None
    for text in TEXTS:
        assert ours.encode(text).ids == [theirs.bos_id(), *theirs.encode(text)]
    tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b" the", b"\xc3\xa9", b"!!", b" a"]
    writers.write_ranks(tokens, meta / "tokenizer.model")
    llama3 = load(meta, pickle=True).tokenizer
    assert llama3 is not None and llama3.bos_id == len(tokens) and llama3.vocab_size == len(tokens) + 256
    assert llama3.encode("the the\u00e9 a!!", special=False).tokens == ["the", "Ġthe", "Ã©", "Ġa", "!!"]
    for text in TEXTS:
        assert llama3.decode(llama3.encode(text).ids) == text
    for data in (b"YQ== 0\nYg== 2\n", b"YQ== 0\n*** 1\n", b"YQ== 0\n"):
        (meta / "tokenizer.model").write_bytes(data)
        with pytest.raises(TokenizerError):
            load_tiktoken(meta / "tokenizer.model")


TEXTS = ("Once upon a time, there was a girl", "  two spaces", "café 中 🙂", "", "line\nline\t.", "It's 2024!")

# ── llama2.c ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("shared", [False, True])
def test_llama2c_is_the_same_model(version: int, shared: bool, folder: Path, tied: Path, tmp_path: Path) -> None:
    source = tied if shared else folder
    support.change_config(source, rms_norm_eps=1e-5, rope_theta=10_000.0, rope_parameters=...)
    path = writers.write_llama2c(source, tmp_path / "stories.bin", version=version)
    loaded = load(path)
    same(loaded, load(source))
    assert loaded.report.keys and set(accounted(loaded).values()) == {"read"}
    same(load(export(loaded, tmp_path / "out")), loaded)


def test_llama2cs_packed_file_is_near(folder: Path, tmp_path: Path) -> None:
    path = writers.write_llama2c(folder, tmp_path / "packed.bin", version=2)
    loaded, exact = load(path), load(folder)
    assert any("8-bit" in note for note in loaded.report.notes)
    for name, tensor in exact.model.state_dict().items():
        got = loaded.model.state_dict()[name]
        step = tensor.abs().max() / 127 if tensor.ndim == 2 else 0.0
        assert bool(((got - tensor).abs() <= step).all()), name


def test_a_width_that_looks_like_a_pickle_is_llama2cs(tmp_path: Path) -> None:
    from clearhead.checkpoint.formats.torch_bin import is_pickle

    for width, version in ((640, 0), (128, 0)):
        path = tmp_path / "wide.bin"
        path.write_bytes(struct.pack("<7i", width, 8, 1, 2, 2, 9, 4) + bytes([version]))
        assert not is_pickle(path)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_llama2c_file_that_lies_is_refused(version: int, folder: Path, tmp_path: Path) -> None:
    path = writers.write_llama2c(folder, tmp_path / "stories.bin", version=version)
    data = path.read_bytes()
    begin = 8 if version else 0
    changed = [data[:length] for length in (0, 3, 27, 200, 255, 256, len(data) // 2, len(data) - 1)] + [data + b"\0"]
    for field in range(7):
        for value in (-(2**31), -1, 0, *((1, 7) if field < 6 or not version else ()), 2**31 - 1):
            at = begin + 4 * field
            changed.append(data[:at] + struct.pack("<i", value) + data[at + 4 :])
    if version:
        changed += [data[:4] + struct.pack("<i", 9) + data[8:], data[:36] + b"\7" + data[37:]]
    if version == 2:
        changed += [data[:37] + struct.pack("<i", value) + data[41:] for value in (0, -4, 3, 2**30)]
    for one in changed:
        if one == data:
            continue
        path.write_bytes(one)
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("as_characters", [False, True])
def test_llama2cs_tokenizer_is_the_sentencepiece_model(as_characters: bool, tmp_path: Path, stories: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentencepiece.SentencePieceProcessor(model_file=str(stories / "tokenizer.model"))
    pieces = [(model.id_to_piece(id), model.get_score(id)) for id in range(model.get_piece_size())]
    writers.write_vocabulary(pieces, tmp_path / "tok512.bin", as_characters=as_characters)
    support.change_config(source := export(load(stories), tmp_path / "stories"), rms_norm_eps=1e-5)
    path = writers.write_llama2c(source, tmp_path / "stories260K.bin")
    loaded, known = load(path), load(stories)
    same(loaded, known)
    assert loaded.tokenizer is not None and known.tokenizer is not None
    for text in TEXTS:
        ids = loaded.tokenizer.encode(text).ids
        assert ids == known.tokenizer.encode(text).ids, text
        assert loaded.tokenizer.decode(ids) == known.tokenizer.decode(ids)
    writers.write_vocabulary(pieces[:300], tmp_path / "tokenizer.bin")
    (tmp_path / "tok512.bin").unlink()
    with pytest.raises(TokenizerError, match=r"has 300 tokens and stories260K\.bin has 512"):
        load(path)
    data = (tmp_path / "tokenizer.bin").read_bytes()
    for one in (data[:-1], data[:7], b"", data[:4] + b"\xff" * 20, data[: len(data) // 2]):
        (tmp_path / "tokenizer.bin").write_bytes(one)
        with pytest.raises(TokenizerError):
            load_llama2c(tmp_path / "tokenizer.bin")


# ── PyTorch's pickles ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("shards", "old"), [(1, False), (1, True), (3, False)])
def test_old_pytorch_files_are_the_same_model_where_they_are_asked_for(
    shards: int, old: bool, folder: Path, tmp_path: Path
) -> None:
    pickled = writers.write_bin(folder, tmp_path / "bin", shards=shards, old=old)
    with pytest.raises(UnsafeFileError, match=r"pickle=True \(--pickle on the command line\)"):
        load(pickled)
    same(load(pickled, pickle=True), load(folder))
    if shards == 1:
        same(load(pickled / "pytorch_model.bin", pickle=True), load(folder))
        with pytest.raises(UnsafeFileError, match="--pickle"):
            load(pickled / "pytorch_model.bin")


def test_safetensors_come_first(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    same(load(folder, pickle=True), load(folder))


class Runs:
    """What a pickle can do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_runs_none(folder: Path, tmp_path: Path) -> None:
    pickled = writers.write_bin(folder, tmp_path / "bin")
    for old in (False, True):
        torch.save(
            {"a": Runs(tmp_path / "hacked")}, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=not old
        )
        with pytest.raises(UnsafeFileError, match="more than tensors") as caught:
            load(pickled, pickle=True)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("old", [False, True])
def test_a_damaged_pickle_is_one_line(old: bool, folder: Path, tmp_path: Path) -> None:
    pickled = writers.write_bin(folder, tmp_path / "bin", old=old)
    path = pickled / "pytorch_model.bin"
    data = path.read_bytes()
    step = len(data) // 25
    for one in [data[:length] for length in range(0, len(data), step)] + [b"PK\3\4" + b"\0" * 99, b"\x80\2}q\0."]:
        path.write_bytes(one)
        with pytest.raises(CheckpointError) as caught:
            load(pickled, pickle=True)
        assert "\n" not in str(caught.value)
    for value in ([1, 2], {"a": 1}, {1: torch.ones(2)}, torch.ones(2), {"a": torch.ones(2).to_sparse()}):
        torch.save(value, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(CheckpointError):
            load(pickled, pickle=True)


def test_an_archive_that_grows_when_it_is_read_is_refused(folder: Path, tmp_path: Path) -> None:
    pickled = writers.write_bin(folder, tmp_path / "bin")
    path = pickled / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(UnsafeFileError, match="compressed"):
        load(pickled, pickle=True)


def test_an_old_file_that_claims_too_much_is_refused(folder: Path, tmp_path: Path) -> None:
    pickled = writers.write_bin(folder, tmp_path / "bin")
    path = pickled / "pytorch_model.bin"
    torch.save({"a": torch.ones(0x1234)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"M\x34\x12") >= 1
    path.write_bytes(data.replace(b"M\x34\x12", b"J\0\0\0\x7f"))
    with pytest.raises(UnsafeFileError, match="claims"):
        load(pickled, pickle=True)


@pytest.mark.parametrize("name", ["../secret.bin", "/etc/passwd", "a/b.bin", "x.safetensors", "a\\b.bin", ""])
def test_a_pickled_shard_that_leaves_the_folder_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    pickled = writers.write_bin(folder, tmp_path / "bin", shards=2)
    index = pickled / "pytorch_model.bin.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": places | {"model.norm.weight": name}}))
    with pytest.raises(UnsafeFileError, match="the folder itself"):
        load(pickled, pickle=True)


# ── single files ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_single_file_beside_its_config_is_the_folder(folder: Path) -> None:
    same(load(folder / "model.safetensors"), load(folder))
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    same(load(folder / "mine.safetensors"), load(str(folder / "mine.safetensors")))


@pytest.mark.parametrize("name", ["config.json", "x.txt", "x.safetensors", "x.gguf", "x.bin", "x.pth", "x"])
@pytest.mark.parametrize("pickle", [False, True])
def test_a_file_of_no_model_is_one_line(name: str, pickle: bool, tmp_path: Path) -> None:
    for data in (b"", b"{}", b"PK\3\4", b"\x80\2.", b"GGUF" + b"\xff" * 40, b"\0" * 300):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path / name, pickle=pickle)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo])
def test_a_pipe_is_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("x.gguf", "x.bin", "x.safetensors"):
        make(tmp_path / name)
        with pytest.raises(ClearheadError):
            load(tmp_path / name)


def test_the_flag_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clearhead import cli

    pickled = writers.write_bin(folder, tmp_path / "bin")
    assert cli.main(["export", str(pickled), str(tmp_path / "out")]) == 2
    assert "--pickle" in capsys.readouterr().err
    assert cli.main(["export", str(pickled), str(tmp_path / "out"), "--pickle"]) == 0
    same(load(tmp_path / "out"), load(folder))


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────

GROWTH = """
import sys
from pathlib import Path
from bench.measure import peak_bytes
from clearhead.checkpoint import load
folder, dtype = Path(sys.argv[1]), sys.argv[2]
def run():
    lm = load(folder, dtype=dtype)
    for parameter in lm.model.parameters():
        parameter.float().sum()
    return lm
load(folder)
print(peak_bytes(run) / (folder / "model.safetensors").stat().st_size)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is asked of Linux")
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1.15), ("bfloat16", 1.0)])
def test_a_model_takes_no_more_memory_than_its_file(dtype: str, most: float, tmp_path: Path) -> None:
    """60 MB in many small tensors; the bench does it with 500 MB, and takes the time."""
    from clearhead.model import build, presets

    sizes = {"n_layers": 12, "n_heads": 8, "n_kv_heads": 8, "d_model": 320, "d_ff": 896, "vocab_size": 500}
    export(build(presets.llama(**sizes, context=64, tied=True)), tmp_path / "wide", family="llama")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path / "wide"), dtype],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
    )
    assert float(done.stdout) <= most
