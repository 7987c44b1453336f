"""What a notebook shows: a picture that needs nothing, is small, says what it left out, and is no script."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
import torch

from clearhead.lens.look import Look
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.seen import Seen
from clearhead.lens.ways_out import notebook, shades
from clearhead.model.kernels import Scoring, blockwise
from clearhead.model.masks import Causal, Mask
from tests.cli.small import SENTENCE, load

EVIL = "<script>alert(1)</script> & \"it\" 'cat'"


def look(name: str = "encoder", text: str = SENTENCE) -> Look:
    return load(name).look(text, "a dog ran" if name == "buckets" else None)


def check(html: str) -> None:
    """Well formed, no script, nothing from elsewhere, and small."""
    import xml.etree.ElementTree as ElementTree

    ElementTree.fromstring(html)
    assert "<script" not in html and len(html) < 200_000
    assert all(link.startswith("data:image/png") for link in re.findall(r'href="([^"]*)"', html))


def test_a_map_shows_its_words_and_says_each_weight() -> None:
    m = look().map(1, 2)
    html = m._repr_html_()
    check(html)
    assert html.count(">tired</text>") == 2
    assert f"it → cat {float(m[8, 2]):.4f}" in html
    assert "12 × 12 weights." in html and "Each row reads the columns" in html


def test_the_picture_is_the_weights() -> None:
    image = pytest.importorskip("PIL.Image")
    weights = look("decoder").map(0, 1).dense().numpy()
    drawn = image.open(io.BytesIO(notebook.png(shades.places(weights)))).convert("RGBA")
    assert np.array_equal(
        np.asarray(drawn), np.where(weights[..., None] > 0, shades.painted(weights), np.array([0, 0, 0, 0]))
    )


def test_a_look_and_what_was_seen_show_all_heads() -> None:
    seen = look("buckets")
    for source in (seen, seen.seen):
        html = source._repr_html_()
        check(html)
        for kind in ("encoder", "decoder", "cross"):
            assert f"{kind}: 2 layers × 4 heads" in html


def test_a_text_stays_a_text() -> None:
    seen = look(text=EVIL)
    check(seen._repr_html_())
    check(seen.map(0, 0)._repr_html_())


def test_long_texts_are_bounded_in_work_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 700
    q, k = torch.randn(1, 1, n, 4), torch.randn(1, 1, n, 4)
    scoring = Scoring(0.5, Mask((Causal(),)))
    m = AttentionMap(q, k, blockwise(q, k, k, scoring)[1], scoring)
    html = m._repr_html_()
    check(html)
    assert "700 × 700 weights, pooled: a spot is the largest of its block" in html and "may not be read" in html
    monkeypatch.setattr(notebook, "WORK", 2**16)
    asked: list[int] = []
    plain = AttentionMap.tile

    def tile(self: AttentionMap, rows: range, cols: range) -> Any:
        asked.append(len(rows) * len(cols))
        return plain(self, rows, cols)

    monkeypatch.setattr(AttentionMap, "tile", tile)
    sampled = m._repr_html_()
    check(sampled)
    assert "every 3rd query and 3rd key is drawn" in sampled and sum(asked) <= notebook.SIDE**2


def test_what_is_gone_says_so() -> None:
    seen = look()
    m = seen.map(0, 0)
    seen.release()
    for html in (m._repr_html_(), seen._repr_html_(), Seen()._repr_html_()):
        check(html)
        assert "eleased" in html
