"""What does looking cost? A watched forward against a plain one, and against transformers' way to the same weights.

    python -m bench.look            everything (about 20 minutes on 2 cores)
    python -m bench.look --quick    short texts only

1. GPT-2 124M with longer positions, random weights, float32: forward under `watch` over plain forward, T 512 to 8,192.
2. The same forward at T = 4,096 in transformers, eager, `output_attentions=True`: what people do today.
3. Memory: the peak that watching adds, over the bytes of q, k and log-sum-exp.
Each memory figure is taken in a process of its own, with an allocator that gives large blocks back at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import torch

from bench.measure import keep, machine, paired, peak_bytes
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.transformer import build

VOCAB = 50_257


def gpt2(context: int) -> torch.nn.Module:
    """GPT-2 124M of ours, its position table long enough."""
    torch.manual_seed(0)
    return build(presets.gpt2(context=context)).eval()


def text(length: int) -> torch.Tensor:
    """Random ids, always the same."""
    return torch.randint(VOCAB, (1, length), generator=torch.Generator().manual_seed(length))


def watched(model: torch.nn.Module, ids: torch.Tensor) -> object:
    """A forward pass whose every weight can be had afterwards."""
    with torch.inference_mode(), watch(model) as seen:
        model(ids)
    return seen


def plain(model: torch.nn.Module, ids: torch.Tensor) -> object:
    """The same without."""
    with torch.inference_mode():
        return model(ids)


def transformers_eager(length: int) -> Any:
    """GPT-2 124M of transformers, made to give its weights."""
    import transformers

    config = transformers.GPT2Config(n_positions=length, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    return transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()


def against_eager(length: int, pairs: int) -> dict[str, object]:
    """Our watched forward against transformers' eager one that returns its weights."""
    ours, theirs, ids = gpt2(length), transformers_eager(length), text(length)

    def eager() -> object:
        with torch.inference_mode():
            return theirs(ids, output_attentions=True, use_cache=False)

    watched(ours, ids[:, :512])  # warm, without a pair that takes a minute and a half
    figures = paired(lambda: watched(ours, ids), eager, pairs=pairs, warmup=0)
    return {**figures, "times_faster": round(1 / float(str(figures["ratio"])), 2)}


def memory(length: int) -> dict[str, object]:
    """In this process: the peak of a plain and of a watched forward, and the bytes that watching has to keep."""
    model, ids = gpt2(length), text(length)
    plain(model, ids[:, :64])
    kept: list[int] = []

    def run_watched() -> object:
        seen: Any = watched(model, ids)
        kept.append(seen.nbytes)
        return seen

    plain(model, ids)
    base = peak_bytes(lambda: plain(model, ids))
    extra = peak_bytes(run_watched) - base
    return {"T": length, "plain_peak": base, "extra": extra, "kept": kept[-1], "ratio": round(extra / kept[-1], 3)}


def memory_apart(length: int) -> dict[str, object]:
    """`memory` in a fresh process."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "bench.look", "--memory", str(length)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="T 512 and 1,024 only, nothing is kept")
    parser.add_argument("--pairs", type=int, help="at most so many pairs at each length")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory(args.memory)))
        return
    print(machine())
    lengths = {512: 15, 1024: 11, 2048: 9, 4096: 5, 8192: 3}
    if args.quick:
        lengths = {512: 9, 1024: 5}
    most = args.pairs or max(lengths.values())
    lengths = {length: min(pairs, most) for length, pairs in lengths.items()}
    forward = []
    model = gpt2(max(lengths))
    for length, pairs in lengths.items():
        ids = text(length)
        warmup = 1 if length < 4096 else 0  # the model is warm by then, and the longer texts take their time
        figures = paired(lambda: watched(model, ids), lambda: plain(model, ids), pairs=pairs, warmup=warmup)  # noqa: B023
        forward.append({"T": length, **figures})
        print(f"T={length:>6}: watched {figures['ours_s']} s, plain {figures['peer_s']} s, ratio {figures['ratio']}")
    del model
    lengths_kept = [512, 4096]
    apart = [memory_apart(length) for length in lengths_kept]
    for row in apart:
        print(f"T={row['T']:>6}: watching adds {row['extra']:,} bytes, {row['ratio']} × q, k and log-sum-exp")
    eager = against_eager(1024 if args.quick else 4096, pairs=min(5, most))
    print(f"against transformers eager with output_attentions: {eager['times_faster']} × faster ({eager})")
    if not args.quick:
        keep("look", {"forward": forward, "memory": apart, "against_eager_T4096": eager})


if __name__ == "__main__":
    main()
