"""Files that are cut short, or lie, or reach out of their folder: one clear error each, and quickly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead.checkpoint import export, load
from clearhead.checkpoint.files import read_header, read_json
from clearhead.errors import (
    CheckpointError,
    ClearheadError,
    UnknownFamilyError,
    UnknownKeyError,
    UnsafeFileError,
)
from tests.checkpoint import support


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return support.checkpoint(tmp_path / "model")


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LIES: dict[str, tuple[bytes, type[CheckpointError]]] = {
    "empty": (b"", UnsafeFileError),
    "shorter than a length": (b"\x05\0", UnsafeFileError),
    "a header past the end": (support.raw(b"{}", length=999), UnsafeFileError),
    "a header of exabytes": (support.raw(b"{}", length=2**63), UnsafeFileError),
    "no JSON": (support.raw(b"{nonsense"), CheckpointError),
    "no UTF-8": (support.raw(b"\xff\xfe{}"), CheckpointError),
    "a list": (support.raw(b"[]"), CheckpointError),
    "nested without end": (support.raw(b"[" * 100_000), CheckpointError),
    "a key twice": (support.raw(b'{"a":1,"a":2}'), CheckpointError),
    "a number for a tensor": (support.raw(b'{"a":1}'), CheckpointError),
    **{
        name: (support.raw(json.dumps({"a": says}).encode(), b"\0" * 8), error)
        for name, says, error in [
            ("an unknown dtype", entry(dtype="F31"), CheckpointError),
            ("a dtype of no name", entry(dtype=["F32"]), CheckpointError),
            ("a negative shape", entry(shape=[-2]), CheckpointError),
            ("a shape of text", entry(shape="2"), CheckpointError),
            ("a shape that overflows", entry(shape=[2**62, 2**62]), UnsafeFileError),
            ("true for a length", entry(shape=[True, 2]), CheckpointError),
            ("more bytes than the shape", entry(shape=[1]), UnsafeFileError),
            ("offsets backwards", entry(offsets=[8, 0]), UnsafeFileError),
            ("three offsets", entry(offsets=[0, 8, 8]), CheckpointError),
            ("offsets past the end", entry(offsets=[8, 16]), UnsafeFileError),
            ("bytes that no tensor owns", entry(shape=[1], offsets=[0, 4]), UnsafeFileError),
            ("a field too many", {**entry(), "code": "x"}, CheckpointError),
        ]
    },
    "overlapping tensors": (
        support.raw(json.dumps({"a": entry(), "b": entry(shape=[1], offsets=[4, 8])}).encode(), b"\0" * 8),
        UnsafeFileError,
    ),
    "a hole": (
        support.raw(json.dumps({"a": entry(), "b": entry(offsets=[12, 20])}).encode(), b"\0" * 20),
        UnsafeFileError,
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(name: str, folder: Path) -> None:
    data, error = LIES[name]
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(error) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_cut_short_anywhere_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for length in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            load(folder)
    path.write_bytes(data + b"\0")
    with pytest.raises(UnsafeFileError):
        load(folder)


def test_a_header_that_is_whole_is_read(folder: Path) -> None:
    entries = read_header(folder / "model.safetensors")
    assert entries["model.embed_tokens.weight"].shape == (30, 16)


def test_large_and_damaged_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for data, error in (
        (b"{" + b" " * 2000 + b"}", UnsafeFileError),
        (b"\x80{}", CheckpointError),
        (b'{"a": 1' + b"0" * 900 + b"}", None),
        (b"[]", CheckpointError),
        (b'{"a": 1', CheckpointError),
    ):
        path.write_bytes(data)
        if error is None:
            read_json(path, most=1000)
        else:
            with pytest.raises(error):
                read_json(path, most=1000)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path / "none.json")


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_without_config_or_weights_is_named(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UnsafeFileError, match="pickle"):
        load(folder)
    with pytest.raises(CheckpointError, match="is a file"):
        load(folder / "config.json")


def test_an_unknown_family_names_those_we_have(folder: Path) -> None:
    for kind in ("xlnet", ..., None, ["llama"], 3):
        support.change_config(folder, model_type=kind)
        with pytest.raises(UnknownFamilyError, match=r"bert, .*gpt2, .*llama"):
            load(folder)


def test_a_tensor_too_many_or_too_few_or_of_another_shape_is_named(folder: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.extra.weight"] = torch.zeros(2)

    support.change_tensors(folder, add)
    with pytest.raises(UnknownKeyError, match=r"model\.layers\.0\.extra\.weight"):
        load(folder)
    support.drop_tensor(folder, "model.layers.0.extra.weight")
    load(folder)

    def reshape(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = torch.ones(17)

    support.change_tensors(folder, reshape)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has the shape \(17,\)"):
        load(folder)
    support.drop_tensor(folder, "model.norm.weight")
    with pytest.raises(CheckpointError, match=r"lacks the tensor norm\.weight"):
        load(folder)


def test_biases_that_the_config_denies_are_refused(folder: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.self_attn.q_proj.bias"] = torch.zeros(16)

    support.change_tensors(folder, add)
    with pytest.raises(UnknownKeyError, match=r"q_proj\.bias"):
        load(folder)


def test_layers_that_the_config_denies_are_refused(folder: Path) -> None:
    support.change_config(folder, num_hidden_layers=1)
    with pytest.raises(UnknownKeyError, match=r"layers\.1"):
        load(folder)


def test_tied_tensors_that_differ_are_read_as_two_and_equal_ones_as_one(folder: Path) -> None:
    support.change_config(folder, tie_word_embeddings=True)
    loaded = load(folder)
    assert loaded.model.head.weight is not None and "tie_word_embeddings" in " ".join(loaded.report.notes)  # type: ignore[union-attr]

    def tie(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    support.change_tensors(folder, tie)
    loaded = load(folder)
    assert loaded.model.head.weight is None and not loaded.report.notes  # type: ignore[union-attr]
    support.drop_tensor(folder, "model.embed_tokens.weight")
    assert torch.equal(load(folder).model.decoder.embedding.tokens.weight, loaded.model.decoder.embedding.tokens.weight)  # type: ignore[union-attr]


def test_integers_are_no_weights(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = torch.ones(16, dtype=torch.int32)

    support.change_tensors(folder, change)
    with pytest.raises(CheckpointError, match="I32"):
        load(folder)


def test_mixed_dtypes_are_held_in_the_widest_and_said_so(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = torch.ones(16, dtype=torch.bfloat16)

    support.change_tensors(folder, change)
    loaded = load(folder)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert any("bfloat16" in note for note in loaded.report.notes)


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 2**20, "intermediate_size": 2**20, "num_hidden_layers": 1},
        {"vocab_size": 10**11},
        {"vocab_size": 2**40, "hidden_size": 2**40},
        {"num_hidden_layers": 4096},
        {"num_attention_heads": 2**40, "num_key_value_heads": 2**40, "head_dim": 2**40},
        {"intermediate_size": 2**40},
        {"num_hidden_layers": 10**12},
    ],
)
def test_a_config_of_absurd_size_is_refused_before_anything_is_built(changes: dict[str, int], folder: Path) -> None:
    support.change_config(folder, **changes)
    begin = time.perf_counter()
    with pytest.raises(ClearheadError) as caught:
        load(folder)
    assert time.perf_counter() - begin < 2.0
    assert "\n" not in str(caught.value)


def test_a_long_context_costs_nothing(folder: Path) -> None:
    support.change_config(folder, max_position_embeddings=2**40)
    assert load(folder).config.context == 2**40


# ── shards ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return export(support.tiny_model(), tmp_path / "sharded", max_shard_size=3000)


def test_shards_are_written_past_a_size_and_read(shards: Path, folder: Path) -> None:
    names = sorted(path.name for path in shards.glob("*.safetensors"))
    assert len(names) > 2 and names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in support.tiny_model().parameters())
    one, other = load(shards).model.state_dict(), load(folder).model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)
    transformers = pytest.importorskip("transformers")
    _, info = transformers.AutoModelForCausalLM.from_pretrained(shards, output_loading_info=True)
    assert not any(info.values()), info


def change_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "x.bin",
        "a\\b.safetensors",
        "c:x.safetensors",
        "",
    ],
)
def test_a_shard_that_leaves_the_folder_is_refused(name: str, shards: Path) -> None:
    change_index(shards, lambda places: places.update({"model.norm.weight": name}))
    with pytest.raises(UnsafeFileError, match="the folder itself"):
        load(shards)


def test_an_index_that_disagrees_with_its_shards_is_refused(shards: Path) -> None:
    first = next(iter(sorted(shards.glob("*.safetensors"))))
    change_index(shards, lambda places: places.update({"ghost": first.name}))
    with pytest.raises(CheckpointError, match="ghost"):
        load(shards)
    change_index(shards, lambda places: places.pop("ghost") and places.pop("model.norm.weight") and None)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        load(shards)
    first.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(shards)
    (shards / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')
    with pytest.raises(CheckpointError, match="weight_map"):
        load(shards)
