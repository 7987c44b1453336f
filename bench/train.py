"""How fast is a step of training? Ours against transformers' GPT-2 in a plain loop: one geometry, machine and run.

    python -m bench.train            both sizes (about 10 minutes on 2 cores)
    python -m bench.train --quick    a few pairs, nothing is kept

1. 10.7M parameters (6 layers, 6 heads, width 384, block 256, batch 16): our step with its defaults over transformers'
   in float32 with AdamW, and over the same loop under bfloat16 autocast.
2. 0.8M (4 layers, 4 heads, width 128, block 64, batch 12): ours over transformers' in float32.
A step is: forward, loss, backward, clip, update. `ours` takes what `precision = "auto"` chooses here, and says which.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from bench.measure import keep, machine, paired, peak_bytes
from clearhead.model import presets
from clearhead.model.transformer import build
from clearhead.train.batch import Batch
from clearhead.train.loop import Loop, Trainer
from clearhead.train.optimiser import AdamW
from clearhead.train.precision import Chosen, choose

VOCAB = 65
SIZES = {
    "10.7M": {"n_layers": 6, "n_heads": 6, "d_model": 384, "block": 256, "batch": 16},
    "0.8M": {"n_layers": 4, "n_heads": 4, "d_model": 128, "block": 64, "batch": 12},
}


class Always:
    """The same batch again and again."""

    def __init__(self, batch: int, block: int) -> None:
        ids = torch.randint(VOCAB, (batch, block + 1), generator=torch.Generator().manual_seed(0))
        self.batch = Batch(inputs={"input_ids": ids[:, :-1]}, labels=ids[:, 1:])

    def at(self, step: int) -> Sequence[Batch]:
        return [self.batch]

    def state(self) -> Mapping[str, Any]:
        return {}

    def load_state(self, told: Mapping[str, Any]) -> None:
        return


def ours(size: Mapping[str, int], precision: Chosen) -> Callable[[], object]:
    """One step of ours."""
    torch.manual_seed(0)
    shape = {name: size[name] for name in ("n_layers", "n_heads", "d_model")}
    model = build(presets.gpt2(**shape, vocab_size=VOCAB, context=size["block"]))
    loop = Loop(steps=10**9, optimiser=AdamW())
    return Trainer(model, Always(size["batch"], size["block"]), loop, precision=precision).step


def theirs(size: Mapping[str, int], dtype: torch.dtype) -> Callable[[], object]:
    """One step of transformers' GPT-2, as its users write it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=size["block"],
        n_embd=size["d_model"],
        n_layer=size["n_layers"],
        n_head=size["n_heads"],
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        use_cache=False,
    )
    model = transformers.GPT2LMHeadModel(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.randint(VOCAB, (size["batch"], size["block"]), generator=torch.Generator().manual_seed(0))

    def step() -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return step


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 pairs of each, nothing is kept")
    args = parser.parse_args()
    print(machine())
    precision = choose("auto", torch.device("cpu"))
    print(f"ours in {precision.name}: {precision.why}")
    figures: dict[str, object] = {"precision": {"ours": precision.name, "why": precision.why}}
    for name, size in SIZES.items():
        tokens = size["batch"] * size["block"]
        for dtype in (torch.float32, torch.bfloat16):
            if dtype == torch.bfloat16 and name != "10.7M":
                continue
            pairs = 3 if args.quick else 9
            measured = paired(ours(size, precision), theirs(size, dtype), pairs=pairs)
            speeds = {side: round(tokens / float(str(measured[f"{side}_s"]))) for side in ("ours", "peer")}
            times = round(1 / float(str(measured["ratio"])), 2)
            label = f"{name} against {str(dtype).removeprefix('torch.')}"
            print(f"{label}: {times} × as fast ({speeds['ours']:,} tokens/s against {speeds['peer']:,})")
            figures[label] = {**measured, "times_faster": times, "tokens_per_s": speeds}
        peaks = {
            side: peak_bytes(step)
            for side, step in (("ours", ours(size, precision)), ("peer", theirs(size, torch.float32)))
        }
        figures[f"{name} peak bytes of a step"] = peaks
        print(f"{name}: a first step's memory {peaks['ours'] / 1e6:.0f} MB, transformers' {peaks['peer'] / 1e6:.0f} MB")
    if not args.quick:
        keep("train", figures)


if __name__ == "__main__":
    main()
