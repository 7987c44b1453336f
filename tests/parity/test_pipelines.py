"""Filling in, classifying and embedding against the pipelines of transformers: one model and tokenizer, on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForTokenClassification,
    pipeline,
)

import clearhead
from clearhead.text import Tokenizer
from tests.parity import support
from tests.text.corpus import LINES

WORDPIECE = Tokenizer.train(LINES, kind="wordpiece", vocab_size=200)
BYTES = Tokenizer.train(
    LINES,
    kind="byte-bpe",
    vocab_size=320,
    special_tokens={"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "mask_token": "<mask>"},
)
TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "LOC", 4: "I-MISC"}
MOODS = {0: "bad", 1: "so so", 2: "good"}
TEXTS = [
    "The animal didn't cross the street because it was too tired.",
    "every step counts: one, two, three",
    "Das Café an der Straße öffnet um 9 Uhr, 🙂",
]

pytestmark = pytest.mark.usefixtures("as_a_user")


def config(cls: Any, tokenizer: Tokenizer, **more: Any) -> Any:
    """A tiny config of this tokenizer's vocabulary; BART and Llama have names of their own for some sizes."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
    if cls is BartConfig:
        sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}
        sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    pad = tokenizer.pad_id if tokenizer.pad_id is not None else 0
    return cls(vocab_size=tokenizer.vocab_size, max_position_embeddings=80, pad_token_id=pad, **sizes, **more)


def saved(cls: Any, settings: Any, tokenizer: Tokenizer, folder: Path) -> clearhead.Loaded:
    theirs = support.tiny(cls, settings)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    theirs.save_pretrained(folder)
    tokenizer.save(folder)
    file = (
        folder / "tokenizer_config.json"
    )  # a BERT's own class would pass token types on; a class without a name does not
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (tokenizer is WORDPIECE)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_input_names": names}))
    return clearhead.load(folder)


def job(name: str, folder: Path, **more: Any) -> Any:
    return pipeline(name, model=str(folder), tokenizer=str(folder), device="cpu", **more)


def near(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(float(theirs), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("cls", "kind", "tokenizer"),
    [(BertForMaskedLM, BertConfig, WORDPIECE), (RobertaForMaskedLM, RobertaConfig, BYTES)],
    ids=["BERT", "RoBERTa"],
)
def test_fill_is_transformers(cls: Any, kind: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    lm = saved(cls, config(kind, tokenizer), tokenizer, tmp_path)
    theirs = job("fill-mask", tmp_path)
    mask = tokenizer.special_tokens["mask"]
    for text in (f"The animal {mask} the street.", f"{mask} step counts", f"{mask}", f"The {mask} was too {mask}."):
        want = theirs(text, top_k=7)
        want = want if isinstance(want[0], list) else [want]
        got = lm.fill(text, top_k=7)
        assert [one.mask for one in got] == [gap for gap, _ in enumerate(want) for _ in range(7)]
        for one, other in zip(got, [one for gap in want for one in gap], strict=True):
            assert (one.id, one.token, one.text) == (other["token"], other["token_str"], other["sequence"])
            near(one.probability, other["score"])


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (MOODS, None),
        (MOODS, "single_label_classification"),
        (MOODS, "multi_label_classification"),
        (MOODS, "regression"),
        ({0: "score"}, None),
        ({0: "score"}, "multi_label_classification"),
        ({0: "score"}, "regression"),
    ],
)
def test_labels_of_a_text_are_transformers(labels: dict[int, str], problem: str | None, tmp_path: Path) -> None:
    settings = config(BertConfig, WORDPIECE, id2label=labels, problem_type=problem)
    lm = saved(BertForSequenceClassification, settings, WORDPIECE, tmp_path)
    same_labels(lm, job("text-classification", tmp_path))


@pytest.mark.parametrize(
    ("cls", "kind", "more"),
    [
        (LlamaForSequenceClassification, LlamaConfig, {}),
        (BartForSequenceClassification, BartConfig, {"eos_token_id": BYTES.sep_id, "bos_token_id": BYTES.cls_id}),
    ],
    ids=["Llama", "BART"],
)
def test_other_architectures_label_too(cls: Any, kind: Any, more: dict[str, Any], tmp_path: Path) -> None:
    lm = saved(cls, config(kind, BYTES, id2label=MOODS, **more), BYTES, tmp_path)
    same_labels(lm, job("text-classification", tmp_path), pairs=False)


def same_labels(lm: clearhead.Loaded, theirs: Any, *, pairs: bool = True) -> None:
    for text in TEXTS:
        for pair in (None, "it was too big") if pairs else (None,):
            want = theirs(text if pair is None else {"text": text, "text_pair": pair}, top_k=None)
            got = lm.classify(text, pair)
            assert [one.label for one in got] == [one["label"] for one in want]
            for one, other in zip(got, want, strict=True):
                near(one.probability, other["score"])
                assert (one.text, one.start, one.end) == (text, 0, len(text))


@pytest.mark.parametrize(
    ("cls", "kind", "tokenizer"),
    [(BertForTokenClassification, BertConfig, WORDPIECE), (RobertaForTokenClassification, RobertaConfig, BYTES)],
    ids=["BERT", "RoBERTa"],
)
@pytest.mark.parametrize("aggregation", ["none", "simple"])
def test_labels_of_tokens_are_transformers(
    cls: Any, kind: Any, tokenizer: Tokenizer, aggregation: Any, tmp_path: Path
) -> None:
    key = "entity" if aggregation == "none" else "entity_group"
    kinds: set[str] = set()
    for seed in range(4):  # most of them see one thing everywhere
        torch.manual_seed(seed)
        lm = saved(cls, config(kind, tokenizer, id2label=TAGS), tokenizer, tmp_path / str(seed))
        theirs = job("token-classification", tmp_path / str(seed), aggregation_strategy=aggregation)
        for text in TEXTS[:2]:
            want, got = theirs(text), lm.classify(text, aggregation=aggregation)
            assert [(one.label, one.start, one.end) for one in got] == [(x[key], x["start"], x["end"]) for x in want]
            for one, other in zip(got, want, strict=True):
                near(one.probability, other["score"])
                assert one.text == text[one.start : one.end]
                words = theirs.tokenizer.convert_tokens_to_string(list(one.tokens))
                assert other["word"] == (one.tokens[0] if aggregation == "none" else words)
            kinds |= {one.label for one in got}
    assert len(kinds) > 2


@pytest.mark.parametrize("pooling", ["mean", "first", "last", "max"])
def test_vectors_are_the_pooled_features_of_transformers(pooling: Any, tmp_path: Path) -> None:
    lm = saved(BertModel, config(BertConfig, WORDPIECE), WORDPIECE, tmp_path)
    features = job("feature-extraction", tmp_path)
    pooled = {"mean": lambda x: x.mean(0), "first": lambda x: x[0], "last": lambda x: x[-1], "max": lambda x: x.max(0)}
    want = np.stack([pooled[pooling](np.array(features(text))[0]) for text in TEXTS])
    np.testing.assert_allclose(lm.embed(TEXTS, pooling=pooling).numpy(), want, rtol=1e-4, atol=1e-5)
    length = np.linalg.norm(want, axis=1, keepdims=True)
    got = lm.embed(TEXTS, pooling=pooling, normalise=True).numpy()
    np.testing.assert_allclose(got, want / length, rtol=1e-4, atol=1e-5)
