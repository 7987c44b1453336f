"""The colours rise evenly, and a map is as wide as its terminal allows, never wider."""

from __future__ import annotations

from itertools import pairwise

import pytest

from clearhead.cli import ember, paint
from clearhead.lens.look import Look
from clearhead.lens.ways_out import colours
from tests.cli.small import load


def lightness(hexed: str) -> float:
    return colours.to_oklab(hexed)[0]


def test_the_scale_gets_lighter_all_the_way_and_evenly() -> None:
    steps = [lightness(ember.colour((n / 63) ** 2)) for n in range(64)]
    rises = [b - a for a, b in pairwise(steps)]
    assert min(rises) > 0 and max(rises) < 3.5 * (steps[-1] - steps[0]) / 63


@pytest.mark.parametrize("n", range(21))
def test_numbers_can_be_read_on_every_colour(n: int) -> None:
    def luminance(hexed: str) -> float:
        r, g, b = (colours.linear(int(hexed[i : i + 2], 16) / 255) for i in (1, 3, 5))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(ember.colour(n / 20)), luminance(ember.ink(n / 20))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.0


@pytest.mark.parametrize("weight", [0.0, 0.001, 0.02, 0.3, 1.0, 1.0000001])
def test_every_weight_has_a_colour_and_a_shade(weight: float) -> None:
    assert ember.colour(weight).startswith("#")
    assert ember.shade(weight) in ember.SHADES


@pytest.fixture(scope="module")
def seen() -> Look:
    return load("decoder").look("the cat sat on a mat " * 15)


@pytest.mark.parametrize("width", [20, 40, 80, 130, 300, 400])
@pytest.mark.parametrize("colours", [True, False])
def test_a_map_fits_the_terminal(seen: Look, width: int, colours: bool) -> None:
    rows, columns = seen.sides()
    lines = paint.head_map(seen.map(0, 0), rows, columns, width, colours).plain.splitlines()
    assert max(map(len, lines[:-1])) <= max(width, 20)
    if width >= 130:
        assert len(lines) > 90 and "pooled" not in lines[-1]
    else:
        assert "90×90 weights, pooled to" in lines[-1]


def test_numbers_where_they_fit(seen: Look) -> None:
    rows, columns = seen.sides()
    row = paint.head_map(seen.map(0, 0), rows, columns, 400, False).plain.splitlines()[-80]
    shown = [0 if cell == "·" else int(cell) for cell in row.split()[2:]]
    exact = seen.map(0, 0)[10]
    assert shown == [round(100 * weight) for weight in exact.tolist() if weight == 0 or weight >= 0.005]


def test_odd_tokens_have_labels() -> None:
    assert paint.clip(" street", 14) == "street"
    assert paint.clip("\n", 14) == "␣"
    assert paint.clip("a\x1b[31mb", 14) == "a·[31mb"
    assert paint.clip("incomprehensibilities", 8) == "incompr…"


def test_a_bar_is_as_long_as_its_weight() -> None:
    assert paint.bar(1.0, 20, True).plain == "█" * 20
    assert paint.bar(0.5, 20, True).plain == "█" * 10
    assert paint.bar(0.0, 20, True).plain.strip() == ""
