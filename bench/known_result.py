"""A known result, and how soon we are there: nanoGPT's recipe for a CPU, and the same model trained by our defaults.

    python -m bench.known_result                 three seeds (about 15 minutes on 2 cores)
    python -m bench.known_result 0               this seed alone; the others' figures stay as they were
    python -m bench.known_result --only as-long  this training alone, of each seed
    python -m bench.known_result --quick         a tenth of the steps, nothing is kept

recipe     recipes/shakespeare-nanogpt.toml: 2,000 steps of AdamW in float32, batches of 12 windows of 64 characters
defaults   the same data, model, batch and seed, and nothing said of optimiser, schedule or precision, which is what a
           new recipe gets; as many steps as take it below the loss of the recipe, and so many are said here beforehand
as-long    our defaults in the recipe's own 2,000 steps

The first two are trained in turn, in one process. Seconds are those of the steps: batches are counted in, evaluation is
not. The loss is of all the text that was held out, the last tenth of it, in windows of 64 that do not overlap.

nanoGPT's README names 1.88, as its own evaluation has it: the mean of 20 batches of 12 windows drawn from that text.
Such means scatter, and by how much is kept, too (twenty of them are `estimates`). Rates, schedule, batches, decay,
clipping and initialisation are nanoGPT's. Two things are not: our GPT-2 has GPT-2's biases, and its GELU by tanh, where
nanoGPT by now has none, and the exact GELU. With both as nanoGPT has them seed 0 comes to 1.919, and not to 1.899.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.measure import keep_part, kept, machine
from clearhead.api.recipe import Recipe
from clearhead.api.training import Run
from clearhead.train.objectives.common import Chance
from clearhead.train.recipe import filled, read_toml

RECIPE = Path("recipes/shakespeare-nanogpt.toml")
STEPS = 700
"""Of our defaults, to less than the loss of the recipe."""
TRAININGS = ("recipe", "defaults", "as-long")


def recipe_of(which: str, seed: int, *, quick: bool) -> Recipe:
    """The recipe as it is, or without what it says of how to follow the gradient."""
    tables = read_toml(RECIPE)
    loop: dict[str, Any] = {**tables["loop"], "seed": seed, "save_every": 10**9}
    if which != "recipe":
        loop = {key: loop[key] for key in ("seed", "save_every", "steps")}
    if which == "defaults":
        loop["steps"] = STEPS
    if quick:
        loop["steps"] //= 10
    tables |= {"loop": loop, "evaluation": {"every": 0, "batches": 1}}
    return filled(Recipe, tables)


def loss_of(run: Run, starts: list[int], batch: int) -> float:
    """The mean loss over the held-out windows that begin there."""
    rows, recipe = run.batches.held_out, run.recipe
    batches = [
        recipe.objective.batch([rows[n] for n in some], run.built.vocabulary, Chance(seed=0, step=0), some)
        for some in (starts[at : at + batch] for at in range(0, len(starts), batch))
    ]
    return run.trainer.evaluate(batches)


def whole_loss(run: Run) -> float:
    """The mean loss over the held-out text, every character of it predicted once."""
    rows = run.batches.held_out
    return loss_of(run, list(range(0, len(rows), int(rows.lengths[0]) - 1)), 64)


def estimates(run: Run, seed: int) -> list[float]:
    """The loss as nanoGPT's evaluation estimates it, twenty times."""
    chance, windows = torch.Generator().manual_seed(seed), len(run.batches.held_out)
    return [loss_of(run, torch.randint(windows, (240,), generator=chance).tolist(), 12) for _ in range(20)]


def trained(which: str, seed: int, *, quick: bool) -> dict[str, object]:
    """One training: its loss, its seconds, and how it went about it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(recipe_of(which, seed, quick=quick), Path(folder) / "run")
        seconds = sum(event.step.seconds for event in run.go())
        loss, some = whole_loss(run), estimates(run, seed)
    loop, scatter = run.recipe.loop, statistics.stdev(some)
    print(
        f"seed {seed}, {which}: loss {loss:.4f} after {loop.steps:,} steps, {seconds:.1f} s "
        f"(nanoGPT's estimates of it: {min(some):.3f} to {max(some):.3f}, ± {scatter:.3f})",
        flush=True,
    )
    return {
        "loss": round(loss, 4),
        "estimates": {"least": round(min(some), 4), "most": round(max(some), 4), "deviation": round(scatter, 4)},
        "steps": loop.steps,
        "seconds": round(seconds, 2),
        "optimiser": repr(loop.optimiser),
        "schedule": repr(loop.schedule),
        "precision": run.trainer.precision.name,
        "threads": torch.get_num_threads(),
    }


def means() -> None:
    """Print what the seeds come to together."""
    seeds = [figures for name, figures in sorted(kept("known_result").items()) if name.startswith("seed")]
    for which in TRAININGS:
        found = [figures[which] for figures in seeds if which in figures]
        if found:
            losses, seconds, steps = ([one[key] for one in found] for key in ("loss", "seconds", "steps"))
            print(
                f"{which}: loss {statistics.mean(losses):.4f} ({min(losses)} to {max(losses)}) after {steps[-1]:,} "
                f"steps, in {statistics.mean(seconds):.1f} s, mean of {len(found)} seeds"
            )
    shares = [figures["share_of_time"] for figures in seeds if "share_of_time" in figures]
    if shares:
        print(f"our defaults took {statistics.mean(shares):.2f} of the recipe's time ({min(shares)} to {max(shares)})")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", choices=TRAININGS, help="this training alone; the seed's others stay as they were")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, nothing is kept")
    args = parser.parse_args()
    print(machine())
    for seed in args.seeds:
        order = ("recipe", "defaults") if seed % 2 == 0 else ("defaults", "recipe")
        found: dict[str, Any] = {
            which: trained(which, seed, quick=args.quick) for which in (*order, "as-long") if args.only in (None, which)
        }
        if args.only is None:
            found["share_of_time"] = round(found["defaults"]["seconds"] / found["recipe"]["seconds"], 3)
            print(f"seed {seed}: our defaults took {found['share_of_time']} of the recipe's time")
        if not args.quick:
            before = kept("known_result").get(f"seed {seed}", {}) if args.only else {}
            keep_part("known_result", f"seed {seed}", {**before, **found})
    if not args.quick:
        means()


if __name__ == "__main__":
    main()
