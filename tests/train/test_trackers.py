"""Trackers: the journal's numbers, each step once, whatever was killed; a package that is missing is named at once."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clearhead.errors import ConfigError, MissingDependencyError, TrainingError
from clearhead.train import trackers
from clearhead.train.journal import Journal, read
from clearhead.train.trackers import NAMES, TensorBoard, Wandb

has_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def write(journal: Journal, steps: range, factor: float = 1.0) -> None:
    for step in steps:
        more = {"validation_loss": 6 / (step + 1), "spike": "odd"} if step % 5 == 4 else {}
        journal.write(step, loss=factor * 5 / (step + 1), rate=1e-3, tokens=step * 8, **more)


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads from the event files, by the journal's own names."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=False, size_guidance={"scalars": 0})
    events.Reload()
    return {
        key: [(each.step, each.value) for each in events.Scalars(name)]
        for key, name in NAMES.items()
        if name in events.Tags()["scalars"]
    }


def journal_says(run: Path) -> dict[str, list[tuple[int, float]]]:
    lines = read(run)
    found = {key: [(line["step"], line[key]) for line in lines if key in line] for key in NAMES}
    return {key: [(step, pytest.approx(value)) for step, value in each] for key, each in found.items() if each}


@has_tensorboard
def test_tensorboard_shows_the_journal_each_step_once(tmp_path: Path) -> None:
    first = Journal(tmp_path, tracker=TensorBoard())
    write(first, range(12), factor=2.0)
    first.tracker._writer.flush()  # type: ignore[union-attr]  # a dead process writes nothing more
    (other := tmp_path / "tensorboard" / "mine.txt").write_text("left alone")
    again = Journal(tmp_path, 8, TensorBoard())  # the first was killed, and never closed
    write(again, range(8, 20))
    again.close()
    found = shown(tmp_path / "tensorboard")
    assert found == journal_says(tmp_path) and [step for step, _ in found["loss"]] == list(range(20))
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1 and other.exists()
    first.close()


@has_tensorboard
def test_a_run_that_is_resumed_is_shown_once_as_its_journal_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearhead.api.training import Run, read_recipe
    from tests.api.test_training import recipe

    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    for event in Run(recipe(tmp_path, "tracker=tensorboard"), folder).go():
        if event.step.step == 5:
            break
    again = Run(read_recipe(folder / "run.json", []), folder, resume=True)
    list(again.go())
    again.finish()
    assert shown(folder / "tensorboard") == journal_says(folder)


@has_tensorboard
def test_runs_that_share_a_folder_keep_what_is_theirs(tmp_path: Path) -> None:
    """Also two of one name, and one that begins anew in the place of another."""
    shared = TensorBoard(folder=str(tmp_path / "shared"))
    runs = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    for factor, run in enumerate(runs, start=1):
        write(journal := Journal(run, tracker=shared), range(12), factor=factor)
        journal.close()
    write(again := Journal(runs[0], 8, shared), range(8, 20))
    again.close()
    folders = {run: tmp_path / "shared" / f"run-{(run / 'tensorboard-id').read_text().strip()}" for run in runs}
    assert sorted((tmp_path / "shared").iterdir()) == sorted(folders.values())
    assert all(shown(folder) == journal_says(run) for run, folder in folders.items())
    anew = Journal(runs[1], tracker=shared)
    anew.close()
    assert len(list((tmp_path / "shared").iterdir())) == 3 and shown(folders[runs[0]]) == journal_says(runs[0])


class Stand:
    """What we use of wandb, by the names of its version 0.31.0, and what it was given; anything else is refused. A run
    of one id is gone on with."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(
        self,
        *,
        entity: str | None = None,
        project: str | None = None,
        dir: str | None = None,
        id: str | None = None,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        mode: str | None = None,
        resume: str | None = None,
    ) -> Any:
        told = {"entity": entity, "project": project, "dir": dir, "id": id, "name": name, "config": config}
        self.begun.append({**told, "mode": mode, "resume": resume})
        return self

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.logged.append((step, data))

    def finish(self) -> None:
        self.finished += 1


def test_the_stand_takes_what_wandb_takes() -> None:
    """Where it is installed. By hand, offline, 0.31.0 had 20 steps once each, 12 of them told before a stop at 8."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    for own, real in ((Stand.init, wandb.init), (Stand.log, wandb.Run.log), (Stand.finish, wandb.Run.finish)):
        names = set(inspect.signature(own).parameters) - {"self"}
        assert names <= inspect.signature(real).parameters.keys()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """In the place of wandb, which reaches for a server and keeps processes."""
    stand = Stand()
    module = SimpleNamespace(init=stand.init, __spec__=SimpleNamespace(name="wandb"))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return stand


def test_wandb_is_told_each_step_once(tmp_path: Path, stand: Stand) -> None:
    choice = Wandb(project="verses", mode="offline")
    run = tmp_path / "run"
    write(Journal(run, tracker=choice, about={"recipe": {"batch": 8}}), range(12))
    write(again := Journal(run, 8, choice), range(8, 20))
    again.close()
    assert [step for step, _ in stand.logged] == list(range(20)) and stand.finished == 1
    assert stand.logged[4][1] == {
        NAMES["loss"]: 1.0, NAMES["rate"]: 1e-3, NAMES["tokens"]: 32, NAMES["validation_loss"]: 1.2
    }  # fmt: skip
    first, second = stand.begun
    assert first["id"] == second["id"] == (run / "wandb-id").read_text().strip() and second["resume"] == "allow"
    assert first["config"] == {"recipe": {"batch": 8}} and (first["name"], first["project"]) == ("run", "verses")
    write(Journal(run, tracker=choice), range(2))  # a new run in its place
    assert stand.begun[2]["id"] != first["id"] and [step for step, _ in stand.logged[20:]] == [0, 1]


def test_a_tracker_that_cannot_be_begun(tmp_path: Path, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("api_key not configured\n(no-tty)")

    monkeypatch.setattr(sys.modules["wandb"], "init", broken)
    with pytest.raises(TrainingError, match=r"tracker = 'wandb' cannot be begun: api_key not configured \(no-tty\)"):
        Journal(tmp_path, tracker=Wandb())


@pytest.mark.parametrize(("choice", "package"), [(TensorBoard(), "tensorboard"), (Wandb(), "wandb")])
def test_a_package_that_is_missing_is_named(
    choice: trackers.Choice, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'clearhead\[{package}\]'"):
        trackers.check(choice)
    trackers.check(None)


def test_in_a_recipe(tmp_path: Path) -> None:
    from tests.api.test_training import recipe

    assert recipe(tmp_path, "tracker=tensorboard").tracker == TensorBoard()
    assert recipe(tmp_path, "tracker.kind=wandb", "tracker.mode=offline").tracker == Wandb(mode="offline")
    with pytest.raises(ConfigError, match=r"did you mean 'tensor-?board'"):
        recipe(tmp_path, "tracker=tensorbord")
