"""Fine-tuning: a trained model, some data and a task in; a recipe out, the one that `clearhead train` would be given.

The data is read once, to find its columns, its labels and its size; everything else is a usual value that the recipe
shows and key=value changes. Labels are put in an order that does not depend on the rows' own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from clearhead.api import Loaded, load, sources
from clearhead.api.evaluate import task_of_head
from clearhead.api.feeding import divided, order_of
from clearhead.api.fitting import check
from clearhead.api.recipe import Data, Recipe
from clearhead.api.sources import Reading, Table
from clearhead.api.training import Run
from clearhead.api.written import as_toml
from clearhead.checkpoint.planned import examine
from clearhead.errors import ConfigError, InputError
from clearhead.model.block import Block
from clearhead.model.config import ModelConfig
from clearhead.text import Tokenizer
from clearhead.train import recipe as recipes
from clearhead.train.data.encoders import Translation, value_of
from clearhead.train.data.order import ByLength
from clearhead.train.data.packing import Rows, Windows, packed
from clearhead.train.data.prepare import prepared

ALONE = re.compile(r"(loop\.optimiser)\s*=\s*['\"]?(adamw|muon)['\"]?\s*", re.IGNORECASE)
"""An optimiser by its name alone: it is as gentle as the one in whose place it is, not as one for new weights."""
BATCH = 32
EPOCHS = 3.0
HELD_OUT = 0.1
LONGEST = 512
"""Tokens of a row, where the model would read more."""
MOST_LABELS = 1000
RATES = {False: 5e-5, True: 1e-3}
"""Of AdamW, for all weights and for companions (Devlin et al. 2019, §A.3; Hu et al. 2022, table 9)."""


@dataclass(frozen=True)
class Written:
    """A recipe that was written for somebody, and what they should be told of how it came about."""

    recipe: Recipe
    notes: tuple[str, ...]

    def toml(self, opening: str = "") -> str:
        """The recipe as a file. opening: a comment before it."""
        return as_toml(self.recipe, opening)


def finetune(
    model: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    reading: Reading | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    **how: Any,
) -> Loaded:
    """Train `model` further on `data` and give what it has become, which lies in OUT/model.

    out: the run's folder; OUT/recipe.toml says what was done. say: is given the lines that a person should see once.
    reading, how: what `recipe_for` takes: how the data is read, validation, lora, epochs.

    Raises what `recipe_for` and training raise.
    """
    written = recipe_for(model, data, reading, **how)
    for note in written.notes:
        say(note)
    run = Run(written.recipe, Path(out), say=say)
    for _ in run.go():
        pass
    (Path(out) / "recipe.toml").write_text(written.toml(), "utf-8")
    folder = run.finish()
    assert folder is not None  # a checkpoint's kind of model has a layout
    return load(folder)


def recipe_for(
    model: str | Path,
    data: str | Path | Sequence[str | Path],
    reading: Reading | None = None,
    *,
    validation: str | Path | Sequence[str | Path] | None = None,
    lora: bool = False,
    epochs: float | int = EPOCHS,
    **how: Any,
) -> Written:
    """The recipe that fine-tunes `model` on `data`.

    reading: how the data is read; how: its settings by name, such as label="stars" (`sources.Reading` has them all).
    Without a task it is what the data's columns are for, or else the model's head; changes may be of the whole recipe.
    validation: files to be evaluated on; without them, the last tenth of the data. lora: train small companions of
    frozen weights. epochs: how often each row is seen.

    Raises InputError where the data does not say what the task needs, ConfigError for a change that is none; what
    models and data raise.
    """
    if not 0 < epochs < math.inf:
        raise InputError(f"epochs={epochs} should be above 0: how often each row is seen.")
    reading = Reading.of(reading, how)
    changes = [ALONE.sub(r"\1.kind=\2", one) for one in reading.changes]
    examined = examine(str(model))
    if examined.planned is None:
        assert examined.refused is not None
        raise examined.refused
    config = examined.planned.config
    paths, others = _paths(data), _paths(validation) if validation is not None else []
    table = sources.source_table(paths, reading)
    told = recipes.with_changes({"data": {"source": table}}, [one for one in changes if one.startswith("data.source")])
    read = recipes.filled(Data, {"source": told["data"]["source"], "encoder": {"kind": "text"}}, "data")
    first = sources.first_row(read.source)
    chosen, why = _task(reading, first, config)
    encoder = sources.encoder_table(chosen, first, reading.roles)
    notes = [why] if reading.task is None else []
    if left := [name for name in first if name not in encoder.values()]:
        label = "; is one of them to be learned? Name it with --label" if encoder["kind"] == "text" else ""
        notes.append(f"columns that are not read: {', '.join(left)}{label}")
    part: Table = {"source": table, "encoder": encoder}
    if others:
        part["validation"] = sources.source_table(others, replace(reading, task=chosen))
    batch = BATCH
    if chosen in ("sequence-classification", "token-classification"):
        rows = _labelled(read, encoder, config, notes, held_out=0.0 if others else HELD_OUT)
        encoder["longest"] = min(config.context, LONGEST)
        part["by_length"] = True
    elif chosen == "sequence-to-sequence":
        sides = Translation(**{key: value for key, value in encoder.items() if key != "kind"})
        rows = sum(1 for _ in sources.texts(read.source, sides)) // 2
        encoder["longest"] = min(config.context, LONGEST)
        part["by_length"] = True
    else:
        rows = 0  # known when the text is tokenised
        part["packing"] = {"kind": "blocks", "length": min(config.context, LONGEST)}
        batch = 8
    tables: Table = {
        "batch": batch,
        "data": part,
        "model": {"kind": "checkpoint", "name": str(model)},
        "objective": {"kind": chosen},
        **({"adapters": _companions(examined.planned.model, chosen)} if lora else {}),
    }
    asked = recipes.with_changes(tables, changes)
    begun = _with_steps(1, tables, asked, changes, lora)
    check(begun)
    tokenised = None
    if not rows or begun.batch_tokens is not None:  # how many batches there are hangs on how long each row is
        tokenised = _tokenised(examined.source.tokenizer(), begun, str(model))
        rows = len(tokenised)
    tables["batch"] = min(batch, max(1, rows // 4))
    begun = _with_steps(1, tables, asked, changes, lora)
    steps = max(1, round(epochs * _steps_of_an_epoch(begun, rows, tokenised)))
    return Written(_with_steps(steps, tables, asked, changes, lora), tuple(notes))


def _with_steps(steps: int, tables: Table, asked: Table, changes: Sequence[str], lora: bool) -> Recipe:
    """The recipe of so many steps."""
    loop = {
        "steps": steps,
        "optimiser": _optimiser(asked, lora),
        "schedule": {"kind": "cosine", "warmup": max(1, steps // 10), "floor": 0.0},
        "save_every": max(1, steps // 3),
    }
    evaluation = {"every": max(1, steps // 6)}
    return recipes.filled(Recipe, recipes.with_changes({**tables, "loop": loop, "evaluation": evaluation}, changes))


def _tokenised(tokenizer: Tokenizer | None, recipe: Recipe, name: str) -> Rows:
    """The rows that will be learned from; the run finds their cache made."""
    if tokenizer is None:
        raise ConfigError(f"{name} has no tokenizer beside it, and training begins with one.")
    data = recipe.data
    cache = prepared(data.source, tokenizer, data.encoder, verify=False)  # the run reads it through
    return packed(cache, data.packing, ahead=recipe.objective.ahead)


def _steps_of_an_epoch(recipe: Recipe, rows: int, tokenised: Rows | None) -> float | int:
    """How many steps see each row once. Where rows of like length share a batch, none is shared with the next epoch; of
    windows, which overlap, as many make an epoch as lie side by side."""
    data = recipe.data
    if tokenised is not None and recipe.batch_tokens is not None:
        order = order_of(tokenised if data.validation is not None else divided(tokenised, data)[0], recipe)
        assert isinstance(order, ByLength)
        return order.n_batches(0)
    if isinstance(data.packing, Windows):
        rows = -(-rows // data.packing.length)
    learned = rows if data.validation is not None else round(rows * (1 - data.held_out))
    return -(-learned // recipe.batch) if data.by_length else learned / recipe.batch


def _optimiser(given: Table, lora: bool) -> Table:
    """A gentle AdamW; where Muon is asked for, Muon as gentle, with that AdamW for the others."""
    shared = {"rate": RATES[lora], "weight_decay": 0.0 if lora else 0.01}
    adam: Table = {**shared, "betas": [0.9, 0.999]}
    asked = given.get("loop", {})
    asked = asked.get("optimiser", {}) if isinstance(asked, dict) else {}
    if isinstance(asked, dict) and str(asked.get("kind")).lower() == "muon":
        return {"kind": "muon", **shared, "others": adam}
    return {"kind": "adamw", **adam}


def _paths(data: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(one) for one in ([data] if isinstance(data, str | Path) else data)]


def _task(reading: Reading, first: Mapping[str, Any], config: ModelConfig) -> tuple[str, str]:
    """The task, and why it is that."""
    if reading.task is not None:
        return reading.task, ""
    seen = sources.task_of(first, reading.roles)
    if seen is not None:
        return seen, f"the task is {seen}, as the data's columns say ({', '.join(first)})"
    own = task_of_head(config.head, config)
    if own in ("causal-language-model", "masked-language-model"):
        return own, f"the task is {own}: the data is text, and the model has that head"
    raise InputError(f"the data is text ({', '.join(first)}), which does not say what to learn; name it with --task.")


# ── what the data has ────────────────────────────────────────────────────────────────────────────────────────────────


def _labelled(data: Data, encoder: Table, config: ModelConfig, notes: list[str], *, held_out: float) -> int:
    """Put the labels that the data has into the encoder; the number of rows."""
    column = encoder["tags" if encoder["kind"] == "tagged" else "label"]
    seen: list[tuple[str, ...]] = []
    counts: Counter[str] = Counter()
    for found in sources.rows(data.source):
        value = value_of(found.row, column)
        labels = tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
        seen.append(labels)
        counts.update(labels)
        if len(counts) > MOST_LABELS:
            raise InputError(
                f"column {column!r} has more than {MOST_LABELS:,} different values, the last {labels[-1][:40]!r}: it "
                "is no label; name the right one with --label."
            )
    labels_only = list(counts)
    if encoder["kind"] == "labelled" and len(counts) > 20 and all(map(_is_measure, counts)):
        encoder.update(kind="scored", score=encoder.pop("label"))
        notes.append(f"column {column!r} has numbers, so the number itself is learned")
        return len(seen)
    if len(counts) < 2:
        raise InputError(
            f"column {column!r} has one value only, {labels_only[0][:40]!r}: there is nothing to tell apart."
        )
    known = getattr(config.head, "labels", ())
    encoder["labels"] = list(known) if set(counts) <= set(known) else sorted(counts, key=_order)
    shown = ", ".join(f"{label} {counts[label]:,}" for label in encoder["labels"][:12])
    notes.append(f"{len(encoder['labels'])} labels in {len(seen):,} rows: {shown}{' …' if len(counts) > 12 else ''}")
    cut = round(len(seen) * (1 - held_out))
    missing = {label for labels in seen[:cut] for label in labels} ^ {
        label for labels in seen[cut:] for label in labels
    }
    if held_out and missing and encoder["kind"] == "labelled":
        notes.append(
            f"the last {held_out:.0%} of the rows are held out, and these labels are not in both parts: "
            f"{', '.join(sorted(missing)[:4])}; shuffle the file, or give --validation"
        )
    return len(seen)


def _is_measure(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return not text.lstrip("-").isdecimal()


def _order(label: str) -> tuple[int, float, str, str]:
    """Numbers by their size; O first; then by name, `B-PER` beside `I-PER`."""
    if label == "O":
        return 0, 0.0, "", ""
    if label.lstrip("-").isdecimal():
        return 1, float(label), "", ""
    kind, _, name = label.partition("-") if label[:2] in ("B-", "I-", "E-", "S-", "L-", "U-") else ("", "", label)
    return 2, 0.0, name, kind


def _companions(model: nn.Module, task: str) -> Table:
    """LoRA on every linear map of the blocks (Dettmers et al. 2023, §4); a new head is trained whole."""
    targets = {
        name.rpartition(".")[2]
        for block in model.modules()
        if isinstance(block, Block)
        for name, each in block.named_modules()
        if isinstance(each, nn.Linear)
    }
    if not targets:
        raise InputError("this model has no linear maps in its blocks, which LoRA needs; leave --lora out.")
    own = task in ("sequence-classification", "token-classification")
    usual = ("q_proj", "k_proj", "v_proj", "o_proj", "gate", "up", "down")
    order = sorted(targets, key=lambda name: (usual.index(name) if name in usual else len(usual), name))
    return {"kind": "lora", "rank": 8, "scale": 16.0, "targets": order, "train": ["head"] if own else []}
