"""What one of several processes runs: `torchrun … tests/api/together.py RECIPE.json FOLDER STEPS`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from clearhead.api.training import Run, read_recipe
from clearhead.train.distributed import processes

if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe = read_recipe(Path(sys.argv[1]), [])
    with processes(recipe.processes) as together:
        run = Run(recipe, Path(sys.argv[2]), together)
        for _ in run.go():
            if run.done == int(sys.argv[3]):
                break
        if run.done < recipe.loop.steps:
            run.save()
