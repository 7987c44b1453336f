"""What is fine-tuning worth? Recipes that go on from MiniLM, and the same model from nothing beside them.

    python -m bench.finetune                   everything (about 80 minutes on 2 cores)
    python -m bench.finetune sst2 sst2-lora    these parts alone; the others' figures stay as they were

    sst2, sst2-lora, sst2-scratch    accuracy on the dev sentences (Socher et al. 2013; 6,920 whole sentences to learn)
    wikiann, wikiann-scratch         F1 of whole entities, by seqeval, on dev (Pan et al. 2017; 20,000 to learn)

Each is `clearhead train recipes/NAME.toml` as it stands, `-scratch` with `model.scratch=true`; scores are of the last
step, and no checkpoint is chosen by them. CPU seconds (of all cores, user and system) count everything from the recipe
to the score, tokenising and evaluating too: on a machine that others use at the time they say more than the clock.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from bench.measure import keep_part, machine
from clearhead.api.scoring import scores
from clearhead.api.training import Run, read_recipe

PARTS = {
    "sst2": ("sst2-minilm", []),
    "sst2-lora": ("sst2-minilm-lora", []),
    "wikiann": ("wikiann-minilm", []),
    "sst2-scratch": ("sst2-minilm", ["model.scratch=true"]),
    "wikiann-scratch": ("wikiann-minilm", ["model.scratch=true"]),
}


def cpu_seconds() -> float:
    """What this process and those it waited for have used of all cores."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def finetuned(part: str, changes: list[str]) -> dict[str, object]:
    """Train as the recipe says, and score what came of it."""
    name, own = PARTS[part]
    recipe = read_recipe(Path("recipes") / f"{name}.toml", [*own, *changes])
    cpu, wall = cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(recipe, Path(folder) / "run", say=print)
        curve = []
        for event in run.go():
            if event.validation is not None:
                curve.append([run.done, round(event.validation, 4)])
                print(
                    f"{part}: step {run.done}/{recipe.loop.steps}, loss {event.step.loss:.3f}, held out "
                    f"{event.validation:.4f}, {cpu_seconds() - cpu:.0f} CPU s",
                    flush=True,
                )
        found = scores(run)
    parameters = list(run.built.model.parameters())
    trained, every = (sum(p.numel() for p in some) for some in ([p for p in parameters if p.requires_grad], parameters))
    figures: dict[str, object] = {score.name: round(score.value, 4) for score in found}
    figures |= {
        "note": "; ".join(score.note for score in found),
        "trained": trained,
        "of": every,
        "share": round(trained / every, 5),
        "steps": recipe.loop.steps,
        "rows": run.batches.n_rows,
        "held_out_loss": curve,
        "cpu_seconds": round(cpu_seconds() - cpu, 1),
        "seconds": round(time.perf_counter() - wall, 1),
        "recipe": f"recipes/{name}.toml",
        "changes": own,
    }
    print(f"{part}: {'; '.join(map(str, found))}; {trained / every:.2%} trained; {figures['cpu_seconds']} CPU s")
    return figures


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["all", *PARTS], default="all")
    parser.add_argument("--change", action="append", default=[], help="KEY=VALUE to the recipes; nothing is kept then")
    args = parser.parse_args()
    print(machine(), flush=True)
    for part in PARTS if "all" in args.parts else args.parts:
        figures = finetuned(part, args.change)
        if not args.change:
            keep_part("finetune", part, figures)


if __name__ == "__main__":
    main()
