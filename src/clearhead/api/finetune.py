"""Fine-tuning: a trained model, some data and a task in; a recipe out, the one that `clearhead train` would be given.

The data is read once, to find its columns, its labels and its size; everything else is a usual value that the recipe
shows and key=value changes. Labels are put in an order that does not depend on the rows' own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from clearhead.api import Loaded, load, sources
from clearhead.api.evaluate import task_of_head
from clearhead.api.fitting import check
from clearhead.api.recipe import Data, Recipe
from clearhead.api.sources import Table, Task
from clearhead.api.training import Run
from clearhead.api.written import as_toml
from clearhead.checkpoint.planned import examine
from clearhead.errors import ConfigError, InputError, TrainingError
from clearhead.model.block import Block
from clearhead.model.config import ModelConfig
from clearhead.text import Tokenizer
from clearhead.train import recipe as recipes
from clearhead.train.data.encoders import text_of, value_of
from clearhead.train.data.prepare import prepared

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
    *,
    say: Callable[[str], None] = lambda _: None,
    **how: Any,
) -> Loaded:
    """Train `model` further on `data` and give what it has become, which lies in OUT/model.

    out: the run's folder; OUT/recipe.toml says what was done. say: is given the lines that a person should see once.
    how: what `recipe_for` takes: task, validation, lora, epochs, the names of columns, changes.

    Raises what `recipe_for` and training raise.
    """
    written = recipe_for(model, data, **how)
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
    *,
    task: Task | None = None,
    validation: str | Path | Sequence[str | Path] | None = None,
    lora: bool = False,
    epochs: float | int = EPOCHS,
    kind: str | None = None,
    columns: Sequence[str] | None = None,
    text: str | None = None,
    label: str | None = None,
    pair: str | None = None,
    source: str | None = None,
    target: str | None = None,
    changes: Sequence[str] = (),
) -> Written:
    """The recipe that fine-tunes `model` on `data`.

    task: by the name that a recipe's objective has; without it, what the data's columns are for, or else the model's
    head. validation: files to be evaluated on; without them, the last tenth of the data. lora: train small companions
    of frozen weights. epochs: how often each row is seen. kind, columns, text, label, pair, source, target: how the
    data is read, as `clearhead.evaluate` takes them. changes: key=value, written into the recipe.

    Raises InputError where the data does not say what the task needs, ConfigError for a change that is none; what
    models and data raise.
    """
    if not epochs > 0:
        raise InputError(f"epochs={epochs} should be above 0: how often each row is seen.")
    examined = examine(str(model))
    if examined.planned is None:
        assert examined.refused is not None
        raise examined.refused
    config = examined.planned.config
    paths, others = _paths(data), _paths(validation) if validation is not None else []
    table = sources.source_table(paths, task, kind, columns)
    told = recipes.with_changes({"data": {"source": table}}, [one for one in changes if one.startswith("data.source")])
    reading = recipes.filled(Data, {"source": told["data"]["source"], "encoder": {"kind": "text"}}, "data")
    first = sources.first_row(reading.source)
    chosen, why = _task(task, first, config)
    named = {"text": text, "label": label, "pair": pair, "source": source, "target": target}
    encoder = sources.encoder_table(chosen, first, named)
    notes = [why] if task is None else []
    part: Table = {"source": table, "encoder": encoder}
    if others:
        part["validation"] = sources.source_table(others, chosen, kind, columns)
    batch = BATCH
    if chosen in ("sequence-classification", "token-classification"):
        rows = _labelled(reading, encoder, config, notes, held_out=0.0 if others else HELD_OUT)
        encoder["longest"] = min(config.context, LONGEST)
        part["by_length"] = True
    elif chosen == "sequence-to-sequence":
        rows = _counted(reading, encoder)
        encoder["longest"] = min(config.context, LONGEST)
        part["by_length"] = True
    else:
        length = min(config.context, LONGEST)
        rows = max(1, _tokens(examined.source.tokenizer(), reading, encoder, str(model)) // length)
        part["packing"] = {"kind": "blocks", "length": length}
        batch = 8
    tables: Table = {
        "batch": min(batch, max(1, rows // 4)),
        "data": part,
        "model": {"kind": "checkpoint", "name": str(model)},
        "objective": {"kind": chosen},
        **({"adapters": _companions(examined.planned.model, chosen)} if lora else {}),
    }
    given = recipes.with_changes(tables, changes)
    share = given["data"].get("held_out", HELD_OUT)
    learned = rows * (1 - share) if not others and isinstance(share, int | float) else rows
    steps = max(1, round(learned * epochs / _number(given["batch"], tables["batch"])))
    tables["loop"] = {
        "steps": steps,
        "optimiser": {
            "kind": "adamw",
            "rate": RATES[lora],
            "betas": [0.9, 0.999],
            "weight_decay": 0.0 if lora else 0.01,
        },
        "schedule": {"kind": "cosine", "warmup": max(1, steps // 10), "floor": 0.0},
        "save_every": max(1, steps // 3),
    }
    tables["evaluation"] = {"every": max(1, steps // 6)}
    recipe = recipes.filled(Recipe, recipes.with_changes(tables, changes))
    check(recipe)
    return Written(recipe, tuple(notes))


def _paths(data: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(one) for one in ([data] if isinstance(data, str | Path) else data)]


def _number(value: Any, otherwise: int) -> int:
    """A batch that a change gave, where it is one; what it is not is refused with the recipe."""
    return value if isinstance(value, int) and value > 0 else otherwise


def _task(task: Task | None, first: Mapping[str, Any], config: ModelConfig) -> tuple[Task, str]:
    """The task, and why it is that."""
    if task is not None:
        if task not in sources.TASKS:
            raise InputError(f"task={task!r} is no task; choose from {', '.join(sources.TASKS)}.")
        return task, ""
    seen = sources.task_of(first)
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
            f"the last {held_out:.0%} of the rows are held out, and {', '.join(sorted(missing)[:4])} is not in both "
            "parts: shuffle the file, or give --validation"
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


def _counted(data: Data, encoder: Table) -> int:
    """How many rows there are. Raises TrainingError for one without its two texts."""
    rows = 0
    for found in sources.rows(data.source):
        row = found.row if "nested" not in encoder else found.row[encoder["nested"]]
        text_of(row, encoder["source"])
        text_of(row, encoder["target"])
        rows += 1
    return rows


def _tokens(tokenizer: Tokenizer | None, data: Data, encoder: Table, name: str) -> int:
    """How many tokens the text has; it is tokenised, which training would do next."""
    if tokenizer is None:
        raise ConfigError(f"{name} has no tokenizer beside it, and training begins with one.")
    filled = recipes.filled(Data, {"source": {"kind": "text-files", "paths": []}, "encoder": encoder}, "data")
    tokens = prepared(data.source, tokenizer, filled.encoder).n_tokens()
    if tokens < 2:
        raise TrainingError("the data has no two tokens; give more.")
    return tokens


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
