"""The page of `look --html` in a browser: it derives the lens's weights, and can be used without a mouse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import clearhead
from bench.page import a_text, difference, gpt2_like
from clearhead.lens.look import Look
from clearhead.serve import still
from tests.cli.small import MODELS, SENTENCE, load

pytestmark = pytest.mark.browser


@pytest.fixture
def open_still(browser: Any, tmp_path: Path) -> Iterator[Callable[..., tuple[Any, Look]]]:
    """Writes and opens a page; when the test ends it must not have complained, nor asked for anything."""
    complaints: list[str] = []
    contexts = []

    def make(name: str, text: str = SENTENCE, *, mantissa: int | None = None, **options: Any) -> tuple[Any, Look]:
        lm = load(name)
        seen = lm.look(text, "a dog ran far" if name == "buckets" else None)
        path = tmp_path / "page.html"
        kind = seen.kinds[-1]
        still.write(path, lm, seen, still.Opening(kind, 1, 2, 3, 1))
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("script[id^=data-]", state="detached")
        page.wait_for_selector("#map[style*=width]")
        return page, seen

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.slow
def test_of_512_tokens_and_144_heads_every_weight_is_the_lens_s(browser: Any, tmp_path: Path) -> None:
    """The page of a 12-layer, 12-head model: at most 30 MB, weights within 1e-6, and it says how q and k are kept."""
    lm = gpt2_like()
    seen = lm.look(a_text(512))
    path = tmp_path / "page.html"
    assert still.write(path, lm, seen, still.Opening("decoder", 11, 0)) <= 30_000_000
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("script[id^=data-]", state="detached", timeout=60_000)
    assert len(seen.tokens) == 512 and difference(page, seen) <= 1e-6
    said = page.inner_text("#exact")
    assert "q and k are rounded here, to steps that move a score by about 2^−2" in said
    stated = float(re.search(r"further than (\S+) from the exact one", said)[1])  # type: ignore[index]
    assert stated <= 1e-6
    page.close()


def weights(page: Any, layer: int, head: int, kind: str, rows: int) -> torch.Tensor:
    code = "([l, h, k, n]) => Array.from({length: n}, (_, i) => [...weights(l, h, i, k)])"
    return torch.tensor(page.evaluate(code, [layer, head, kind, rows]))


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_the_lens_s(open_still: Callable[..., tuple[Any, Look]], name: str) -> None:
    page, seen = open_still(name)
    for kind in seen.kinds:
        for layer in range(2):
            for head in range(4):
                exact = seen.map(layer, head, kind).dense()
                derived = weights(page, layer, head, kind, len(exact))
                assert (derived - exact).abs().max() < 2e-6
                assert torch.equal(derived == 0, exact == 0)


@pytest.mark.parametrize("name", ["encoder", "window", "buckets"])
def test_rounded_numbers_are_read_as_they_are_said_to_be(
    open_still: Callable[..., tuple[Any, Look]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(still, "WHOLE", 1e9)  # as if q and k were too large for a page
    page, seen = open_still(name)
    assert "to steps that move a score by about 2^−24" in page.inner_text("#exact")
    for kind in seen.kinds:
        exact = seen.map(1, 3, kind).dense()
        derived = weights(page, 1, 3, kind, len(exact))
        assert (derived - exact).abs().max() < 1e-6 and torch.equal(derived == 0, exact == 0)


def test_it_opens_on_the_link_and_shows_its_weight(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, seen = open_still("encoder")
    exact = seen.map(1, 2)[3, 1].item()
    assert page.inner_text("#caption") == f"sat reads the {exact:.4f} in head 1.2"
    assert float(page.inner_text("#readout").rpartition(": ")[2]) == pytest.approx(exact, abs=2e-6)


def test_weights_of_next_to_nothing_are_not_written_as_nothing(browser: Any, tmp_path: Path) -> None:
    lm, path = clearhead.load("dates"), tmp_path / "page.html"
    still.write(path, lm, lm.look("Tuesday 3rd of March", "2026-03-03"), still.Opening("cross", 1, 2, 8, 8))
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("script[id^=data-]", state="detached")
    page.wait_for_selector("#map[style*=width]")
    written = page.eval_on_selector_all("#sentence small", "all => all.map(e => e.textContent).filter(Boolean)")
    assert written and "0.00" not in written
    assert "of the upper text" in page.inner_text("#how")
    page.close()


def test_pointing_and_clicking(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, seen = open_still("encoder")
    words = page.locator("#sentence button")
    words.nth(8).hover()
    row = seen.map(1, 2)[8]
    assert page.inner_text("#caption").startswith(f"it reads {seen.tokens[int(row.argmax())]} most, {row.max():.4f}")
    words.nth(8).click()
    words.nth(2).click()
    best = seen.ask("it", "cat")[0]
    page.mouse.move(0, 0)
    first = page.locator("#ranked button").first
    assert first.inner_text().split() == [f"{best.layer}.{best.head}", f"{best.weight:.4f}"]
    first.click()
    assert page.inner_text("#whole-title") == f"Head {best.layer}.{best.head}"
    assert page.inner_text("#caption").startswith(f"it reads cat {best.weight:.4f}")


def test_the_map_says_what_is_under_the_pointer(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, seen = open_still("decoder")
    box = page.locator("#map").bounding_box()
    place = box["x"] + box["width"] - 5, box["y"] + box["height"] - 5
    page.mouse.move(*place)
    assert page.inner_text("#readout").startswith("tired (9) → tired (9): ")
    shown = float(page.inner_text("#readout").rpartition(": ")[2])
    assert shown == pytest.approx(seen.map(1, 2)[9, 9].item(), abs=2e-6)


def test_without_a_mouse(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, _ = open_still("encoder")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#caption").startswith("the reads ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.title") == "1.2"
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#whole-title") == "Head 0.2"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#readout").startswith("on (4) → the (1): ")


def test_kinds_of_an_encoder_decoder(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, _ = open_still("buckets")
    assert page.locator("#kinds button").all_inner_texts() == ["encoder", "decoder", "cross"]
    assert page.locator("#readers").is_visible()
    assert page.locator("#readers button").count() == 4 and page.locator("#sentence button").count() == 10
    page.locator("#kinds button").first.click()
    assert not page.locator("#readers").is_visible()
    assert page.locator("#sentence button").count() == 10


def test_arabic_runs_from_right_to_left(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, _ = open_still("encoder", "القطة نامت", viewport={"width": 600, "height": 700})
    words = page.locator("#sentence button")
    first, second = words.nth(1).bounding_box(), words.nth(2).bounding_box()
    assert page.get_attribute("#sentence", "dir") == "rtl" and first["x"] > second["x"]
    assert [words.nth(n).locator("span").inner_text() for n in (1, 2)] == ["القطة", "نامت"]


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1280, 2000])
def test_no_width_scrolls_sideways(open_still: Callable[..., tuple[Any, Look]], width: int) -> None:
    page, _ = open_still("encoder", SENTENCE * 6, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_map_of_a_long_text_has_a_scale_of_its_own(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, _ = open_still("alibi", SENTENCE * 40)
    assert page.locator("#map-legend").is_visible()
    assert page.locator("#map-legend li").last.inner_text().startswith("≥0.")
    short, _ = open_still("alibi")
    assert not short.locator("#map-legend").is_visible()


def test_an_evil_text_is_a_text(open_still: Callable[..., tuple[Any, Look]]) -> None:
    page, _ = open_still("encoder", "</script><script>document.title='owned'</script> <img src=x onerror=alert(1)> it")
    assert page.title() != "owned"
    assert page.locator("img").count() == 0
