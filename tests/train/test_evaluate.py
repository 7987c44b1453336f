"""Measures: figures worked out by hand, and what cannot be measured."""

from __future__ import annotations

import math
import sys

import pytest

from clearhead.errors import InputError, MissingDependencyError
from clearhead.train import evaluate


def test_by_hand() -> None:
    assert evaluate.perplexity(math.log(7)).value == pytest.approx(7)
    assert evaluate.perplexity(1e9).value < math.inf
    assert evaluate.bits_per_byte(math.log(2), 10, 5).value == pytest.approx(2)
    assert evaluate.accuracy([1, 2, 3, 4], [1, 2, 0, 4]).value == 0.75
    assert str(evaluate.exact_match(["a ", "b"], ["a", "c"])) == "exact match 0.5 (1 of 2)"


def test_entities() -> None:
    right = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"]]
    assert evaluate.entity_f1(right, right).value == 1
    half = [["B-PER", "O", "O", "B-LOC"], ["O", "B-ORG"]]  # one of three has a wrong end: precision and recall 2/3
    assert evaluate.entity_f1(half, right).value == pytest.approx(2 / 3)
    assert evaluate.entity_f1([["O"] * 4, ["O"] * 2], right).value == 0
    with pytest.raises(InputError, match="text 1 has 2 words and 1 tags"):
        evaluate.entity_f1([right[0], ["O"]], right)


def test_texts() -> None:
    texts = ["the cat sat on the mat today", "a dog barked at the old moon"]
    score = evaluate.bleu(texts, texts)
    assert score.value == pytest.approx(100) and "tok:13a" in score.note
    assert evaluate.chrf(texts, texts).value == pytest.approx(100)
    assert 0 < evaluate.bleu([texts[0], "a dog barked at the moon"], texts).value < 100
    assert [round(score.value, 3) for score in evaluate.rouge(["the cat sat"], ["the cat ran"])] == [0.667, 0.5, 0.667]


def test_what_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="2 answers were given for 1"):
        evaluate.bleu(["a", "b"], ["a"])
    with pytest.raises(InputError, match="empty"):
        evaluate.accuracy([], [])
    with pytest.raises(InputError, match="empty text"):
        evaluate.bits_per_byte(1.0, 5, 0)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "clearhead\[evaluate\]"'):
        evaluate.chrf(["a"], ["a"])
