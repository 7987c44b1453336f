"""What is built from a recipe: a tokenizer of what the model will read, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearhead.api.building import built
from clearhead.api.recipe import Recipe
from clearhead.errors import TrainingError
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


def recipe(folder: Path, encoder: dict[str, Any]) -> Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return filled(
        Recipe,
        {
            "data": {"source": {"kind": "json-lines", "paths": [str(path)]}, "encoder": encoder},
            "tokenizer": {"kind": "new-tokenizer", "learn": "character"},
            "model": {"kind": "gpt2", "n_layers": 1, "n_heads": 2, "d_model": 16},
            "loop": {"steps": 1},
        },
    )
