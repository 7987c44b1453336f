"""What `look` writes to files: each says in a line what it holds; what does not go together is one line and no file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearhead.lens.ways_out.archive import read_npz
from tests.cli.conftest import Run
from tests.cli.small import SENTENCE, load

pytest.importorskip("matplotlib")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.usefixtures("small")


def test_all_of_them_together_beside_json(run: Run, tmp_path: Path) -> None:
    files = {name: tmp_path / f"look.{name}" for name in ("html", "png", "svg", "parquet", "npz")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    said = run("look", SENTENCE, "--model", "encoder", *options, "--json")
    assert said.code == 0 and json.loads(said.out)["schema"] == 1
    lines = said.err.splitlines()
    assert [line.split(":")[0] for line in lines] == list(map(str, files.values()))
    assert "open it in any browser" in lines[0] and "2 layers × 4 heads" in lines[1]
    assert "480 links, the 5 that each token reads most in each head" in lines[3]
    assert all(path.stat().st_size > 1000 for path in files.values())
    assert parquet.read_table(files["parquet"]).num_rows == 480
    back: Any = read_npz(files["npz"])
    assert torch.equal(back.map(1, 3).dense(), load("encoder").look(SENTENCE).map(1, 3).dense())


def test_one_head(run: Run, tmp_path: Path) -> None:
    where = [SENTENCE, "--model", "buckets", "--target", "a dog ran", "--kind", "cross", "--layer", 1, "--head", 2]
    said = run(
        "look", *where, "--png", tmp_path / "a.png", "--parquet", tmp_path / "a.parquet", "--npz", tmp_path / "a.npz"
    )
    assert said.code == 0 and said.err == ""
    assert "a.png: layer 1, head 2, 3 × 10 weights, " in said.out
    lines = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(lines) == 15 and {(line["kind"], line["layer"], line["head"]) for line in lines} == {("cross", 1, 2)}
    m: Any = read_npz(tmp_path / "a.npz")
    exact = load("buckets").look(SENTENCE, "a dog ran").map(1, 2, "cross")
    assert np.array_equal(np.asarray(m), np.asarray(exact)) and m.words == exact.words


def test_a_table_of_all_kinds_and_of_one(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    where = [SENTENCE, "--model", "buckets", "--target", "a dog ran", "--parquet", path]
    assert run("look", *where, "--top", 1).code == 0
    assert set(parquet.read_table(path)["kind"].to_pylist()) == {"encoder", "decoder", "cross"}
    assert run("look", *where, "--kind", "decoder").code == 0
    assert set(parquet.read_table(path)["kind"].to_pylist()) == {"decoder"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--png", "head.jpg"], "end it in .png"),
        (["--svg", "head.png"], "end it in .svg"),
        (["--parquet", "links.csv"], "end it in .parquet or .pq"),
        (["--npz", "look.npy"], "end it in .npz"),
        (["--png", "missing/head.png"], "there is no folder missing"),
        (["--png", "."], "is a folder; give the PNG picture a name in it"),
        (["--html", ""], "an empty name, or '.', is a folder; give the page a name in it, e.g. look.html"),
        (["--html", "look.pdf"], "does not end as the name of a page does; end it in .html or .htm"),
        (["--svg", "head"], "as the name of an SVG picture does"),
        (["--html", "/proc/look.html"], "cannot be written to /proc/look.html"),
        (["--npz", "a" * 245 + ".npz"], "File name too long"),
        (["--html", "a.png", "--png", "./a.png"], "--html and --png name one file"),
        (["--png", "a.png", "--ask", "it", "cat"], "leave --ask out"),
        (["--npz", "a\0b.npz"], "embedded null byte"),
        (["--npz", "a" * 300 + ".npz"], "is no name for a file"),
        (["--png", "a.png", "--layer", "7", "--head", "0"], "choose 0…1"),
    ],
)
def test_what_does_not_go_together(refuse: Callable[..., str], options: list[str], line: str) -> None:
    assert line in refuse("look", SENTENCE, "--model", "encoder", *options)


def test_a_place_that_takes_no_file_is_told_before_the_model_is_loaded(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("there is no /proc here, where nobody may write")
    monkeypatch.setattr("clearhead.load", lambda *_, **__: pytest.fail("the model was loaded"))
    for option in ("html", "png", "parquet", "npz"):
        assert "write it elsewhere" in refuse("look", SENTENCE, f"--{option}", f"/proc/look.{option}")
    assert "write it elsewhere" in refuse("roles", "minilm", "--atlas", "/proc/roles.png")


def test_a_picture_is_of_one_kind(refuse: Callable[..., str]) -> None:
    said = refuse("look", SENTENCE, "--model", "buckets", "--target", "a dog ran", "--npz", "a.npz", "--svg", "a.svg")
    assert "choose --kind encoder, decoder, cross" in said


@pytest.mark.parametrize(
    ("option", "module", "extra"), [("png", "matplotlib", "plot"), ("parquet", "pyarrow", "parquet")]
)
def test_a_library_that_is_missing_is_told_before_the_model_runs(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, option: str, module: str, extra: str
) -> None:
    monkeypatch.setattr("clearhead.cli.files.find_spec", lambda name: None if name == module else sys)
    monkeypatch.setattr("clearhead.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert f"pip install 'clearhead[{extra}]'" in refuse("look", SENTENCE, f"--{option}", f"a.{option}")
