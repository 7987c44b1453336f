"""The table of links: every line is a weight of the map, and no stronger one is missing; whole or not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.errors import InputError, LensError, MissingDependencyError, OutsideError
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.ways_out import tables
from clearhead.lens.ways_out.tables import links, write_parquet
from clearhead.model.kernels import Scoring, blockwise
from clearhead.model.masks import Causal, Mask, Window
from tests.cli.small import MODELS, SENTENCE, load


def look(name: str = "decoder", text: str = SENTENCE) -> Any:
    return load(name).look(text, "a dog ran" if name == "buckets" else None)


def a_map(rows: int, cols: int, mask: Mask) -> AttentionMap:
    q, k = torch.randn(1, 1, rows, 4) * 2, torch.randn(1, 1, cols, 4) * 2
    scoring = Scoring(0.5, mask)
    return AttentionMap(q, k, blockwise(q, k, k, scoring)[1], scoring)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    k=st.none() | st.integers(1, 50),
    threshold=st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0]),
    rule=st.sampled_from([None, Causal(), Window(3)]),
    tile=st.integers(1, 9),
)
def test_they_are_the_strongest_of_each_row(
    rows: int, cols: int, k: int | None, threshold: float, rule: Any, tile: int
) -> None:
    if k is None and threshold == 0.0:
        threshold = 0.01
    m = a_map(rows, cols, Mask((rule,) if rule is not None else (), offset=max(0, cols - rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROWS", tile)
        patch.setattr(tables, "LINES", 7)
        some = list(links(m, k=k, threshold=threshold))
    found = {(int(i), int(j)): float(w) for each in some for i, j, w in zip(*each[3:], strict=True)}
    assert sum(len(each.weight) for each in some) == len(found)
    dense = m.dense().numpy()
    for i in range(rows):
        wanted = np.sort(dense[i][(dense[i] > 0) & (dense[i] >= threshold)])[::-1][: k if k is not None else cols]
        got = [weight for (row, _), weight in found.items() if row == i]
        assert (
            np.allclose(got, wanted, atol=1e-6) or abs(len(got) - len(wanted)) == 1
        )  # one lies at the threshold itself
    for (i, j), weight in found.items():
        assert weight == pytest.approx(dense[i, j], abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_head_of_every_kind_is_listed(name: str) -> None:
    seen = look(name)
    places = set()
    for some in links(seen, k=2):
        assert some.head is not None
        places |= {(some.kind, some.layer, int(head)) for head in some.head}
        for head, i, j, weight in zip(some.head, some.query, some.key, some.weight, strict=True):
            assert weight == pytest.approx(float(seen.map(some.layer, int(head), some.kind)[int(i), int(j)]), abs=1e-6)
    assert places == {(kind, layer, head) for kind in seen.kinds for layer in range(2) for head in range(4)}


def test_parquet_holds_them_with_their_words(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    seen = look("buckets")
    path = tmp_path / "links.parquet"
    lines = write_parquet(path, seen, k=3)
    table = parquet.read_table(path)
    assert table.num_rows == lines and table.column_names == [
        "kind",
        "layer",
        "head",
        "query",
        "query_token",
        "key",
        "key_token",
        "weight",
    ]
    for line in table.to_pylist()[::17]:
        rows, cols = seen.sides(line["kind"])
        assert (line["query_token"], line["key_token"]) == (rows[line["query"]], cols[line["key"]])
        exact = seen.map(line["layer"], line["head"], line["kind"])[line["query"], line["key"]]
        assert line["weight"] == pytest.approx(float(exact), abs=1e-6)
    assert b'"k": 3' in table.schema.metadata[b"clearhead"]


def test_one_head_one_map_and_what_was_only_watched(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    seen = look()
    path = tmp_path / "links.parquet"
    write_parquet(path, seen, layer=1, head=2, k=1)
    assert parquet.read_table(path).select(["layer", "head"]).to_pylist() == [{"layer": 1, "head": 2}] * 10
    write_parquet(path, seen.map(1, 2), k=1)
    one = parquet.read_table(path).to_pylist()[9]
    assert one["kind"] is one["layer"] is one["head"] is None and one["query_token"] == "tired"
    write_parquet(path, seen.seen, k=1)
    assert parquet.read_table(path)["query_token"].null_count == 10 * 8


def test_memory_does_not_grow_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that are held at once stay as few when the text gets four times as long."""
    monkeypatch.setattr(tables, "ROWS", 32)
    monkeypatch.setattr(tables, "LINES", 50)
    for length in (256, 1024):
        groups = [len(some.weight) for some in links(a_map(length, length, Mask((Causal(),))), k=2)]
        assert sum(groups) == 2 * length - 1 and max(groups) <= 64


@pytest.mark.parametrize(
    ("wrong", "line"),
    [({"k": 0}, "choose 1 or more"), ({"k": None}, "give a threshold"), ({"threshold": 1.5}, "choose one in 0…1")],
)
def test_what_is_no_choice_is_told(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        list(links(look(), **wrong))


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    seen = look()
    path = tmp_path / "links.parquet"
    for where in ({"layer": 7}, {"layer": 0, "head": 9}):
        with pytest.raises(OutsideError):
            write_parquet(path, seen, **where)
    with pytest.raises(InputError, match="one head already"):
        write_parquet(path, seen.map(0, 0), layer=1)
    with pytest.raises(LensError, match=r"end it in \.parquet"):
        write_parquet(tmp_path / "links.csv", seen)
    with pytest.raises(LensError, match="no folder"):
        write_parquet(tmp_path / "missing" / "links.parquet", seen)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clearhead\[parquet\]'"):
        write_parquet(path, seen)
    assert list(tmp_path.iterdir()) == []


def test_what_breaks_off_leaves_the_older_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "links.parquet"
    path.write_text("older")

    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "_batch", broken)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, look())
    assert path.read_text() == "older" and len(list(tmp_path.iterdir())) == 1
