"""GGUF headers that lie: cut short, claiming too much, or holding values of any kind. One line each, and quickly."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")
pytest.importorskip("transformers")

from clearhead.checkpoint import load
from clearhead.checkpoint.formats.gguf_file import _Cursor
from clearhead.checkpoint.formats.gguf_rows import ARCHITECTURES
from clearhead.errors import CheckpointError, ClearheadError, UnknownFamilyError, UnsafeFileError
from tests.checkpoint import support, writers
from tests.checkpoint.test_formats_gguf import GRIDS, source


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return support.checkpoint(tmp_path / "model")


def test_a_file_cut_short_anywhere_is_refused(llama: Path, tmp_path: Path) -> None:
    path = writers.write_gguf(llama, tmp_path / "a.gguf", "llama")
    data = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(data), len(data) // 60), len(data) - 40]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def header(tensors: int = 0, pairs: int = 0, rest: bytes = b"", *, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def name(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


ARCH = name("general.architecture") + struct.pack("<I", 8) + name("llama")
LIES = {
    "another version": header(version=1),
    "a tensor too many": header(tensors=1),
    "exatensors": header(tensors=2**60),
    "exapairs": header(pairs=2**62),
    "a name without end": header(pairs=1, rest=struct.pack("<Q", 2**63) + b"x"),
    "a list without end": header(pairs=1, rest=name("a") + struct.pack("<IIQ", 9, 4, 2**61)),
    "a list of lists": header(pairs=1, rest=name("a") + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 40),
    "a value of no type": header(pairs=1, rest=name("a") + struct.pack("<I", 77) + b"\0" * 40),
    "a key twice": header(pairs=2, rest=2 * ARCH),
    "a name of no letters": header(pairs=1, rest=struct.pack("<Q", 2) + b"\xff\xfe" + b"\0" * 40),
    "an alignment of nothing": header(pairs=1, rest=name("general.alignment") + struct.pack("<II", 4, 0) + b"\0" * 40),
    "a hundred axes": header(tensors=1, rest=name("a") + struct.pack("<I", 100) + b"\0" * 900),
    "a tensor past the end": header(tensors=1, rest=name("a") + struct.pack("<IQIQ", 1, 2**40, 0, 0)),
    "a tensor beside the end": header(tensors=1, rest=name("a") + struct.pack("<IQIQ", 1, 1, 0, 2**63)),
    "a size that overflows": header(tensors=1, rest=name("a") + struct.pack("<IQQIQ", 2, 2**63, 2**63, 0, 0)),
    "a type of nothing": header(tensors=1, rest=name("a") + struct.pack("<IQIQ", 1, 32, 999, 0) + b"\0" * 99),
    "half a block": header(tensors=1, rest=name("a") + struct.pack("<IQIQ", 1, 31, 8, 0) + b"\0" * 99),
    "a tensor twice": header(tensors=2, rest=2 * (name("a") + struct.pack("<IQIQ", 1, 1, 0, 0)) + b"\0" * 99),
    "an overlap": header(
        tensors=2,
        rest=name("a") + struct.pack("<IQIQ", 1, 8, 0, 0) + name("b") + struct.pack("<IQIQ", 1, 8, 0, 4) + b"\0" * 99,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(lie: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(LIES[lie])
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "a.gguf")
    assert "\n" not in str(caught.value) and not isinstance(caught.value, UnknownFamilyError)


def test_a_nothing_of_a_header_is_refused(tmp_path: Path) -> None:
    for data, error in (
        (header(), UnknownFamilyError),
        (header(pairs=1, rest=ARCH), CheckpointError),
        (b"", UnsafeFileError),
    ):
        (tmp_path / "a.gguf").write_bytes(data)
        with pytest.raises(error):
            load(tmp_path / "a.gguf")


VALUES: tuple[Any, ...] = (0, -1, 3, 2**32 - 1, 1.5, float("nan"), float("inf"), True, "text", [1, 2], [4, 4], [])


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("arch", ["llama", "phi3", "gpt2", "gemma2", "gptneox"])
def test_metadata_of_any_value_ends_in_an_error_or_a_model(arch: str, tmp_path: Path) -> None:
    if ARCHITECTURES[arch].family not in GRIDS:
        pytest.skip(f"the family {ARCHITECTURES[arch].family} is not here")
    folder = source(arch, tmp_path / "model")
    path = writers.write_gguf(folder, tmp_path / "a.gguf", arch)
    original = path.read_bytes()
    for key in (*ARCHITECTURES[arch].keys, "rope.scaling.type", "rope.scaling.factor", "rope.dimension_count"):
        for value in VALUES:
            path.write_bytes(with_key(original, f"{arch}.{key}", value))
            try:
                load(path)
            except ClearheadError as error:
                assert "\n" not in str(error)


def with_key(data: bytes, key: str, value: Any) -> bytes:
    """The file with one more pair before the others, and without the old one of this key."""
    tensors, pairs = struct.unpack_from("<QQ", data, 8)
    cursor = _Cursor(memoryview(data), Path("a.gguf"))
    cursor.at = 24
    kept = []
    for _ in range(pairs):
        begin = cursor.at
        if cursor.text() != key:
            cursor.value(cursor.number("I"))
            kept.append(data[begin : cursor.at])
        else:
            cursor.value(cursor.number("I"))
    listed = cursor.at
    for _ in range(tensors):
        cursor.text()
        cursor.take(8 * cursor.number("I") + 12)
    body = data[-(-cursor.at // 32) * 32 :]
    head = header(tensors, len(kept) + 1, b"".join([*kept, name(key) + encoded(value)]) + data[listed : cursor.at])
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + body


def encoded(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<Iq", 11, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + name(value)
    return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
