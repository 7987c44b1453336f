"""What a user holds, job by job: words in, words (or labels, or vectors) out, and every mistake one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import clearhead
from clearhead.api import Loaded
from clearhead.api.classify import Label, _joined
from clearhead.errors import CheckpointError, ClearheadError, ConfigError, ContextError, InputError, TokenizerError
from clearhead.generate import GenerationSettings, generate_ids
from clearhead.model.config import SequenceClassification
from tests.api import small
from tests.checkpoint import support

pytestmark = pytest.mark.usefixtures("as_a_user")

PROMPTS = ["The animal", "Every effort moves you, every step", "too"]


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("translates", [False, True])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "no_repeat_ngram_size": 2}])
def test_several_prompts_get_what_each_gets_alone(translates: bool, settings: dict[str, Any]) -> None:
    lm = small.writer(translates=translates)
    together = lm.generate(PROMPTS, max_new_tokens=12, **settings)
    assert together == [lm.generate(prompt, max_new_tokens=12, **settings) for prompt in PROMPTS]
    assert together == ["".join(lm.stream(prompt, max_new_tokens=12, **settings)) for prompt in PROMPTS]
    assert lm.generate([]) == []


def test_the_checkpoint_says_how_unless_you_do() -> None:
    asked = {"num_beams": 3, "max_new_tokens": 9, "no_repeat_ngram_size": 2, "do_sample": True, "top_k": 7}
    lm, plain = small.writer(generation=asked), small.writer()
    assert lm.settings == GenerationSettings(num_beams=3, max_new_tokens=9, no_repeat_ngram_size=2)
    assert [note for note in lm.report.notes if "do_sample, top_k, which is not applied" in note]
    same = plain.generate("The animal", num_beams=3, max_new_tokens=9, no_repeat_ngram_size=2)
    assert lm.generate("The animal") == same
    own = GenerationSettings(max_new_tokens=4)
    assert lm.generate("The animal", own) == plain.generate("The animal", max_new_tokens=4)
    drawn = lm.generate("The animal", temperature=1.0, seed=3, no_repeat_ngram_size=None)
    assert drawn == plain.generate("The animal", temperature=1.0, seed=3, max_new_tokens=9)


def test_a_checkpoints_own_length_gives_way_where_the_positions_end() -> None:
    plain = small.writer()
    room = plain.config.context - len(plain.tokenizer.encode("The animal").ids)
    lm = small.writer(generation={"max_new_tokens": 10 * plain.config.context})
    assert lm.generate("The animal") == plain.generate("The animal", max_new_tokens=room)
    with pytest.raises(ContextError):
        lm.generate("The animal", max_new_tokens=room + 1)


@pytest.mark.parametrize(
    "asked", [{"num_beams": 10**9}, {"eos_token_id": 2**64}, {"suppress_tokens": [-1]}, {"max_length": 10**400}]
)
def test_a_checkpoint_that_asks_for_what_cannot_be_is_refused_in_one_short_line(asked: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as caught:
        small.writer(generation=asked).generate("The animal")
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_the_files_ends_count_before_the_configs() -> None:
    free = small.writer(eos=())
    ids = free.tokenizer.encode("The animal").ids
    new = generate_ids(free.model, torch.tensor([ids]), max_new_tokens=9)[0, len(ids) :].tolist()
    lm = small.writer(generation={"eos_token_id": [2, new[3]], "max_new_tokens": 9})
    expected = new[: new.index(new[3])]
    assert lm.generate("The animal") == free.tokenizer.decode_stream(before=ids).finish() + "".join(
        map(free.tokenizer.decode_stream(before=ids).push, expected)
    )


@pytest.mark.parametrize(
    ("lm", "given", "error", "says"),
    [
        (small.writer, {"max_new_token": 3}, ConfigError, "did you mean 'max_new_tokens'?"),
        (small.writer, {"max_new_tokens": 500}, ContextError, "do not fit"),
        (small.writer, {"num_beams": 2, "num_return_sequences": 2}, InputError, "leave num_return_sequences out"),
        (small.writer, {"target_language": "de_DE"}, InputError, "leave the languages out"),
        (lambda: small.writer(translates=True), {"source_language": "xx"}, TokenizerError, "it has de, fr"),
        (lambda: small.writer(generation={"num_beams": -1}), {}, CheckpointError, "generation_config.json: "),
        (small.masked, {}, InputError, "does not write text"),
    ],
)
def test_what_cannot_be_written_is_said_at_the_call(
    lm: Callable[[], Loaded], given: dict[str, Any], error: type[ClearheadError], says: str
) -> None:
    for call in (lambda: lm().generate("The animal", **given), lambda: lm().stream("The animal", **given)):
        with pytest.raises(error) as found:
            call()
        assert says in str(found.value) and "\n" not in str(found.value)


# ── filling in ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_candidates_are_ranked_gap_by_gap() -> None:
    lm = small.masked()
    one = lm.fill("The [MASK] was too tired.", top_k=3)
    assert [candidate.mask for candidate in one] == [0, 0, 0]
    assert [candidate.probability for candidate in one] == sorted((c.probability for c in one), reverse=True)
    assert all("was too tired" in candidate.text and "[" not in candidate.text for candidate in one if candidate.id > 4)
    two = lm.fill("The [MASK] was too [MASK].", top_k=2)
    assert [candidate.mask for candidate in two] == [0, 0, 1, 1] and "[MASK]" in two[0].text
    assert sum(candidate.probability for candidate in lm.fill("[MASK]", top_k=10**6)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("lm", "text", "top_k", "says"),
    [
        (small.masked, "no gap", 5, "the text has no [MASK]; write it"),
        (small.masked, "", 5, "the text is empty"),
        (small.masked, "[MASK]", 0, "top_k=0"),
        (small.classifier, "[MASK]", 5, "fills no gaps"),
        (small.writer, "[MASK]", 5, "fills no gaps"),
        (small.masked, "[MASK] " * 200, 5, "96"),
    ],
)
def test_a_text_that_cannot_be_filled_is_refused(lm: Callable[[], Loaded], text: str, top_k: int, says: str) -> None:
    with pytest.raises(ClearheadError) as error:
        lm().fill(text, top_k=top_k)
    assert says in str(error.value) and "\n" not in str(error.value)


# ── classifying ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_gets_all_labels_ranked() -> None:
    labels = small.classifier().classify("every step counts")
    assert sum(one.probability for one in labels) == pytest.approx(1.0)
    assert [one.probability for one in labels] == sorted((one.probability for one in labels), reverse=True)
    free = small.classifier(problem_type="multi_label_classification").classify("every step counts")
    assert {one.label for one in free} == {"bad", "so so", "good"} and sum(x.probability for x in free) != 1.0


def test_neighbours_of_one_kind_are_joined() -> None:
    text = "Ada Lovelace met Bob in Rome"
    spans = [("B-PER", 0, 3), ("I-PER", 4, 12), ("B-PER", 17, 20), ("O", 21, 23), ("LOC", 24, 26), ("LOC", 26, 28)]
    labels = [Label(label, 0.5, text[a:b], a, b, (text[a:b],)) for label, a, b in spans]
    assert [(one.label, one.text, one.tokens) for one in _joined(labels, text)] == [
        ("PER", "Ada Lovelace", ("Ada", "Lovelace")),
        ("PER", "Bob", ("Bob",)),
        ("O", "in", ("in",)),
        ("LOC", "Rome", ("Ro", "me")),
    ]


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("name", ["Identity", "Sigmoid", "Tanh"])
def test_the_score_of_a_cross_encoder_is_as_its_files_say(new: bool, name: str) -> None:
    path = f"torch.nn.modules.activation.{name}"
    key = {"sentence_transformers": {"activation_fn": path}} if new else {"sbert_ce_default_activation_function": path}
    head = SequenceClassification(labels=("LABEL_0",))
    torch.manual_seed(1)
    plain = small.encoder(head).classify("the animal", "every step")
    torch.manual_seed(1)
    lm = small.encoder(head, **key)
    [one] = lm.classify("the animal", "every step")
    want = plain[0].probability
    if name == "Identity":
        assert torch.tensor(one.probability).sigmoid().item() == pytest.approx(want, rel=1e-6)
    else:
        assert one.probability == want
    assert len([note for note in lm.report.notes if "'Tanh' on the scores" in note]) == (name == "Tanh")
    assert sum(one.probability for one in small.classifier(**key).classify("the animal")) == pytest.approx(1)


@pytest.mark.parametrize(
    ("lm", "given", "says"),
    [
        (small.masked, {"text": "a"}, "gives no labels"),
        (small.tagger, {"text": "a", "pair": "b"}, "leave the second one out"),
        (small.tagger, {"text": "a", "aggregation": "first"}, "choose 'none' or 'simple'"),
        (small.classifier, {"text": " "}, "the text is empty"),
        (small.classifier, {"text": "a", "pair": ""}, "the second text is empty"),
        (small.classifier, {"text": "step " * 200}, "96"),
    ],
)
def test_what_cannot_be_labelled_is_refused(lm: Callable[[], Loaded], given: dict[str, Any], says: str) -> None:
    with pytest.raises(ClearheadError) as error:
        lm().classify(**given)
    assert says in str(error.value) and "\n" not in str(error.value)


# ── embedding ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_vectors_are_the_checkpoints_unless_you_say_otherwise() -> None:
    texts = [f"every step counts: {word}" for word in ("one", "two", "three") * 12]  # more than are read at once
    plain, asked = small.embedder(pooling="max", normalise=False), small.encoder(None)
    vectors = plain.embed(texts)
    assert vectors.shape == (36, 32)
    torch.testing.assert_close(vectors, asked.embed(texts, pooling="max"))
    torch.testing.assert_close(vectors[1:2], plain.embed(texts[1]))
    torch.testing.assert_close(plain.embed(texts, normalise=True), F.normalize(vectors, dim=-1))
    torch.testing.assert_close(plain.embed(texts, pooling="first"), asked.embed(texts, pooling="first"))
    assert small.writer().embed(texts, pooling="last").shape == (36, 32), "a decoder can be pooled, too"


@pytest.mark.parametrize(
    ("lm", "given", "says"),
    [
        (lambda: small.encoder(None), {"texts": "a"}, "choose a pooling (first, last, mean, max)"),
        (small.embedder, {"texts": "a", "pooling": "middle"}, "pooling='middle' is not a choice"),
        (small.embedder, {"texts": ["a", ""]}, "text at place 1 is empty"),
        (small.embedder, {"texts": []}, "was given no text"),
        (lambda: small.writer(translates=True), {"texts": "a", "pooling": "mean"}, "encoder-decoder"),
    ],
)
def test_what_cannot_be_embedded_is_refused(lm: Callable[[], Loaded], given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        lm().embed(**given)
    assert says in str(error.value) and "\n" not in str(error.value)


# ── what is no text, no model, no folder ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wrong", [None, 5, 1.5, b"x", {}, Path("x"), [None], [[]]])
def test_what_is_no_text_is_said_by_its_type(wrong: object) -> None:
    inside = type(wrong[0]).__name__ if isinstance(wrong, list) else type(wrong).__name__
    for job in (small.writer().generate, small.embedder().embed):
        with pytest.raises(ClearheadError, match=inside):
            job(wrong)
    for job in (small.masked().fill, small.classifier().classify, small.writer().stream):
        with pytest.raises(ClearheadError, match=type(wrong).__name__):
            job(wrong)


def test_settings_that_are_none_are_said() -> None:
    for wrong in (5, {"max_new_tokens": 3}):
        with pytest.raises(InputError, match="settings is of type"):
            small.writer().generate("a", wrong)
    for name in ("temperature", "num_beams", "length_penalty", "early_stopping"):
        with pytest.raises(ConfigError, match=f"{name}=None is no value"):
            small.writer().generate("a", **{name: None})


@pytest.mark.parametrize("folder", [None, 5, b"x", "", []])
def test_what_is_no_folder_is_not_written_to(folder: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="names no folder"):
        clearhead.export(small.embedder(), folder)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"give what clearhead\.load gives"):
        clearhead.export(small.embedder().model, tmp_path / "a")


def test_what_is_no_model_no_head_and_no_revision_is_said(tmp_path: Path) -> None:
    folder = support.checkpoint(tmp_path / "a")
    for name in (None, 5, b"x", []):
        with pytest.raises(InputError, match="a model's name"):
            clearhead.load(name)
    for given, says in (
        ({"head": 5}, "head=5 is no head"),
        ({"head": "x"}, "is no class of the family llama; choose one of Llama"),
        ({"device": None}, "device='None'"),
        ({"device": []}, "is not to be had"),
        ({"revision": 5}, "revision is of type int"),
        ({"revision": "main"}, "it has no revisions"),
    ):
        with pytest.raises(ClearheadError, match=says):
            clearhead.load(folder, **given)
