"""Going on with a run: what may change is written down, what may not is refused, what is damaged is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clearhead.api import resuming
from clearhead.api.training import Run, read_recipe
from clearhead.errors import ClearheadError, TrainingError
from clearhead.train import state
from tests.api.verses import contents, laid_out

pytestmark = pytest.mark.usefixtures("as_a_user")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe, its text, its cache and a run that was stopped after the checkpoint of step 2."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CLEARHEAD_CACHE", str(folder / "cache"))
        laid_out(folder)
        for event in Run(read_recipe(Path("verses.toml"), []), Path("run")).go():
            if event.saved is not None:
                break
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, looked at from another folder."""
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return Path("run")


def going_on(run: Path, *changes: str, said: list[str] | None = None) -> Run:
    return Run(
        read_recipe(run / "run.json", list(changes)), run, resume=True, say=(said if said is not None else []).append
    )


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def test_a_run_goes_on_from_any_folder_and_its_changes_are_kept(run: Path, made: Path) -> None:
    assert record(run)["recipe"]["data"]["source"]["paths"] == [str(made / "verses.txt")]
    said: list[str] = []
    again = going_on(run, "loop.steps=5", "loop.optimiser.rate=1e-4", "samples.prompts=the old", said=said)
    assert "changes" not in record(run)  # not before a step was taken
    next(again.go())
    assert "from here on loop.steps = 5; it was 4" in said
    assert "from here on samples.prompts = ['the old']; it was []" in said
    told = record(run)
    assert told["recipe"]["loop"]["steps"] == 5
    changed = {"loop.steps": [4, 5], "loop.optimiser.rate": [0.001, 0.0001], "samples.prompts": [[], ["the old"]]}
    assert told["changes"] == [{"after": 2, **changed}]
    once_more = going_on(run, said=said)  # as `--resume RUN` does: nothing need be said again
    assert once_more.recipe.loop.steps == 5 and not once_more.changes
    assert [event.step.step for event in once_more.go()][-1] == 4
    assert len(record(run)["changes"]) == 1
    assert not list(run.glob(".*"))


def test_text_that_has_changed_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("the old cat sat on the hat.\n" * 40)
    said: list[str] = []
    going_on(run, "data.source.paths=other.txt", said=said)
    assert "the data is not what the run began with; from here on it is read as it is now" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "model.d_model=32",
            "model.d_model=32 cannot be gone on with: run/step-00000002 has 16, and the weights are of",
        ),
        (
            "model.kind=llama",
            "model.kind=llama cannot be gone on with: run/step-00000002 has gpt2, and the weights are",
        ),
        (
            "loop.optimiser.kind=muon",
            "loop.optimiser.kind=muon cannot be gone on with: run/step-00000002 has adamw, and",
        ),
        (
            "batch=8",
            "batch=8 cannot be gone on with: run/step-00000002 has 4, and it decides which rows a step reads; leave",
        ),
        ("loop.seed=1", "loop.seed=1 cannot be gone on with"),
        ("data.packing.length=8", "data.packing.length=8 cannot be gone on with"),
        ("data.held_out=0.2", "data.held_out=0.2 cannot be gone on with"),
        ("adapters.kind=lora", "adapters.kind=lora cannot be gone on with"),
        ("tokenizer.learn=byte", "tokenizer.learn=byte cannot be gone on with"),
        ("loop.steps=1", "run has taken 2 steps already, and loop.steps=1 asks for fewer"),
    ],
)
def test_what_cannot_change_on_the_way(run: Path, change: str, said: str) -> None:
    before = contents(run)
    with pytest.raises(ClearheadError) as caught:
        going_on(run, change)
    assert said in str(caught.value), caught.value
    assert contents(run) == before


def test_the_newest_that_is_whole_is_gone_on_from_and_none_is_refused(run: Path) -> None:
    going_on(run)
    list(going_on(run).go())
    assert [path.name for path in state.checkpoints(run)] == ["step-00000002", "step-00000004"]
    (run / "step-00000004" / "model.safetensors").write_bytes(b"")
    said: list[str] = []
    assert going_on(run, said=said).done == 2
    assert "step-00000004 is passed over: model.safetensors is not as long as it was written" in said
    (run / "step-00000002" / "state.json").unlink()
    before = contents(run)
    with pytest.raises(TrainingError) as caught:
        going_on(run)
    told = str(caught.value)
    assert "run has no checkpoint that is whole: step-00000004" in told and "step-00000002" in told
    assert "remove them to begin again at step 0" in told
    assert contents(run) == before
    for path in state.checkpoints(run):
        shutil.rmtree(path)
    again = going_on(run, said=said)
    assert again.done == 0 and "run was stopped before its first checkpoint; it begins again at step 0" in said


def test_a_finished_run(run: Path, tmp_path: Path) -> None:
    recipe = read_recipe(run / "run.json", [])
    assert resuming.finished(run, recipe) is None
    one = going_on(run)
    list(one.go())
    assert resuming.finished(run, recipe) is None  # its model is not written yet
    model = one.finish()
    assert resuming.finished(run, recipe) == model
    assert resuming.finished(run, read_recipe(run / "run.json", ["loop.steps=9"])) is None
    further = going_on(run, "loop.steps=6")
    list(further.go())  # killed before its model is written: what lies there is of step 4
    longer = read_recipe(run / "run.json", [])
    assert (run / "model" / "config.json").is_file() and resuming.finished(run, longer) is None
    assert further.finish() == resuming.finished(run, longer)
    assert record(run)["exported"] == 6 and record(run)["recipe"]["loop"]["steps"] == 6


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_a_stream_through_the_library_goes_on_wherever_one_stands(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What was named from the folder of then is the same by its whole path; another file is another stream."""
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library")
    monkeypatch.chdir(tmp_path)
    rows = datasets.Dataset.from_dict({"text": [f"the old cat and {n} hats, sat on a mat" for n in range(40)]})
    (tmp_path / "data").mkdir()
    rows.to_parquet("data/a.parquet")
    named = 'paths = ["data"]' if kind == "parquet" else 'name = "data"'
    changes = [f'data.source={{ kind = "{kind}", {named} }}', "data.packing.kind=blocks", "data.stream=true"]
    changes += ["evaluation.batches=0", "loop.save_every=1"]
    for event in Run(read_recipe(made / "verses.toml", changes), Path("run")).go():
        if event.saved is not None:
            break
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = going_on(Path("../run"))
    assert again.done == 1 and len(list(again.go())) == 3
    rows.select(range(39)).to_parquet("../data/a.parquet")
    with pytest.raises(TrainingError, match="the stream is not the one that was saved"):
        going_on(Path("../run"), "loop.steps=5")


@pytest.mark.parametrize("text", [None, "", "[]", '{"recipe": 3}'])
def test_what_is_no_record(run: Path, text: str | None) -> None:
    (run / "run.json").unlink()
    if text is not None:
        (run / "run.json").write_text(text)
    with pytest.raises(TrainingError, match="is not what a run wrote"):
        read_recipe(run / "run.json", [])


def test_a_run_that_is_not_there(run: Path) -> None:
    for name, said in {
        "rum": "there is no run rum; did you mean run?",
        "zzz/nosuch": "there is no run zzz/nosuch; looked in ",
        "run/step-00000002": "run/step-00000002 is a part of a run; give the run's folder, run.",
    }.items():
        with pytest.raises(TrainingError) as caught:
            read_recipe(Path(name) / "run.json", [])
        assert said in str(caught.value), caught.value
