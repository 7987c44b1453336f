"""What is built from a recipe: a tokenizer of what the model will read, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearhead.api.building import built
from clearhead.api.recipe import Recipe
from clearhead.api.training import Run
from clearhead.checkpoint.pretrained import export, load
from clearhead.errors import TrainingError
from clearhead.model.transformer import Encoder
from clearhead.train.recipe import filled

pytestmark = pytest.mark.usefixtures("as_a_user")

ROWS = [
    {
        "text": "abc",
        "pair": "def",
        "label": "X",
        "words": ["ab", "cd"],
        "tags": ["Y", "Z"],
        "both": {"de": "äh", "en": "uh"},
        "score": 7,
        "said": [{"role": "USER", "content": "hi"}, {"role": "BOT", "content": "ho"}],
        "id": "Q",
    }
]


@pytest.mark.parametrize(
    ("encoder", "letters"),
    [
        ({"kind": "text"}, "abc"),
        ({"kind": "text", "column": "pair"}, "def"),
        ({"kind": "translation", "source": "pair", "target": "text"}, "abcdef"),
        ({"kind": "translation", "nested": "both", "source": "de", "target": "en"}, "hu" + "ä"),
        ({"kind": "labelled", "labels": ["X"]}, "abc"),
        ({"kind": "labelled", "labels": ["X"], "pair": "pair"}, "abcdef"),
        ({"kind": "scored", "pair": "pair"}, "abcdef"),
        ({"kind": "tagged", "labels": ["Y", "Z"], "tokens": "words"}, " abcd"),
        ({"kind": "chat", "messages": "said"}, "hio"),
    ],
)
def test_a_tokenizer_is_learned_from_what_is_read(tmp_path: Path, encoder: dict[str, Any], letters: str) -> None:
    """Not from labels, tags, names of roles, or columns that nobody asked for."""
    tokenizer = built(recipe(tmp_path, encoder)).tokenizer
    assert {token for token in tokenizer.backend.get_vocab() if len(token) == 1} == set(letters)


def test_a_row_that_cannot_be_read_is_named_before_anything_is_learned(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"^[^:]*rows\.jsonl, line 1: there is no column 'texts'; did you mean 'text'\?"
    ):
        built(recipe(tmp_path, {"kind": "text", "column": "texts"}))


BERT = {
    "tokenizer": {"kind": "new-tokenizer", "learn": "wordpiece", "vocab_size": 60},
    "model": {"kind": "bert", "n_layers": 1, "n_heads": 2, "d_model": 16, "dropout": 0.0},
}


@pytest.mark.parametrize(
    ("objective", "encoder", "pools"),
    [
        ({"kind": "masked-language-model", "rate": 0.9}, {"kind": "text"}, False),
        ({"kind": "token-classification"}, {"kind": "tagged", "labels": ["Y", "Z"], "tokens": "words"}, False),
        ({"kind": "sequence-classification"}, {"kind": "labelled", "labels": ["W", "X"]}, True),
    ],
)
def test_every_weight_of_a_new_bert_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: dict[str, Any], encoder: dict[str, Any], pools: bool
) -> None:
    """With ddp one that is not ends the run: a pooler is there only for a head that reads it."""
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    run = Run(recipe(tmp_path, encoder, objective=objective, **BERT), tmp_path / "run")
    model, without = run.built.model, []
    assert isinstance(model, Encoder) and (model.pooler is not None) == pools == (model.config.pooler is not None)

    def update(factor: float) -> None:
        without.extend(name for name, each in model.named_parameters() if each.grad is None)
        run.trainer.optimisers.forget()

    monkeypatch.setattr(run.trainer.optimisers, "step", update)
    assert len(list(run.go())) == 1 and not without


def test_a_checkpoints_pooler_stays_where_it_is_read(tmp_path: Path) -> None:
    tags, labels = (
        {"kind": "tagged", "labels": ["Y", "Z"], "tokens": "words"},
        {"kind": "labelled", "labels": ["X", "W"]},
    )
    minilm = {"model": {"kind": "checkpoint", "name": "minilm"}, "tokenizer": None}
    tagger = built(recipe(tmp_path, tags, objective={"kind": "token-classification"}, **minilm))
    assert isinstance(tagger.model, Encoder) and tagger.model.pooler is None and tagger.pretrained is not None
    folder = export(tagger.pretrained, tmp_path / "tagger")
    assert load(folder).config == tagger.model.config
    classifier = built(recipe(tmp_path, labels, objective={"kind": "sequence-classification"}, **minilm))
    assert isinstance(classifier.model, Encoder) and classifier.model.pooler is not None


def recipe(folder: Path, encoder: dict[str, Any], **others: Any) -> Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS * 4))
    return filled(
        Recipe,
        {
            "data": {"source": {"kind": "json-lines", "paths": [str(path)]}, "encoder": encoder, "held_out": 0.0},
            "tokenizer": {"kind": "new-tokenizer", "learn": "character"},
            "model": {"kind": "gpt2", "n_layers": 1, "n_heads": 2, "d_model": 16},
            "loop": {"steps": 1, "precision": "float32"},
            "batch": 4,
            **others,
        },
    )
