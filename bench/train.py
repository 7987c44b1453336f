"""How fast is a step of training? Ours against transformers' GPT-2 in a plain loop: one geometry, machine and run.

    python -m bench.train                       everything (about 4 minutes on 2 cores)
    python -m bench.train small memory          these parts alone; the others' figures stay as they were
    python -m bench.train --quick               a few pairs, nothing is kept

    small      0.8M parameters (4 layers, 4 heads, width 128, block 64, batch 12), transformers' in float32
    baby       10.7M (6 layers, 6 heads, width 384, block 256, batch 16), transformers' in float32
    bfloat16   10.7M, transformers' under bfloat16 autocast; where the processor multiplies bfloat16 by itself
    memory     the peak of a step's memory of both, each in a process of its own
    gpu        124M on a GPU in bfloat16: tokens a second, and the share of the device's peak

A step is: forward, loss, backward, clip, update, and the loss as a number. Both have AdamW of one rate, and each a
process of its own, as its users start it, that takes its steps while the other one waits: ours keeps the memory that
it frees, as every `clearhead train` on a CPU does (`train/memory.py`), and transformers' is a loop as people write it.
What it would be were the same said to that process, too, in its environment, is kept as `peer_keeps_memory`.

`ours` takes the precision that `auto` chooses on this machine, and it is kept with the figures: where the processor has
no bfloat16 of its own, that is float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from bench.measure import Apart, alone, answer, in_turn, keep_part, machine, peak_bytes
from clearhead.model import presets
from clearhead.model.transformer import build
from clearhead.train.batch import Batch
from clearhead.train.loop import Loop, Trainer
from clearhead.train.memory import MOST, OWN, keep_freed
from clearhead.train.optimiser import AdamW, parts_of
from clearhead.train.precision import Precision, choose, flops_per_token, peak_of

VOCAB = 65
SIZES = {
    "small": {"n_layers": 4, "n_heads": 4, "d_model": 128, "block": 64, "batch": 12},
    "baby": {"n_layers": 6, "n_heads": 6, "d_model": 384, "block": 256, "batch": 16},
    "124M": {"n_layers": 12, "n_heads": 12, "d_model": 768, "block": 1024, "batch": 16},
}
PARTS = ("small", "baby", "bfloat16", "memory", "gpu")
PAIRS = {"small": (31, 10), "baby": (11, 1), "bfloat16": (5, 1)}
"""How many pairs, and how many steps each of them times."""


class Always:
    """The same batch again and again."""

    def __init__(self, batch: int, block: int, device: str = "cpu") -> None:
        ids = torch.randint(VOCAB, (batch, block + 1), generator=torch.Generator().manual_seed(0)).to(device)
        self.batch = Batch(inputs={"input_ids": ids[:, :-1]}, labels=ids[:, 1:])

    def at(self, step: int) -> Sequence[Batch]:
        return [self.batch]

    def state(self) -> Mapping[str, Any]:
        return {}

    def load_state(self, told: Mapping[str, Any]) -> None:
        return


def trainer(size: str, device: str = "cpu", vocab: int = VOCAB, precision: Precision = "auto") -> Trainer:
    """Ours, ready to take steps."""
    torch.manual_seed(0)
    sizes = SIZES[size]
    shape = {name: sizes[name] for name in ("n_layers", "n_heads", "d_model")}
    model = build(presets.gpt2(**shape, vocab_size=vocab, context=sizes["block"])).to(device)
    loop = Loop(steps=10**9, optimiser=AdamW(), precision=precision)
    return Trainer(model, Always(sizes["batch"], sizes["block"], device), loop)


def ours(size: str, precision: Precision = "auto") -> Callable[[], object]:
    """One step of ours."""
    return trainer(size, precision=precision).step


def theirs(size: str, dtype: torch.dtype = torch.float32) -> Callable[[], object]:
    """One step of transformers' GPT-2, as its users write it."""
    import transformers

    torch.manual_seed(0)
    sizes = SIZES[size]
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=sizes["block"],
        n_embd=sizes["d_model"],
        n_layer=sizes["n_layers"],
        n_head=sizes["n_heads"],
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        use_cache=False,
    )
    model = transformers.GPT2LMHeadModel(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.randint(VOCAB, (sizes["batch"], sizes["block"]), generator=torch.Generator().manual_seed(0))

    def step() -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return step


def times(step: Callable[[], object], n: int) -> Callable[[], None]:
    """The step, n times: one alone is too short to be timed."""

    def run() -> None:
        for _ in range(n):
            step()

    return run


def speed(part: str, *, quick: bool) -> dict[str, object]:
    """Steps of both in turn."""
    chosen = choose("auto", torch.device("cpu"))
    if part == "bfloat16" and chosen.dtype != torch.bfloat16:  # a step of the peer's would take minutes
        print(f"bfloat16: not measured, {chosen.why}")
        return {"not measured": chosen.why}
    size = "baby" if part == "bfloat16" else part
    pairs, steps = PAIRS[part]
    tokens = SIZES[size]["batch"] * SIZES[size]["block"] * steps
    side = [sys.executable, "-m", "bench.train", "--side", part]
    plain = {name: value for name, value in os.environ.items() if name not in OWN}
    kept = {"MALLOC_MMAP_THRESHOLD_": str(MOST), "MALLOC_TRIM_THRESHOLD_": str(MOST)}
    with Apart([*side, chosen.name], plain) as mine, Apart([*side, "peer"], plain) as peer:
        measured = in_turn(mine, peer, pairs=3 if quick else pairs, warmup=2)
        with Apart([*side, "peer"], plain | kept) as keeping:
            alike = in_turn(mine, keeping, pairs=3 if quick else pairs // 2, warmup=2)
    speeds = {name: round(tokens / float(str(measured[f"{name}_s"]))) for name in ("ours", "peer")}
    faster, as_fast = (round(1 / float(str(found["ratio"])), 3) for found in (measured, alike))
    print(
        f"{part}: {faster} × as fast ({speeds['ours']:,} tokens/s in {chosen.name}, transformers {speeds['peer']:,}); "
        f"{as_fast} × where transformers' process keeps its memory, too"
    )
    return {
        "size": SIZES[size],
        "times_faster": faster,
        "tokens_per_s": speeds,
        "steps_a_pair": steps,
        "our_precision": chosen.name,
        "why": chosen.why,
        **measured,
        "peer_keeps_memory": {"times_faster": as_fast, **alike},
    }


def one_side(part: str, side: str) -> None:
    """In a process apart: take steps when asked, and say how long they took. side: our precision, or `peer`."""
    size = "baby" if part == "bfloat16" else part
    if side == "peer":
        step = theirs(size, torch.bfloat16 if part == "bfloat16" else torch.float32)
    else:
        keep_freed()
        step = ours(size, "bfloat16" if side == "bfloat16" else "float32")
    answer(times(step, PAIRS[part][1]))


def step_memory(size: str, side: str) -> int:
    """In this process: how much higher its memory rose in the first steps than it stood with the model alone."""
    step = ours(size) if side == "ours" else theirs(size)
    return peak_bytes(times(step, 3))


def memory(*, quick: bool) -> dict[str, object]:
    """Each side in a fresh process, with an allocator that gives large blocks back at once."""
    found: dict[str, object] = {}
    for size in ("small", "baby"):
        peaks = {side: alone("bench.train", "--memory-of", size, side) for side in ("ours", "peer")}
        found[size] = {**peaks, "ratio": round(peaks["ours"] / peaks["peer"], 3)}
        print(f"{size}: a step takes {peaks['ours'] / 1e6:.0f} MB, transformers' {peaks['peer'] / 1e6:.0f} MB")
    return found


def gpu(*, quick: bool) -> dict[str, object]:
    """GPT-2 124M in bfloat16, compiled, where there is a GPU."""
    if not torch.cuda.is_available():
        print("gpu: this machine has no CUDA device")
        return {"not measured": "this machine has no CUDA device"}
    one = trainer("124M", "cuda", vocab=50_304)
    one.model.compile()
    for _ in range(5):
        one.step()
    seconds = []
    for _ in range(5 if quick else 30):
        torch.cuda.synchronize()
        start = time.perf_counter()
        one.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    sizes = SIZES["124M"]
    tokens = sizes["batch"] * sizes["block"]
    multiplied = sum(p.numel() for p in parts_of(one.model)["matrices"].values()) + 50_304 * sizes["d_model"]
    flops = flops_per_token(multiplied, sizes["n_layers"], sizes["d_model"], sizes["block"], causal=True)
    peak = peak_of(one.device, one.precision.dtype)
    speed = tokens / sorted(seconds)[len(seconds) // 2]
    mfu = flops * speed / peak.flops
    print(f"gpu: {speed:,.0f} tokens/s, {mfu:.1%} of {peak.source}'s peak, {torch.cuda.max_memory_allocated():,} bytes")
    return {
        "size": sizes,
        "tokens_per_s": round(speed),
        "mfu": round(mfu, 4),
        "peak": [peak.flops, peak.source],
        "precision": one.precision.name,
        "bytes": torch.cuda.max_memory_allocated(),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["all", *PARTS], default="all")
    parser.add_argument("--quick", action="store_true", help="3 pairs of each, nothing is kept")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        one_side(*args.side)
        return
    if args.memory_of:
        print(step_memory(*args.memory_of))
        return
    print(machine())
    apart: dict[str, Callable[..., dict[str, object]]] = {"memory": memory, "gpu": gpu}
    for part in PARTS if "all" in args.parts else args.parts:
        figures = apart[part](quick=args.quick) if part in apart else speed(part, quick=args.quick)
        if not args.quick:
            keep_part("train", part, figures)


if __name__ == "__main__":
    main()
