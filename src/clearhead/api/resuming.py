"""Going on: what is known of a run that was begun, and which of its settings may change on the way.

A checkpoint holds the weights, the optimiser's moments and the step; the step says which rows come next. So the model,
the optimiser's kind, the tokenizer and what decides the rows stay as they are. The rest may change (how long, how fast,
how often it is saved); a change is written into run.json, so that it need not be said again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from clearhead._disk import put_text
from clearhead.api.recipe import Checkpoint, KnownTokenizer, Recipe, Recurrent, RecurrentTranslator
from clearhead.errors import ClearheadError, ConfigError, TrainingError
from clearhead.train import recipe as recipes
from clearhead.train import state
from clearhead.train.distributed import Processes, job, restarted
from clearhead.train.trackers import TensorBoard

RECORD = "run.json"

MAY = re.compile(
    r"data\.source\.(paths|source|target|name)|data\.validation\..+|data\.stream|(model|adapters)\.dropout|"
    r"(model|tokenizer)\.name"
)
"""Of what is fixed below, these may change: where the data lies, what is only evaluated on, what has no weights; and
whether it is streamed, which the state of the stream itself refuses."""

FIXED = {
    "model": "the weights are of that shape",
    "adapters": "the weights are of that shape",
    "tokenizer": "the weights know its ids",
    "objective.kind": "the weights learn that",
    "loop.optimiser.kind": "its moments are kept with the weights",
    "loop.seed": "it decides which rows a step reads",
    "data": "it decides which rows a step reads",
    "batch": "it decides which rows a step reads",
    "batch_tokens": "it decides which rows a step reads",
}
"""Settings, or tables of them, that stay as they are, and why."""

Change = tuple[Any, Any]


def record(folder: Path) -> dict[str, Any]:
    """What a run wrote down when it began: RUN/run.json. Raises TrainingError where there is none, or it is damaged."""
    path = folder / RECORD
    if not folder.exists():
        runs = [str(each.parent) for each in folder.parent.glob(f"*/{RECORD}")] if folder.parent.is_dir() else []
        near = get_close_matches(str(folder), runs, n=1)
        hint = f"did you mean {near[0]}?" if near else f"looked in {folder.parent.resolve()}."
        raise TrainingError(f"there is no run {folder}; {hint}")
    if (folder.parent / RECORD).is_file() and not path.exists():
        raise TrainingError(f"{folder} is a part of a run; give the run's folder, {folder.parent}.")
    try:
        told = json.loads(path.read_text("utf-8"))
        if isinstance(told["recipe"], dict):
            return dict(told)
    except FileNotFoundError:
        raise TrainingError(f"{folder} has no {RECORD}, so it is not what a run wrote; give a run's folder.") from None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise TrainingError(f"{path} is not what a run wrote; give a run's folder, or begin again from the recipe.")


def settled(recipe: Recipe) -> Recipe:
    """The recipe with the paths in full: a run goes on wherever one stands when it is resumed."""

    def full(name: str) -> str:
        path = Path(name).expanduser()
        return str(path.absolute()) if path.exists() else name

    def whole(source: Any) -> Any:
        if not is_dataclass(source) or isinstance(source, type):
            return source
        names = {key: getattr(source, key) for key in ("source", "target", "name") if hasattr(source, key)}
        found: dict[str, Any] = {key: full(value) for key, value in names.items() if isinstance(value, str)}
        if isinstance(paths := getattr(source, "paths", None), tuple):
            found["paths"] = tuple(str(Path(path).expanduser().absolute()) for path in paths)
        return replace(source, **found)

    data = replace(recipe.data, source=whole(recipe.data.source), validation=whole(recipe.data.validation))
    model = whole(recipe.model) if isinstance(recipe.model, Checkpoint) else recipe.model
    tokenizer = whole(recipe.tokenizer) if isinstance(recipe.tokenizer, KnownTokenizer) else recipe.tokenizer
    tracker = recipe.tracker
    if isinstance(tracker, TensorBoard) and tracker.folder is not None:
        tracker = replace(tracker, folder=str(Path(tracker.folder).expanduser().absolute()))
    return replace(recipe, data=data, model=model, tokenizer=tokenizer, tracker=tracker)


def recipe_of(told: Mapping[str, Any]) -> Recipe:
    """The recipe in a run's record."""
    return recipes.filled(Recipe, {key: value for key, value in told["recipe"].items() if key != "kind"})


def going_on(
    folder: Path, recipe: Recipe, processes: Processes, *, resume: bool, say: Callable[[str], None]
) -> tuple[Path | None, Mapping[str, Change]]:
    """The checkpoint that a run goes on from, if any, the same in every process; and, in the first one, what is other
    than when the run was begun, or last gone on with, by the recipe's keys.

    What torchrun starts again goes on by itself, with the very same recipe only. Raises TrainingError for a run that is
    not to be gone on with, or cannot be; ConfigError for a change that it does not allow.
    """
    held, again = processes.agreed((bool(state.checkpoints(folder)), restarted() or _same_job(folder)))
    if held and not (resume or again):
        raise TrainingError(f"{folder} holds a run already; go on with --resume {folder}, or name another with --out.")
    if not (resume or again):
        return None, {}
    flaws: list[str] = []
    newest = state.newest(folder, flaws.append, processes)
    if newest is None and held:
        raise TrainingError(
            f"{folder} has no checkpoint that is whole: {'; '.join(flaws)}. Bring one back, or remove them to begin "
            "again at step 0."
        )
    for flaw in flaws:
        say(flaw)
    if newest is None:
        if (folder / RECORD).exists():
            say(f"{folder} was stopped before its first checkpoint; it begins again at step 0")
        return None, {}
    changes: Mapping[str, Change] = {}
    error: ClearheadError | None = None
    if processes.first:
        try:
            changes = allowed(folder, recipe, newest)
            if not resume and changes:  # what was started again is what was started, to the letter
                raise TrainingError(
                    f"{folder} holds a run already, of another recipe ({', '.join(changes)}); go on with --resume "
                    f"{folder}, or name another with --out."
                )
        except ClearheadError as refused:
            error = refused
    if (error := processes.agreed(error)) is not None:
        raise error
    return newest, changes


def _same_job(folder: Path) -> bool:
    """Whether this very job of torchrun's began the run: it starts all processes again when one dies, or joins."""
    if job() is None:
        return False
    try:
        return bool(record(folder).get("job") == job())
    except TrainingError:
        return False


def allowed(folder: Path, recipe: Recipe, checkpoint: Path) -> dict[str, Change]:
    """What is other than when the run in this folder was begun, or last gone on with: before and after, by key.

    Raises ConfigError for what cannot change on the way, TrainingError for fewer steps than the checkpoint has taken.
    """
    taken = step_of(checkpoint)
    if taken > recipe.loop.steps:
        raise TrainingError(
            f"{folder} has taken {taken:,} steps already, and loop.steps={recipe.loop.steps:,} asks for fewer; "
            f"give more, or remove its newest checkpoint, {checkpoint.name}."
        )
    found = dict(_differences(recipes.told(recipe_of(record(folder))), recipes.told(settled(recipe))))
    for key, (before, after) in found.items():
        why = next((why for fixed, why in FIXED.items() if key == fixed or key.startswith(f"{fixed}.")), None)
        if why is not None and not MAY.fullmatch(key):
            raise ConfigError(
                f"{key}={shown(after)} cannot be gone on with: {checkpoint} has {shown(before)}, and {why}; leave it "
                "out, or begin another run."
            )
    return found


def _differences(before: Any, after: Any, where: str = "") -> Iterator[tuple[str, Change]]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            yield where, (before, after)
    elif before.get("kind") != after.get("kind"):
        yield f"{where}.kind", (recipes.spelled(before["kind"]), recipes.spelled(after["kind"]))
    else:
        for key in {**before, **after}:
            if key != "kind":
                yield from _differences(before.get(key), after.get(key), f"{where}.{key}" if where else key)


def shown(value: Any) -> str:
    """A value of a recipe, on part of a line."""
    if isinstance(value, dict) and "kind" in value:
        value = recipes.spelled(value["kind"])
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return "none" if value is None else text if len(text) <= 60 else f"{text[:57]}…"


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """Write a run's record, whole or not at all. Raises TrainingError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        put_text(json.dumps(told, indent=1, default=str) + "\n", folder / RECORD)
    except OSError as error:
        raise TrainingError(f"{folder / RECORD} cannot be written: {error.strerror or error}.") from None


def changed(folder: Path, recipe: Recipe, found: Mapping[str, Change], step: int) -> dict[str, Any]:
    """The run's record after these changes, which hold from `step` on."""
    told = record(folder)
    entry = {"after": step, **{key: list(change) for key, change in found.items()}}
    return {**told, "recipe": recipes.told(settled(recipe)), "changes": [*told.get("changes", []), entry]}


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def step_of(checkpoint: Path) -> int:
    """How many steps were taken before it was written: its name says so."""
    return int(checkpoint.name.removeprefix("step-"))


def finished(folder: Path, recipe: Recipe) -> Path | None:
    """What the run has written in the end, if all of its steps are taken: RUN/model, or RUN where there is no such
    layout; None while it goes on."""
    last = max(map(step_of, state.checkpoints(folder)), default=0)
    if last != recipe.loop.steps:
        return None
    if isinstance(recipe.model, Recurrent | RecurrentTranslator):
        return folder.resolve()
    written = record(folder).get("exported") == last and (folder / "model" / "config.json").is_file()
    return folder.resolve() / "model" if written else None
