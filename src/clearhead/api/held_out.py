"""A run evaluated: its newest weights, on the rows that it held out, by the measures that ended it.

Nothing in the run's folder is touched, so it may be still training, and what it prints at its end can be had again.
"""

from __future__ import annotations

from pathlib import Path

from clearhead.api import resuming
from clearhead.api.building import built
from clearhead.api.exporting import fill
from clearhead.api.feeding import batches
from clearhead.api.measuring import Evaluated
from clearhead.api.scoring import Subject, held_out, measures
from clearhead.errors import InputError, TrainingError
from clearhead.text import Tokenizer
from clearhead.train import state
from clearhead.train.adapters import adapt
from clearhead.train.distributed import Processes
from clearhead.train.precision import choose
from clearhead.train.recipe import spelled


def evaluate_run(folder: Path) -> Evaluated:
    """The measures of a run. Raises InputError for a folder that holds none, TrainingError without a checkpoint."""
    if not (folder / "run.json").is_file():
        raise InputError(
            f"{folder} is no run's folder (it has no run.json), and no data was given; name files to evaluate on."
        )
    told = resuming.record(folder)
    recipe = resuming.recipe_of(told)
    flaws: list[str] = []
    newest = state.newest(folder, flaws.append)
    if newest is None:
        what = f": {'; '.join(flaws)}" if flaws else " yet; train on, or evaluate when it has saved"
        raise TrainingError(f"{folder} has no checkpoint that is whole{what}.")
    known = folder / "tokenizer"
    parts = built(recipe, Tokenizer.load(known) if known.exists() else None)
    adapt(parts.model, recipe.adapters)
    processes = Processes("alone")
    data = batches(recipe, parts, processes)
    step = fill(parts.model, newest)
    notes = flaws
    if told.get("data", {}).get("fingerprint") not in (None, data.fingerprint):
        notes.append("the data is not what it was when the run began: its files, or how they are read, have changed")
    if not len(data.held_out):
        raise InputError(f"{folder} held nothing out; name files to evaluate {folder / 'model'} on.")
    device = processes.device
    subject = Subject(
        model=parts.model.to(device),
        tokenizer=parts.tokenizer,
        vocabulary=parts.vocabulary,
        objective=recipe.objective,
        device=device,
        precision=choose(recipe.loop.precision, device),
    )
    rows = list(held_out(recipe, data, parts.vocabulary))
    n = sum(len(batch.labels) for batch in rows)
    return Evaluated(
        model=str(folder),
        task=spelled(type(recipe.objective)),
        scores=tuple(measures(subject, rows, given=data.given)),
        read=f"{n:,} rows that the run held out, after {step:,} of {recipe.loop.steps:,} steps",
        facts={"rows": n, "step": step, "steps": recipe.loop.steps},
        notes=tuple(notes),
    )
