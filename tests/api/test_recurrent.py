"""What the Transformer replaced trains, goes on, writes and is scored with the same commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clearhead.api.recipe import Recipe
from clearhead.api.scoring import scores
from clearhead.api.training import Run, read_recipe
from clearhead.errors import ConfigError
from clearhead.train.recipe import filled

pytestmark = pytest.mark.usefixtures("as_a_user")

NUMBERS = ("null", "eins", "zwei", "drei", "vier"), ("zero", "one", "two", "three", "four")
PAIRS = [(f"{NUMBERS[0][a]} {NUMBERS[0][b]}", f"{NUMBERS[1][a]} {NUMBERS[1][b]}") for a in range(5) for b in range(5)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))


def translation(folder: Path, **model: Any) -> Recipe:
    for language, side in (("de", 0), ("en", 1)):
        (folder / f"lines.{language}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    source = {"kind": "parallel-lines", "source": str(folder / "lines.de"), "target": str(folder / "lines.en")}
    return filled(
        Recipe,
        {
            "batch": 25,
            "data": {"source": source, "validation": source, "encoder": {"kind": "translation"}},
            "tokenizer": {"kind": "new-tokenizer", "learn": "bpe", "vocab_size": 60, "special": ["<pad>", "<eos>"]},
            "model": {"kind": "recurrent-translator", "d_model": 32, "dropout": 0.0, **model},
            "objective": {"kind": "sequence-to-sequence"},
            "loop": {
                "steps": 80,
                "save_every": 40,
                "precision": "float32",
                "optimiser": {"kind": "adamw", "rate": 2e-2, "weight_decay": 0.0},
                "schedule": {"kind": "cosine", "warmup": 5},
            },
            "samples": {"prompts": ["eins zwei"], "every": 80, "max_new_tokens": 8},
        },
    )


@pytest.mark.parametrize("reads", ["summary", "attention"])
def test_a_translator_trains_writes_and_is_scored(tmp_path: Path, reads: str) -> None:
    said: list[str] = []
    run = Run(translation(tmp_path, reads=reads), tmp_path / "run", say=said.append)
    events = list(run.go())
    assert events[-1].validation is not None and events[-1].validation < 0.2
    assert events[-1].samples[0].strip() == "one two" and events[-1].mfu is None
    assert any(line.startswith("RecurrentTranslator of") for line in said)
    found = {score.name: score.value for score in scores(run)}
    assert found["chrF"] > 90 and found["exact match"] > 0.9
    assert run.finish() is None and (tmp_path / "run" / "step-00000080").exists()
    again = Run(read_recipe(tmp_path / "run" / "run.json", []), tmp_path / "run", resume=True)
    assert again.done == 80 and again.evaluate() == pytest.approx(events[-1].validation, abs=1e-5)


def test_what_no_translator_is_is_refused_in_the_recipes_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.d_model=31 is odd, and half of it reads the source in each direct"):
        translation(tmp_path, d_model=31)
    with pytest.raises(ConfigError, match=r"model\.reads='all' is not a choice; choose from 'summary', 'attention'"):
        translation(tmp_path, reads="all")
