"""Recipes: tables become dataclasses; what is unknown or of the wrong type is refused with the nearest name."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        (["schedule.zzz=1"], "schedule.zzz is no setting; choose from warmup, decay, floor."),
        (
            ["optimiser.kind=muon", "optimiser.eps=1"],
            "optimiser.eps is a setting of 'adamw', and optimiser.kind is 'muon'",
        ),
        (
            ["schedule.kind=warmup-stable"],
            "schedule.kind='warmup-stable' is not a choice; did you mean 'warmup-stable-decay'?",
        ),
        (["schedule.kind=zzz"], "choose from 'constant', 'cosine', 'warmup-stable-decay', 'inverse-square-root'."),
        (["optimiser.kind=adamw", "optimiser.beta=1"], "optimiser.beta is no setting; did you mean 'betas'?"),
        (["optimiser.kind=adamw", "optimiser.betas=[0.1]"], "optimiser.betas=[0.1] should be a list of 2"),
        (["optimiser=3"], "optimiser=3 should be a table"),
        (["precision=float16"], "precision='float16' is not a choice; did you mean"),
        (["steps"], "'steps' is not key=value"),
        (["steps.x=1"], "steps is a value, not a table"),
        (["optimiser.kind=adamw", "optimiser.rate=-1"], "optimiser.rate=-1.0 should be a number above 0"),
        (["steps=0"], "steps=0 should be 1 or more"),
        (["steps=1000000000000000000000000000000"], "steps=a number of 31 digits should be 1 or more (10^12 at most)"),
        (["clip=nan"], "clip=nan should be above 0, or 'none' for no clipping"),
        (["seed=18446744073709551616"], "seed=18446744073709551616 should be 0 or more, and below 2^63"),
        (["seed=-1"], "seed=-1 should be 0 or more"),
        (["schedule.warmup=-1"], "schedule.warmup=-1 should be a number of steps"),
        (["zzz=1"], "zzz is no setting; choose from steps, optimiser"),
    ],
)
def test_what_cannot_be_read(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        filled(Loop, with_changes({"steps": 5}, changes))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_without_a_kind_is_of_the_default() -> None:
    """And so is what it does not say."""
    changed = with_changes({"steps": 5}, ["schedule.floor=0.3", "clip=none"])
    usual = Loop(steps=5).schedule
    assert filled(Loop, changed) == Loop(steps=5, schedule=replace(usual, floor=0.3), clip=None)  # type: ignore[type-var]


def test_of_another_kind_what_both_have_stays() -> None:
    tables = {"steps": 5, "optimiser": {"kind": "muon", "rate": 0.02, "momentum": 0.9, "others": {"rate": 0.01}}}
    assert filled(Loop, with_changes(tables, ["optimiser.kind=adamw"])).optimiser == AdamW(rate=0.02)
    with pytest.raises(
        ConfigError, match=r"optimiser\.momentum is a setting of 'muon', and optimiser\.kind is 'adamw'"
    ):
        filled(Loop, with_changes(tables, ["optimiser.kind=adamw", "optimiser.momentum=0.8"]))
    assert filled(Loop, with_changes(tables, ["optimiser.kind=Muon"])).optimiser == filled(Loop, tables).optimiser


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """A kind without settings."""


@dataclass(frozen=True, kw_only=True)
class Some:
    """Words, and one choice of two without a default."""

    what: Nothing | AdamW
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "" in self.words:
            raise ConfigError("words is empty somewhere.")


def test_kinds_without_settings_or_default_and_lists_of_one() -> None:
    assert filled(Some, {"what": "nothing", "words": "book.txt"}).words == ("book.txt",)
    for table, said in (
        ({"what": {"kind": "nothing", "zzz": 1}}, "part.what.zzz is no setting; 'nothing' has none."),
        ({"what": {"rate": 1.0}}, "part.what.kind is missing; choose from 'nothing', 'adamw'."),
        ({"what": "nothing", "words": [""]}, "part.words is empty somewhere."),
        ({"what": "nothing", "words": 3}, "part.words=3 should be a list"),
    ):
        with pytest.raises(ConfigError) as caught:
            filled(Some, table, "part")
        assert str(caught.value).startswith(said)


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
    with pytest.raises(ConfigError, match=rf"no recipe {tmp_path}/none.toml; looked in {tmp_path}"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "shakespeare.toml").touch()
    with pytest.raises(ConfigError, match=rf"no recipe .*; did you mean {tmp_path}/shakespeare.toml"):
        read_toml(tmp_path / "shakespear.toml")
    with pytest.raises(ConfigError, match="folder"):
        read_toml(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "latin.toml")
