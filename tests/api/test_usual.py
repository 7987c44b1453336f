"""What follows the gradient where a recipe does not say."""

from __future__ import annotations

from typing import Any

import pytest

from clearhead.api.recipe import Recipe
from clearhead.train.optimiser import AdamW, Muon, usual
from clearhead.train.recipe import filled, told
from clearhead.train.schedules import straight_down

NEW = {"model": {"kind": "gpt2"}, "tokenizer": {"kind": "new-tokenizer", "learn": "character"}}
GO_ON = {"model": {"kind": "checkpoint", "name": "minilm"}}


def recipe(changes: dict[str, Any], **loop: object) -> Recipe:
    data = {"source": {"kind": "text-files", "paths": ["some.txt"]}}
    return filled(Recipe, {"data": data, "loop": {"steps": 5, **loop}, **changes})


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        (NEW, None),
        ({"model": {**GO_ON["model"], "scratch": True}}, None),
        (GO_ON, 1e-4),
        ({**GO_ON, "adapters": {"kind": "lora"}}, 1e-3),
        ({**GO_ON, "adapters": {"kind": "frozen"}}, 1e-3),
    ],
)
def test_new_weights_by_muon_trained_ones_gently(changes: dict[str, Any], rate: float | None) -> None:
    chosen = recipe(changes).loop
    assert chosen.schedule == straight_down()
    if rate is None:
        assert isinstance(chosen.optimiser, Muon)
    else:
        assert isinstance(chosen.optimiser, AdamW) and chosen.optimiser.rate == rate


def test_what_was_chosen_is_kept_with_the_run() -> None:
    """So that a later version, whose choice may be another, goes on with the same."""
    one = recipe(GO_ON)
    assert told(one)["loop"]["optimiser"]["kind"] == "AdamW"
    again = filled(Recipe, {key: value for key, value in told(one).items() if key != "kind"})
    assert again == one


def test_wider_models_are_moved_less() -> None:
    assert usual(128) == Muon(rate=0.01, others=AdamW(rate=0.01))
    assert recipe({**NEW, "model": {"kind": "gpt2", "d_model": 512}}).loop.optimiser == usual(512)
    assert usual(512).rate == 0.005


def test_what_is_said_stays() -> None:
    assert recipe(GO_ON, optimiser={"kind": "muon", "rate": 3e-3}).loop.optimiser == Muon(rate=3e-3)
