"""The explorer of a model of two texts: what is written reads what was read, and the second text has a field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Api, ready
from tests.browser.test_explorer import CONTRAST, view, wait_for_caption
from tests.serve.running import running

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(browser: Any) -> Iterator[str]:
    """A tiny translator that writes its text backwards, in place of the explorer on minilm."""
    with running("translator", text="the cat sat on the mat") as explorer:
        yield explorer.url


def words(page: Any, where: str) -> list[str]:
    found: list[str] = page.eval_on_selector_all(f"{where} .token .text", "all => all.map(e => e.textContent)")
    return found


def test_what_is_written_reads_the_text(open_page: Callable[..., Any], api: Api) -> None:
    page = open_page()
    assert words(page, "#sentence") == ["the", "cat", "sat", "on", "the", "mat"]
    assert words(page, "#readers") == ["⟨start⟩", "mat", "the", "on", "sat", "cat"]
    assert page.input_value("#target") == "mat the on sat cat the"
    assert page.inner_text("#status") == "6 tokens read, 6 written by the model itself, 16 heads"
    page.hover("#readers [data-token='5']")
    wait_for_caption(page, "“cat”")
    shown = view(page)
    look = api.look("the cat sat on the mat")
    where = f"kind=cross&layer={shown['layer']}&head={shown['head']}"
    weights = api.get(f"looks/{look['id']}/row?{where}&row=5")["weights"]
    best = max(range(6), key=weights.__getitem__)
    assert page.get_attribute("#sentence .token.strongest", "data-token") == str(best)
    assert page.inner_text(f"#sentence [data-token='{best}'] .number") == f"{weights[best]:.2f}"


def test_a_word_of_each_text_ranks_the_heads(open_page: Callable[..., Any], api: Api) -> None:
    page = open_page()
    page.click("#readers [data-token='5']")
    page.click("#sentence [data-token='1']")
    page.wait_for_function("() => document.querySelector('#ranked-title').textContent === 'Heads by cat → cat'")
    page.wait_for_selector("#links button")
    look = api.look("the cat sat on the mat")
    best = api.get(f"looks/{look['id']}/ask?kind=cross&query=5&key=1")["links"][0]
    assert page.inner_text("#links button:first-child .name") == f"{best['layer']}.{best['head']}"
    shown = view(page)
    assert (shown["kind"], shown["reads"], shown["read"]) == ("cross", "5", "1") and "target" not in shown


def test_a_target_of_one_s_own_and_the_other_kinds(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.fill("#target", "eine Katze saß")
    page.press("#target", "Enter")
    page.wait_for_function("() => location.hash.includes('Katze')")
    ready(page)
    assert words(page, "#readers") == ["⟨start⟩", "eine", "Katze"]
    assert page.inner_text("#status") == "6 tokens read, 3 written, 16 heads"
    page.click("#kinds [data-kind='decoder']")
    page.wait_for_selector("#readers", state="hidden")
    ready(page)
    assert words(page, "#sentence") == ["⟨start⟩", "eine", "Katze"]
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#kinds [data-kind='encoder'][aria-checked=true]")
    ready(page)
    assert words(page, "#sentence")[1] == "cat" and view(page)["kind"] == "encoder"
    page.fill("#target", "")
    page.press("#target", "Enter")
    page.wait_for_function("() => !location.hash.includes('Katze')")
    ready(page)
    assert page.input_value("#target") == "mat the on sat cat the"
    page.fill("#text", "a dog ran")
    page.press("#text", "Enter")
    page.wait_for_function("() => location.hash.includes('dog')")
    ready(page)
    assert page.input_value("#target") == "ran dog a"  # the model's own is written anew


def test_languages_are_chosen_and_the_address_holds_them(open_page: Callable[..., Any], url: str) -> None:
    page = open_page()
    page.select_option("#target-language", "fra")
    page.wait_for_function("() => location.hash.includes('into=fra')")
    ready(page)
    assert page.input_value("#target") == "mat the on sat cat the fra"
    again = open_page(page.url.removeprefix(url))
    assert again.input_value("#target") == "mat the on sat cat the fra"
    assert again.input_value("#target-language") == "fra" and again.input_value("#source-language") == ""
    own = open_page("#text=a+dog&target=ein+Hund&kind=decoder&layer=1&head=2&reads=ein")
    assert own.inner_text("#caption") == "What “ein” reads in layer 1, head 2"
    assert own.input_value("#target") == "ein Hund"


def test_a_classifier_reads_its_text_again_and_takes_no_other(open_page: Callable[..., Any]) -> None:
    page = open_page("#model=classifier&text=the+cat+sat")  # a complaint of the server's would fail this test
    assert page.is_hidden("#second") and page.inner_text("#status") == "3 tokens, 16 heads"
    assert words(page, "#readers") == ["⟨start⟩", "the", "cat"] and words(page, "#sentence") == ["the", "cat", "sat"]
    page.click("#kinds [data-kind='decoder']")
    page.wait_for_selector("#kinds [data-kind='decoder'][aria-checked=true]")
    ready(page)
    assert words(page, "#sentence") == ["⟨start⟩", "the", "cat"]
    page.fill("#text", "a dog ran")
    page.press("#text", "Enter")
    page.wait_for_function("() => location.hash.includes('dog')")
    ready(page)
    assert "target" not in view(page) and view(page)["kind"] == "decoder"
    page.select_option("#model", "translator")
    page.wait_for_function("() => location.hash.includes('model=translator')")
    ready(page)
    assert page.is_visible("#target") and page.input_value("#target") == "ran dog a"


def test_only_languages_that_can_be_chosen_are_offered(open_page: Callable[..., Any]) -> None:
    page = open_page("#model=marian&text=a+dog&into=fra")
    assert page.is_hidden("#from") and page.input_value("#target") == "dog a fra"
    options = page.eval_on_selector_all("#into option", "all => all.map(e => e.value)")
    assert options == ["", "deu", "fra"] and page.is_visible("#into")
    assert open_page().is_visible("#from")


def test_an_address_says_all_there_is(open_page: Callable[..., Any]) -> None:
    """The fields of the look before are of another model, or of another text."""
    page = open_page("#text=a+dog&target=ein+Hund&into=fra&kind=decoder")
    page.evaluate("() => { location.hash = 'model=translator&text=a+cat' }")
    page.wait_for_function("() => document.querySelector('#target').value === 'cat a'")
    page.evaluate("() => { location.hash = 'model=encoder&text=a+bird' }")
    page.wait_for_function("() => document.querySelector('#status').textContent === '4 tokens, 6 heads'")
    assert page.is_hidden("#second")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_fits_a_phone(open_page: Callable[..., Any], scheme: str, tmp_path: Path) -> None:
    page = open_page(color_scheme=scheme)
    worst = page.evaluate(CONTRAST.read_text())
    assert worst[0] >= 4.5, worst
    phone = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    assert phone.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    small = phone.eval_on_selector_all(
        "#kinds button, #target, #second select",
        "all => all.map(e => e.getBoundingClientRect()).filter(b => b.width < 24 || b.height < 24).length",
    )
    assert small == 0
