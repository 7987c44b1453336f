"""A known result, and how soon we are there: nanoGPT's recipe for a CPU, and the same model trained by our defaults.

    python -m bench.known_result            three seeds (about 10 minutes on 2 cores)
    python -m bench.known_result 0          this seed alone; the others' figures stay as they were
    python -m bench.known_result --quick    a tenth of the steps, nothing is kept

recipe     recipes/shakespeare-nanogpt.toml: 2,000 steps of AdamW in float32. Its README names a loss of 1.88.
defaults   the same data, model, batch and seed, and nothing said of optimiser, schedule or precision, which is what a
           new recipe gets; as many steps as take it to the loss of the recipe, and so many are said here beforehand.

The two are trained in turn, in one process. Seconds are those of the steps: batches are counted in, evaluation is not.
The loss is of all the text that was held out, the last tenth of it, in windows of 64 that do not overlap.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import RESULTS, keep_part, machine
from clearhead.api.recipe import Recipe
from clearhead.api.training import Run
from clearhead.train.objectives.common import Chance
from clearhead.train.recipe import filled, read_toml

RECIPE = Path("recipes/shakespeare-nanogpt.toml")
STEPS = 700
"""Of our defaults."""


def recipe_of(which: str, seed: int, *, quick: bool) -> Recipe:
    """The recipe as it is, or without what it says of how to follow the gradient."""
    tables = read_toml(RECIPE)
    loop: dict[str, Any] = {**tables["loop"], "seed": seed, "save_every": 10**9}
    if which == "defaults":
        loop = {key: loop[key] for key in ("seed", "save_every")} | {"steps": STEPS}
    if quick:
        loop["steps"] //= 10
    tables |= {"loop": loop, "evaluation": {"every": 0, "batches": 1}}
    return filled(Recipe, tables)


def whole_loss(run: Run) -> float:
    """The mean loss over the held-out text, every character of it predicted once."""
    rows, recipe = run.batches.held_out, run.recipe
    length = rows.lengths[0] - 1
    starts = range(0, len(rows), int(length))
    batches = [
        recipe.objective.batch(
            [rows[n] for n in starts[at : at + 64]], run.built.vocabulary, Chance(seed=0, step=0), starts[at : at + 64]
        )
        for at in range(0, len(starts), 64)
    ]
    return run.trainer.evaluate(batches)


def trained(which: str, seed: int, *, quick: bool) -> dict[str, object]:
    """One training: its loss, its seconds, and how it went about it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(recipe_of(which, seed, quick=quick), Path(folder) / "run")
        seconds = sum(event.step.seconds for event in run.go())
        loss = whole_loss(run)
    loop = run.recipe.loop
    print(f"seed {seed}, {which}: loss {loss:.4f} after {loop.steps:,} steps, {seconds:.1f} s", flush=True)
    return {
        "loss": round(loss, 4),
        "steps": loop.steps,
        "seconds": round(seconds, 2),
        "optimiser": repr(loop.optimiser),
        "schedule": repr(loop.schedule),
        "precision": run.trainer.precision.name,
    }


def means() -> None:
    """Print what the seeds come to together."""
    kept = json.loads((RESULTS / "known_result.json").read_text())
    seeds = [figures for name, figures in sorted(kept.items()) if name.startswith("seed")]
    for which in ("recipe", "defaults"):
        losses = [figures[which]["loss"] for figures in seeds]
        seconds = [figures[which]["seconds"] for figures in seeds]
        print(
            f"{which}: loss {statistics.mean(losses):.4f} ({min(losses)} to {max(losses)}) in "
            f"{statistics.mean(seconds):.1f} s, mean of {len(seeds)} seeds"
        )
    shares = [figures["share_of_time"] for figures in seeds]
    print(f"our defaults took {statistics.mean(shares):.2f} of the recipe's time ({min(shares)} to {max(shares)})")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, nothing is kept")
    args = parser.parse_args()
    print(machine())
    for seed in args.seeds:
        order = ("recipe", "defaults") if seed % 2 == 0 else ("defaults", "recipe")
        found: dict[str, Any] = {which: trained(which, seed, quick=args.quick) for which in order}
        share = round(found["defaults"]["seconds"] / found["recipe"]["seconds"], 3)
        print(f"seed {seed}: our defaults took {share} of the recipe's time")
        if not args.quick:
            keep_part("known_result", f"seed {seed}", {**found, "share_of_time": share})
    if not args.quick:
        means()


if __name__ == "__main__":
    main()
