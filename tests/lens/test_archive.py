"""An archive gives back what was written, every weight to the bit, and reads nothing that is not one."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearhead.errors import LensError, OutsideError
from clearhead.lens.kept.call import Call
from clearhead.lens.kept.placed import DistanceBias
from clearhead.lens.look import Look
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.measures.heads import measure
from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from clearhead.lens.ways_out import archive
from clearhead.lens.ways_out.archive import read_npz, write_npz
from clearhead.model.config import ALiBi
from clearhead.model.kernels import Scoring, blockwise
from clearhead.model.masks import Mask, RoundedSlopeBias, Rule, Table, TableBias
from tests.cli.small import MODELS, SENTENCE, load
from tests.model import tiny


def look(name: str) -> Look:
    return load(name).look(SENTENCE, "a dog ran" if name == "buckets" else None)


@pytest.mark.parametrize("name", MODELS)
def test_a_look_comes_back(name: str, tmp_path: Path) -> None:
    seen, path = look(name), tmp_path / "look.npz"
    assert write_npz(path, seen) == path.stat().st_size
    back = read_npz(path)
    assert isinstance(back, Look)
    assert (back.text, back.target, back.tokens, back.offsets) == (seen.text, seen.target, seen.tokens, seen.offsets)
    assert (back.target_tokens, back.kinds, back.name) == (seen.target_tokens, seen.kinds, seen.name)
    for kind in seen.kinds:
        for layer in range(2):
            for head in range(4):
                assert torch.equal(back.map(layer, head, kind).dense(), seen.map(layer, head, kind).dense())
    assert back.find("it") == seen.find("it")
    with pytest.raises(LensError, match="does not hold the model's output"):
        _ = back.output


def test_a_map_comes_back_with_its_words(tmp_path: Path) -> None:
    m = look("window").map(1, 2)
    write_npz(tmp_path / "map.npz", m)
    back = read_npz(tmp_path / "map.npz")
    assert isinstance(back, AttentionMap) and back.name == m.name and back.words == m.words
    assert torch.equal(back.dense(), m.dense())


@pytest.mark.parametrize("batch", [0, 1])
def test_one_text_of_a_batch_comes_back(batch: int, tmp_path: Path) -> None:
    model = load("buckets").model
    ids = torch.randint(3, 20, (2, 9))
    padding = torch.ones(2, 9, dtype=torch.bool)
    padding[1, 6:] = False
    with torch.no_grad(), watch(model) as seen:
        model(ids, torch.randint(3, 20, (2, 4)), attention_mask=padding)
    write_npz(tmp_path / "seen.npz", seen, batch=batch)
    back = read_npz(tmp_path / "seen.npz")
    assert isinstance(back, Seen)
    for kind in seen.kinds:
        assert torch.equal(back.map(0, 3, kind).dense(), seen.map(0, 3, kind, batch=batch).dense())
        assert all(x.shape[0] == 1 for x in back.call(0, kind).tensors)


def test_tables_of_several_texts_and_heads_come_back_one_text_at_a_time(tmp_path: Path) -> None:
    q, k = torch.randn(2, 2, 5, 4), torch.randn(2, 2, 7, 4)
    bias = RoundedSlopeBias(torch.rand(2), torch.arange(14).reshape(2, 7))
    mask = Mask((Table(torch.rand(2, 2, 5, 7) < 0.8),), (TableBias(torch.randn(2, 2, 5, 7)), bias))
    scoring = Scoring(0.5, mask)
    seen = Seen()
    seen.record(Call(q, k, blockwise(q, k, k, scoring)[1], scoring, kind="cross", layer=0, module=""))
    for batch in (0, 1):
        write_npz(tmp_path / "seen.npz", seen, batch=batch)
        back = read_npz(tmp_path / "seen.npz")
        assert isinstance(back, Seen)
        for head in (0, 1):
            assert torch.equal(back.map(0, head).dense(), seen.map(0, head, batch=batch).dense())


@pytest.mark.parametrize("heads", [[1], [0, 1, 2], [0, 3], [2, 3]])
@pytest.mark.parametrize("tokens", [1, 9])
def test_the_heads_that_were_kept_come_back(heads: list[int], tokens: int, tmp_path: Path) -> None:
    """Four heads that share two key heads, biases and sinks of all four, and only some of one layer kept."""
    model = tiny.decoder(ALiBi(), attention=replace(tiny.GROUPED, sinks=True))
    with torch.inference_mode(), watch(model, layers=[1], heads=heads) as seen:
        model(tiny.ids(1, tokens))
    path = tmp_path / "seen.npz"
    write_npz(path, seen)
    back = read_npz(path)
    assert isinstance(back, Seen) and back.call(1).heads == tuple(heads) and back.n_heads() == 4
    for head in heads:
        assert torch.equal(back.map(1, head).dense(), seen.map(1, head).dense())
    assert measure(back).to_rows() == measure(seen).to_rows()
    with pytest.raises(OutsideError, match="was not kept"):
        back.map(1, next(head for head in range(4) if head not in heads))
    again = tmp_path / "again.npz"
    write_npz(again, back)
    twice = read_npz(again)
    assert isinstance(twice, Seen) and torch.equal(twice.map(1, heads[0]).dense(), seen.map(1, heads[0]).dense())
    for wrong in ([4, -1, *heads[1:]], [4, *heads[:-1], 4], [4, *[0] * (len(heads) + 1)]):
        rewritten(path, about=lambda about, wrong=wrong: about["calls"][0].update(heads=wrong))
        with pytest.raises(LensError, match="is not what write_npz writes"):
            read_npz(path)


@pytest.mark.parametrize("batch", [0, 1])
def test_a_bias_by_distance_comes_back(batch: int, tmp_path: Path) -> None:
    """What T5 of transformers hands over, kept as a number a distance."""
    q, k = torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4)
    scoring = Scoring(1.0, Mask((), (DistanceBias(torch.randn(2, 2, 9), -4), DistanceBias(torch.randn(1, 2, 9), -4))))
    seen = Seen()
    seen.record(Call(q, k, blockwise(q, k, k, scoring)[1], scoring, kind="encoder", layer=0, module=""))
    write_npz(tmp_path / "seen.npz", seen, batch=batch)
    back = read_npz(tmp_path / "seen.npz")
    assert isinstance(back, Seen)
    for head in (0, 1):
        assert torch.equal(back.map(0, head).dense(), seen.map(0, head, batch=batch).dense())


@pytest.mark.parametrize("padding", ["none", "right"])
def test_a_t5_of_transformers_comes_back(padding: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.lens.foreign import build, inputs

    model = build("t5")
    with torch.inference_mode(), watch(model, heads=[0, 2]) as seen:
        model(**inputs("t5", padding))
    write_npz(tmp_path / "seen.npz", seen)
    back = read_npz(tmp_path / "seen.npz")
    assert isinstance(back, Seen) and back.kinds == seen.kinds
    for kind in seen.kinds:
        for head in (0, 2):
            assert torch.equal(back.map(1, head, kind).dense(), seen.map(1, head, kind).dense())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_written_masks_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    q, k = torch.randn(1, 2, 5, 4, dtype=dtype), torch.randn(1, 1, 7, 4, dtype=dtype)
    mask = Mask((Table(torch.rand(1, 1, 5, 7) < 0.8),), (TableBias(torch.randn(1, 2, 5, 7)),))
    scoring = Scoring(0.5, mask, softcap=3.0, sinks=torch.randn(2))
    seen = Seen()
    seen.record(Call(q, k, blockwise(q, k, k, scoring)[1], scoring, kind="cross", layer=4, module="there"))
    write_npz(tmp_path / "seen.npz", seen)
    back = read_npz(tmp_path / "seen.npz")
    assert isinstance(back, Seen) and back.call(4).module == "there" and back.map(4, 1).q.dtype == dtype
    assert torch.equal(back.map(4, 1).dense(), seen.map(4, 1).dense())


def test_a_rule_of_someone_else_s_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Even(Rule):
        def allows(self, i: Any, j: Any) -> Any:
            return ((i[:, None] + j[None, :]) % 2 == 0)[None, None]

    q, k = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 6, 4)
    scoring = Scoring(0.5, Mask((Even(),), offset=2))
    m = AttentionMap(q, k, blockwise(q, k, k, scoring)[1], scoring)
    write_npz(tmp_path / "map.npz", m)
    back = read_npz(tmp_path / "map.npz")
    assert isinstance(back, AttentionMap) and torch.equal(back.dense(), m.dense())
    monkeypatch.setattr(archive, "ARRAY_CELLS", 10)
    with pytest.raises(LensError, match="can only be written out"):
        write_npz(tmp_path / "map.npz", m)


def test_the_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, path = look("buckets"), tmp_path / "weights.npz"
    write_npz(path, seen, weights=True)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["cross.1.weights"].shape == (4, 3, 10)
        assert np.array_equal(arrays["cross.1.weights"][2], seen.map(1, 2, "cross").dense().numpy())
    with pytest.raises(LensError, match="holds the weights alone"):
        read_npz(path)
    monkeypatch.setattr(archive, "ARRAY_CELLS", 100)
    with pytest.raises(LensError, match="leave weights=True out"):
        write_npz(path, seen, weights=True)


def test_an_array_by_accident_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    m = look("decoder").map(0, 0)
    assert np.array_equal(np.asarray(m), m.dense().numpy()) and np.asarray(m, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy=False"):
        np.asarray(m, copy=False)
    monkeypatch.setattr("clearhead.lens.maps.attention_map.ARRAY_CELLS", 99)
    with pytest.raises(LensError, match=r"10 × 10 weights.*m\.pool\(512, 512\).*m\.dense\(\)\.numpy\(\)"):
        np.asarray(m)
    assert m.dense().shape == (10, 10)


# ── what is no archive ───────────────────────────────────────────────────────────────────────────────────────────


def rewritten(path: Path, **changes: Any) -> None:
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    about = json.loads(str(arrays["about"]))
    for name, change in changes.items():
        if name == "about":
            change(about)
        else:
            arrays[name.replace("__", ".")] = change
    arrays["about"] = np.array(json.dumps(about))
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"about": lambda about: about.pop("calls")},
        {"about": lambda about: about["calls"][0].update(kind="evil")},
        {"about": lambda about: about["calls"][0].update(dtype="nn")},
        {"about": lambda about: about["calls"][0].update(scale="wide")},
        {"about": lambda about: about["calls"][0]["rules"].append({"is": "Popen", "args": "ls"})},
        {"about": lambda about: about["sides"]["text"][1].pop()},
        {"decoder__0__q": np.zeros((4, 3, 2), np.float32)},
        {"decoder__0__lse": np.zeros((4,), np.float32)},
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "look.npz"
    write_npz(path, look("decoder"))
    rewritten(path, **changes)
    with pytest.raises(LensError, match="is not what write_npz writes"):
        read_npz(path)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "look.npz"
    with pytest.raises(LensError, match="cannot be read"):
        read_npz(path)
    for content in (b"", b"PK\x03\x04 and no more", b"text"):
        path.write_bytes(content)
        with pytest.raises(LensError, match="is not what write_npz writes"):
            read_npz(path)
    write_npz(path, look("decoder"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LensError, match="is not what write_npz writes"):
        read_npz(path)


def test_pickles_and_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "look.npz"
    np.savez(path, about=np.array([{"pickled": True}], dtype=object))
    with pytest.raises(LensError, match="is not what write_npz writes"):
        read_npz(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as members:
            members.writestr("about.npy", header.getvalue())
        with pytest.raises(LensError, match=r"does not hold what it says|compressed"):
            read_npz(path)
