"""How much does a sweep of all heads cost, against a loop of whole runs, one head silenced in each? Half, or less.

    python -m bench.whatif

The same text, the same heads, the same numbers in the end: the largest difference is printed. The two take turns; the
ratio is the median over pairs. Two more figures say where it comes from: the ratio to whole runs in batches, and the
share of blocks that run at all, (n + 1) / 2n. Keeps the figures in bench/results/whatif.json.
"""

from __future__ import annotations

import torch

import clearhead
from bench.measure import keep, paired
from clearhead.lens.reading import read
from clearhead.lens.whatif import silence, sweep
from clearhead.lens.whatif.outcome import asks_the_end, usual
from clearhead.lens.whatif.replay import Remembered

TEXTS = {
    "minilm": "The animal didn't cross the street because it was too tired",
    "alice": "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do",
}
PAIRS = 5


def compare(name: str, repeat: int) -> dict[str, object]:
    """A sweep against its two slow twins, on a text of `repeat` times the sentence."""
    lm = clearhead.load(name)
    text = " ".join([TEXTS[name]] * repeat)
    found = sweep(lm, text)
    table = found.table()
    slow = torch.zeros_like(table)

    def loop() -> None:
        """The plain run once, then a whole run for each head: no text is read twice without need."""
        with torch.inference_mode():
            reading, measure = read(lm, text), usual(lm)
            end = asks_the_end(lm, measure)
            before = reading.run(lm.model, last_only=end)
            measure = measure.bound(lm, reading, before)
            for layer in range(table.shape[0]):
                for head in range(table.shape[1]):
                    with silence(lm.model, [(layer, head)]):
                        after = reading.run(lm.model, last_only=end)
                    slow[layer, head] = measure.of(before, after)[0]

    def whole() -> None:
        """Batched, but each layer's heads run from the bottom."""
        below = Remembered.below
        Remembered.below = lambda self, place: dict.fromkeys(below(self, place), 0)  # type: ignore[method-assign]
        try:
            sweep(lm, text)
        finally:
            Remembered.below = below  # type: ignore[method-assign]

    against_loop = paired(lambda: sweep(lm, text), loop, pairs=PAIRS)
    against_whole = paired(lambda: sweep(lm, text), whole, pairs=PAIRS)
    result: dict[str, object] = {
        "tokens": len(lm.tokenizer.encode(text).ids),
        "heads": table.numel(),
        "blocks": found.rows,
        "blocks_of_a_loop": found.loop,
        "share_of_blocks": round(found.rows / found.loop, 4),
        "against_a_loop": against_loop,
        "against_whole_runs_batched": against_whole,
        "largest_difference": float((table - slow).abs().max()),
    }
    print(
        f"{name:<8}{result['tokens']:>5} tokens {result['heads']:>4} heads: sweep / loop {against_loop['ratio']:.3f}, "
        f"sweep / whole runs batched {against_whole['ratio']:.3f}, blocks {result['share_of_blocks']:.3f}, "
        f"largest difference {result['largest_difference']:.1e}"
    )
    return result


def main() -> None:
    """Two models, a sentence and a longer text."""
    torch.set_num_threads(2)
    results = [
        {"model": name, **compare(name, repeat)} for name, repeat in (("minilm", 1), ("minilm", 6), ("alice", 1))
    ]
    keep("whatif", {"pairs": PAIRS, "sweeps": results})


if __name__ == "__main__":
    main()
