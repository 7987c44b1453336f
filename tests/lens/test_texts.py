"""What an encoder-decoder's decoder reads when it is looked at: as generation and training have it, language by
language, and a classifier's own source once more."""

from __future__ import annotations

import pytest
import torch

import clearhead
from clearhead.errors import ClearheadError, InputError, NotWatchableError, OutsideError
from clearhead.lens.look import look
from clearhead.model.config import SequenceClassification
from clearhead.text.languages import Languages
from tests.api import small
from tests.cli.small import Small
from tests.model import tiny

pytestmark = pytest.mark.usefixtures("as_a_user")


def test_a_target_is_cut_as_what_is_written() -> None:
    lm = small.writer(translates=True)
    tokens = small.TOLD
    seen = look(lm, "The animal", "it was tired", source_language="fr", target_language="fr")
    assert seen.tokens[0] == "__fr__" and seen.tokens[-1] == "</s>"
    assert seen.target_tokens[:2] == ["⟨start⟩", "__fr__"] and "</s>" not in seen.target_tokens
    source = tokens.encode("The animal", source_language="fr").ids
    written = tokens.encode_target("it was tired", "fr").ids
    want = lm.model(torch.tensor([source]), torch.tensor([[2, *written[:-1]]]))
    assert torch.equal(seen.output.logits, want.logits)
    assert look(lm, "The animal", "it").tokens[0] == "__de__"  # as the tokenizer's files say
    with pytest.raises(ClearheadError, match="no language 'xx'; it has de, fr"):
        look(lm, "The animal", "it", target_language="xx")


def test_mbart_starts_from_the_language_that_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = small.writer(translates=True, decoder_start=small.TOLD.language_id("de"))
    behind = Languages(tokens=small.TOLD._languages.tokens, place="behind", source="de", target="de")
    monkeypatch.setattr(small.TOLD, "_languages", behind)
    first = {code: look(lm, "The animal", "it", target_language=code) for code in ("de", "fr")}
    ids = {code: int(seen.reading.target_ids[0, 0]) for code, seen in first.items()}
    assert ids == {code: small.TOLD.language_id(code) for code in ids}


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_decoder_of_a_classifier_reads_the_text_again(wrapped: bool) -> None:
    head = SequenceClassification(labels=("a", "b"), pooling="last", wrapped=wrapped)
    lm = Small("labels", tiny.translator(whole={"head": head}))
    seen = look(lm, "the cat sat")
    with torch.inference_mode():
        assert torch.equal(seen.output.logits, lm.model(seen.reading.ids).logits)
    assert seen.target_tokens == ["sat" if wrapped else "⟨start⟩", "the", "cat"]
    assert seen.sides("cross") == (seen.target_tokens, ["the", "cat", "sat"])
    assert seen.map(0, 0, "cross").shape == (3, 3) and seen.ask("cat", "the", "decoder")
    with pytest.raises(InputError, match="leave the target out"):
        look(lm, "the cat sat", "x")


def test_a_tokenizer_without_languages_is_asked_for_none() -> None:
    lm = Small("plain", tiny.translator())
    assert look(lm, "the cat", "it sat").target_tokens == ["⟨start⟩", "it"]
    with pytest.raises(InputError, match="leave source_language and target_language out"):
        look(lm, "the cat", "it sat", source_language="fr")
    with pytest.raises(InputError, match="give the target too"):
        clearhead.look(lm, "the cat")


@pytest.mark.parametrize("wrong", [None, "x", 1.5, []])
def test_what_is_no_number_and_no_word_is_said(wrong: object) -> None:
    seen = look(Small("plain", tiny.encoder()), "the cat sat")
    calls = [lambda: seen.map(wrong, 0), lambda: seen.map(0, wrong), lambda: seen.map(0, 0).top(wrong)]
    calls += [lambda: seen.ask(wrong, "cat")] if wrong != "x" else []
    for call in calls:
        with pytest.raises(OutsideError, match=type(wrong).__name__):
            call()


def test_what_is_loaded_is_watched_by_its_model() -> None:
    for given, says in ((small.masked(), r"watch its \.model"), (5, "give a torch module")):
        with pytest.raises(NotWatchableError, match=says), clearhead.watch(given):
            pass
