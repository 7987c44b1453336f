"""Recipes: tables become dataclasses; what is unknown or of the wrong type is refused with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearhead.errors import ConfigError
from clearhead.train.loop import Loop
from clearhead.train.optimiser import AdamW, Muon
from clearhead.train.recipe import filled, read_toml, told, with_changes
from clearhead.train.schedules import Cosine, WarmupStableDecay

RECIPE = """
steps = 2000
clip = "none"

[optimiser]
kind = "muon"
rate = 0.02
others = { rate = 3e-4, betas = [0.9, 0.99] }

[schedule]
kind = "warmup-stable-decay"
warmup = 100
"""


def test_a_recipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    loop = filled(Loop, read_toml(path))
    assert loop == Loop(
        steps=2000,
        clip=None,
        optimiser=Muon(rate=0.02, others=AdamW(rate=3e-4, betas=(0.9, 0.99))),
        schedule=WarmupStableDecay(warmup=100),
    )
    table = told(loop)
    assert filled(Loop, {key: value for key, value in table.items() if key != "kind"}) == loop


def test_changes_on_the_command_line(tmp_path: Path) -> None:
    tables = {"steps": 5, "optimiser": {"kind": "AdamW"}}
    changed = with_changes(tables, ["steps=7", "optimiser.rate=1e-2", "schedule.kind=cosine", "precision=float32"])
    assert filled(Loop, changed) == Loop(steps=7, optimiser=AdamW(rate=0.01), schedule=Cosine(), precision="float32")
    assert tables == {"steps": 5, "optimiser": {"kind": "AdamW"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["step=5"], "step is no setting; did you mean 'steps'?"),
        (["steps=many"], "steps='many' should be a whole number"),
        (["steps=1.5"], "steps=1.5 should be a whole number"),
        (["steps=true"], "steps=True should be a whole number"),
        (["optimiser.kind=adam"], "optimiser.kind='adam' is not a choice; did you mean 'adamw'?"),
        (["optimiser.rate=1"], "optimiser.kind is missing; choose from 'adamw', 'muon'."),
        (["optimiser.kind=adamw", "optimiser.beta=1"], "optimiser.beta is no setting; did you mean 'betas'?"),
        (["optimiser.kind=adamw", "optimiser.betas=[0.1]"], "optimiser.betas=[0.1] should be a list of 2"),
        (["optimiser=3"], "optimiser=3 should be a table"),
        (["precision=float16"], "precision='float16' is not a choice; did you mean"),
        (["steps"], "'steps' is not key=value"),
        (["steps.x=1"], "steps is a value, not a table"),
        (["optimiser.kind=adamw", "optimiser.rate=-1"], "AdamW.rate=-1.0 should be a number above 0"),
        (["zzz=1"], "zzz is no setting; choose from steps, optimiser"),
    ],
)
def test_what_cannot_be_read(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        filled(Loop, with_changes({"steps": 5}, changes))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"loop\.steps is missing"):
        filled(Loop, {}, "loop")


@pytest.mark.parametrize("text", ["steps = ", "steps = 5\nsteps = 6", "\x00"])
def test_a_file_that_is_not_toml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not TOML: "):
        read_toml(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="folder"):
        read_toml(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "latin.toml")
