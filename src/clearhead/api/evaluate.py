"""Evaluating: how good a model is on some data, by the measures of its task; or a run, on what it held out.

What the task is follows from the model's head, and how files are read from their names (`sources.py`); both can be
said. `measuring.py` takes the measures. Nothing is written to the disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearhead.api import Loaded, load, sources
from clearhead.api.measuring import Evaluated, batched, causal, written
from clearhead.api.recipe import Data
from clearhead.api.sources import Reading, Task
from clearhead.errors import ConfigError, InputError
from clearhead.model.config import (
    Head,
    LanguageModel,
    MaskedLanguageModel,
    ModelConfig,
    SequenceClassification,
    TokenClassification,
)
from clearhead.train import recipe as recipes
from clearhead.train.data.readers import GivenRows
from clearhead.train.data.rows import Source


def evaluate(
    model: Loaded | str | Path,
    data: str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]] | None = None,
    reading: Reading | None = None,
    *,
    stride: int | None = None,
    context: int | None = None,
    num_beams: int | None = None,
    head: str | None = None,
    pickle: bool = False,
    **how: Any,
) -> Evaluated:
    """How good `model` is on `data`, by the measures of its task; of a run's folder, on the rows that it held out.

    data: files, folders, or rows as a list of dicts. reading: how they are read; how: its settings by name, such as
    label="stars" (`sources.Reading` has them all). The task is what the model's head does. stride, context: of a causal
    model's windows. num_beams: how a translator writes. head, pickle: as `clearhead.load` takes them.

    Raises InputError where the model has no such task or the data no such column; MissingDependencyError where a
    measure's library is not installed; what models and data raise.
    """
    begun = time.perf_counter()
    reading = Reading.of(reading, how)
    windows = {"stride": stride, "context": context, "num_beams": num_beams}
    if data is None:
        from clearhead.api.held_out import evaluate_run

        given = [*reading.said, *(name for name, value in windows.items() if value is not None)]
        if isinstance(model, Loaded) or given:
            what = (
                f"{given[0]} was given" if given else f"{model.name if isinstance(model, Loaded) else model} is a model"
            )
            raise InputError(f"{what}, and no data; name files to evaluate on, or a run's folder alone.")
        found = evaluate_run(Path(model))
    else:
        lm = model if isinstance(model, Loaded) else load(model, head=head, pickle=pickle)
        chosen = _task(lm, reading.task)
        for name, only in (("stride", "causal"), ("context", "causal"), ("num_beams", "sequence-to-sequence")):
            if windows[name] is not None and not chosen.startswith(only):
                raise InputError(f"{name} is of {only} models, and {lm.name} is evaluated as {chosen}; leave it out.")
        read, told = _data(lm, data, chosen, reading)
        match chosen:
            case "causal-language-model":
                found = causal(lm, read, stride, context)
            case "sequence-to-sequence":
                found = written(lm, read, num_beams)
            case _:
                found = batched(lm, read, chosen)
        notes = [f"{lm.name}: {note}" for note in lm.pretrained.report.notes if "drawn anew" in note]
        found = replace(found, notes=(*notes, *told, *found.notes))
    return replace(found, facts={**found.facts, "seconds": round(time.perf_counter() - begun, 2)})


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def _task(lm: Loaded, task: str | None) -> Task:
    """The task of the model's head. Raises InputError for a head that has none, and where another was asked for."""
    own = task_of_head(lm.config.head, lm.config)
    if own is None:
        raise InputError(
            f"{lm.name} has no head whose task can be measured (it gives vectors); fine-tune it first with "
            "clearhead finetune, or load it with another head."
        )
    if task is not None and task != own:
        raise InputError(f"{lm.name} has the head of a {own}, and {task} was asked for; load it with another head.")
    return own


def task_of_head(head: Head | None, config: ModelConfig) -> Task | None:
    """What a head is for; None for vectors."""
    match head:
        case SequenceClassification():
            return "sequence-classification"
        case TokenClassification():
            return "token-classification"
        case MaskedLanguageModel():
            return "masked-language-model"
        case LanguageModel() if config.architecture == "encoder-decoder":
            return "sequence-to-sequence"
        case LanguageModel():
            return "masked-language-model" if config.architecture == "encoder" else "causal-language-model"
    return None


def _data(
    lm: Loaded,
    data: str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]],
    task: Task,
    reading: Reading,
) -> tuple[Data, list[str]]:
    """How the data is read, and what was chosen on the way: columns that were not named."""
    items = [data] if isinstance(data, str | Path) else list(data)
    given = bool(items) and all(isinstance(one, Mapping) for one in items)
    if not given and not all(isinstance(one, str | Path) for one in items):
        raise InputError("data is neither files nor rows; give paths, or a list of dicts.")
    rows: Source | None = GivenRows([one for one in items if isinstance(one, Mapping)]) if given else None
    table = {} if given else sources.source_table([str(one) for one in items], replace(reading, task=task))
    tables = recipes.with_changes({"data": {"source": table}}, reading.changes)["data"]
    if rows is None:
        rows = recipes.filled(Data, {**tables, "encoder": {"kind": "text"}}, "data").source
    first = sources.first_row(rows)
    usual = sources.encoder_table(task, first, reading.roles)
    labels = getattr(lm.config.head, "labels", None)
    if usual["kind"] == "labelled" and labels is not None and len(labels) == 1:
        usual = {
            **{key: value for key, value in usual.items() if key != "label"},
            "kind": "scored",
            "score": usual["label"],
        }
    elif usual["kind"] in ("labelled", "tagged"):
        usual["labels"] = list(labels or ())
    if usual["kind"] in ("labelled", "tagged", "scored"):
        usual["longest"] = lm.config.context
    chosen = {role: usual[role] for role in ("text", "label", "tokens", "tags", "source", "target") if role in usual}
    told = [
        f"the {role} is column {name!r}" for role, name in chosen.items() if role not in reading.roles and name != role
    ]
    told = [] if usual.get("nested") else told
    asked = tables.get("encoder", {})
    if asked.get("kind", usual["kind"]) != usual["kind"]:
        raise ConfigError(f"data.encoder.kind is {usual['kind']!r} for a {task}; leave it out.")
    encoder = {**usual, **asked}
    here = {"source": {"kind": "text-files", "paths": []} if given else tables["source"], "encoder": encoder}
    if strange := [key for key in tables if key not in here]:
        raise ConfigError(f"data.{strange[0]} has no say here; change data.source and data.encoder.")
    filled = recipes.filled(Data, here, "data")
    return (replace(filled, source=rows) if given else filled), told  # type: ignore[arg-type]
