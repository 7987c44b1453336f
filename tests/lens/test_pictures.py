"""Pictures: what is painted is the weights, the legend and the names are there, and no letter makes a warning."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from clearhead.errors import InputError, LensError, MissingDependencyError
from clearhead.lens.look import Look
from clearhead.lens.ways_out import colours, glyphs, shades
from clearhead.lens.ways_out.pictures import draw_heads, draw_map, write_picture
from tests.cli.small import SENTENCE, load


def look(name: str = "decoder", text: str = SENTENCE) -> Look:
    return load(name).look(text, "a dog ran" if name == "buckets" else None)


def written(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_one_head_has_its_names_weights_and_legend() -> None:
    seen = look()
    drawn = draw_map(seen, layer=1, head=2, model="tiny")
    words = written(drawn.figure)
    assert words.count("tired") == 2 and "tiny · layer 1, head 2" in words
    assert any("each row reads the columns; blank: may not be read" in line for line in words)
    assert {"0", "0.25", "1", "weight"} <= set(words)
    weights = seen.map(1, 2).dense().numpy()
    assert {f"{weight:.2f}".lstrip("0") for weight in weights[weights >= 0.095]} <= set(words)
    (image,) = drawn.figure.axes[0].images
    assert np.array_equal(image.get_array(), shades.painted(weights))
    assert (np.asarray(image.get_array())[..., 3] == 0).sum() == (weights == 0).sum() == 45
    assert drawn.caption == "layer 1, head 2, 10 × 10 weights"


@pytest.mark.parametrize(("name", "kind"), [("buckets", "cross"), ("encoder", None)])
def test_all_heads_side_by_side(name: str, kind: Any) -> None:
    drawn = draw_heads(look(name), kind=kind, model="tiny")
    words = written(drawn.figure)
    assert drawn.caption == "2 layers × 4 heads"
    assert ("tiny · cross all heads" if kind else "tiny · all heads") in words
    assert {"0", "1", "2", "3"} <= set(words) and any("the cat sat" in line for line in words)


def test_parts_are_called_parts() -> None:
    """Of the heads that were kept, and of those that were asked for."""

    def title(seen: Look, **which: Any) -> tuple[str, str]:
        drawn = draw_heads(seen, **which)
        words = next(word for word in written(drawn.figure) if "head" in word and ";" not in word)
        return words.removeprefix("decoder · "), drawn.caption

    lm = load("decoder")
    assert title(lm.look(SENTENCE)) == ("all heads", "2 layers × 4 heads")
    assert title(lm.look(SENTENCE), layer=1) == ("all heads of layer 1", "4 heads of layer 1")
    assert title(lm.look(SENTENCE, layers=[1])) == ("all heads of layer 1", "4 heads of layer 1")
    assert title(lm.look(SENTENCE, heads=[1, 3])) == ("heads 1, 3", "2 layers × 2 of 4 heads")
    assert title(lm.look(SENTENCE, layers=[1], heads=[2])) == ("head 2 of layer 1", "1 of 4 heads of layer 1")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("decoder", None, "“the cat sat on the mat because it was tired”"),
        ("buckets", "encoder", "“the cat sat on the mat because it was tired”"),
        ("buckets", "decoder", "“a dog ran”"),
        ("buckets", "cross", "“a dog ran” reads “the cat sat on the mat because it was tired”"),
    ],
)
def test_one_head_quotes_what_was_read(name: str, kind: Any, words: str) -> None:
    said = written(draw_map(look(name), kind=kind, layer=0, head=0).figure)
    assert words in " ".join(said) and "each row reads the columns" in " ".join(said)


def test_a_long_text_is_numbered_pooled_and_says_so() -> None:
    seen = look("alibi", SENTENCE * 60)
    drawn = draw_map(seen, layer=0, head=0)
    said = " ".join(written(drawn.figure))
    assert "541 × 541 weights, pooled to 512 × 512: each spot" in said and "largest of its block" in said
    assert "500" in written(drawn.figure) and "tired" not in written(drawn.figure)
    all_of_them = " ".join(written(draw_heads(seen).figure))
    assert "541 × 541 weights" in all_of_them


def test_where_no_weight_is_near_1_the_scale_ends_earlier() -> None:
    flat = np.full((200, 200), 0.004, np.float32)
    flat[0, :10] = 0.9
    assert shades.scale_end(flat, all_of_them=False) == 0.005 and shades.scale_end(flat, all_of_them=True) == 1.0
    assert list(colours.ticks(0.005, more=True).values()) == ["0", "0.00025", "0.00125", "0.0025", "≥0.005"]
    ends = [colours.round_end(weight) for weight in (0.0, 0.001, 0.0011, 0.02, 0.021, 0.3, 0.5, 0.51, 1.0, 1.00001)]
    assert ends == [0.001, 0.001, 0.002, 0.02, 0.05, 0.5, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_files(ending: str, tmp_path: Path) -> None:
    seen = look()
    path = tmp_path / f"head.{ending}"
    assert write_picture(path, seen, layer=1, head=2) == "layer 1, head 2, 10 × 10 weights"
    first = path.read_bytes()
    assert len(first) < 200_000
    write_picture(path, seen, layer=1, head=2)
    assert path.read_bytes() == first  # the same look, the same bytes
    if ending == "svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        assert first.startswith(b"\x89PNG")
    assert write_picture(path, seen) == "2 layers × 4 heads"
    assert write_picture(path, seen.map(0, 1)) == "decoder layer 0 head 1, 10 × 10 weights"
    assert write_picture(path, seen, layer=1) == "4 heads of layer 1"


def test_letters_that_no_font_has_are_boxes_and_are_counted(tmp_path: Path) -> None:
    strange = "\U0001f996"  # a dinosaur
    known = glyphs.labels(["cat", "猫", "قطة", strange, "$x_1$", "Ġcat", " a\nb", "\x07", "", "averyveryverylongword"])
    assert known.words[0] == "cat" and known.words[4:8] == ("$x_1$", "cat", "a↵b", "·")
    assert known.words[8] == "␣" and known.words[9] == "averyveryvery…"
    boxed = sum(word.count(glyphs.BOX) for word in known.words)
    assert known.missing == boxed
    m = look().map(0, 0)
    m.words = ["猫 قطة"] * 10, [strange] * 10
    drawn = draw_map(m)
    said = any("letters that no font on this machine has" in line for line in written(drawn.figure))
    assert said == (glyphs.labels(["猫 قطة", strange]).missing > 0)
    write_picture(tmp_path / "strange.svg", m)  # a warning would fail the test


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = look("buckets")
    with pytest.raises(LensError, match="several kinds"):
        write_picture(tmp_path / "a.png", seen)
    with pytest.raises(LensError, match=r"end it in \.png or \.svg"):
        write_picture(tmp_path / "a.gif", seen, kind="cross")
    with pytest.raises(InputError, match="one head already"):
        write_picture(tmp_path / "a.png", seen.map(0, 0, "cross"), head=1)
    with pytest.raises(InputError, match=r"head=5 alone is no one map; give layer=… too"):
        write_picture(tmp_path / "a.png", seen, kind="cross", head=5)
    with pytest.raises(InputError, match=r"layer=1 alone is no one map; give head=… too"):
        draw_map(seen, kind="cross", layer=1)
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clearhead\[plot\]'"):
        write_picture(tmp_path / "a.png", seen, kind="cross")
    assert list(tmp_path.iterdir()) == []


def test_what_breaks_off_leaves_the_older_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_text("older")

    def broken(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    with pytest.raises(KeyboardInterrupt):
        write_picture(path, look(), layer=0, head=0)
    assert path.read_text() == "older" and len(list(tmp_path.iterdir())) == 1
