"""Forgetting. Four models of one size are told to remember a letter; how far back does each still know it?

    python examples/forgetting.py            (under 5 minutes on two cores)
    python examples/forgetting.py --quick    (seconds: short distances, little training, nothing kept)

An RNN, an LSTM, a GRU and a Transformer see the same texts in the same steps; `clearhead/lab/forgetting.py` has the
task. What is printed at the end is made of the figures, and says so where the lectures expect something else.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from clearhead.lab.forgetting import CHANCE, DISTANCES, headline, measure, models, told

sys.path.append(str(Path(__file__).parents[1]))  # for `bench`, when it is run by itself
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "forgetting.png"


def main(quick: bool = False) -> list[str]:
    began = time.perf_counter()
    torch.manual_seed(0)
    every = models(d_model=32 if quick else 48)
    distances = DISTANCES[:3] if quick else DISTANCES
    steps, trial = (30, 5) if quick else (300, 40)
    sizes = {name: model.n_parameters() for name, model in every.items()}
    print(f"parameters: {sizes}; the largest is {max(sizes.values()) / min(sizes.values()) - 1:.1%} above the smallest")
    memories = [measure(name, model, steps=steps, trial=trial, distances=distances) for name, model in every.items()]
    said = told(memories, at=distances[-1] if quick else 128)
    seconds = time.perf_counter() - began
    print("", *said, f"{seconds:.0f} seconds in all, on {torch.get_num_threads()} threads.", sep="\n")
    if not quick:
        from bench.measure import keep
        from clearhead.lab.forgetting_picture import draw

        print(f"drawn in {draw(memories, headline(memories), PICTURE)}")
        figures = {"chance": CHANCE, "steps": steps, "seconds": round(seconds), "said": said}
        keep("forgetting", {**figures, "models": [vars(memory) for memory in memories]})
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short distances, little training, nothing kept")
    main(parser.parse_args().quick)
