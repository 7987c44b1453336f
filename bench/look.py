"""What does looking cost? A watched forward against a plain one, and against transformers' way to the same weights.

    python -m bench.look                       everything (about an hour on 2 cores)
    python -m bench.look gpt2 eager            these parts alone; the others' figures stay as they were
    python -m bench.look gpt2 --quick          short texts only, nothing is kept

The parts are gpt2, llama, bert (1 and 3), eager (2) and cuda (4); each is kept as soon as it is measured.


1. Forward under `watch` over plain forward, T 512 to 16,384, random weights, float32: GPT-2 124M with longer positions,
   a Llama of the same width (rotary, 4 key heads for 12), BERT-base without a head. From T = 4,096 they have four of
   their twelve layers: what a layer costs does not depend on their number, and the afternoon is only so long.
2. GPT-2 124M at T = 4,096 in transformers, eager, `output_attentions=True`: what people do today.
3. Memory: the peak that watching adds, over the bytes of q, k and log-sum-exp, for each family.
4. Where there is a GPU: a Llama of two layers at 131,072 tokens in bfloat16, watched over plain, and what a look at one
   head then takes.
Each memory figure is taken in a process of its own, with an allocator that gives large blocks back at once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.measure import alone, keep, kept, machine, paired, peak_bytes
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.config import ModelConfig
from clearhead.model.transformer import build

WIDTH, HEADS, VOCAB = 768, 12, 30_000
LENGTHS = {512: 61, 1024: 61, 2048: 15, 4096: 9, 8192: 5, 16_384: 5}
"""Pairs of forward passes at each length. Short passes wander most: a plain one against itself came out at 0.95, 1.03
and 1.08 in three medians of 13 pairs at T = 1,024, so these take many."""


def gpt2(context: int, layers: int = 12) -> torch.nn.Module:
    """GPT-2 124M of ours, its position table long enough."""
    return built(presets.gpt2(context=context, n_layers=layers))


def llama(context: int, layers: int = 12) -> torch.nn.Module:
    """A Llama as wide as GPT-2, with four key heads."""
    sizes = {"d_model": WIDTH, "d_ff": 2048, "n_heads": HEADS, "n_kv_heads": 4, "n_layers": layers}
    return built(presets.llama(**sizes, vocab_size=VOCAB, context=context))


def bert(context: int, layers: int = 12) -> torch.nn.Module:
    """BERT-base, which reads both ways, its position table long enough."""
    return built(presets.bert(context=context, n_layers=layers))


def built(config: ModelConfig) -> torch.nn.Module:
    """The model with random weights, always the same."""
    torch.manual_seed(0)
    return build(config).eval()


FAMILIES: dict[str, Callable[..., torch.nn.Module]] = {"gpt2": gpt2, "llama": llama, "bert": bert}


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


def forwards(family: str, lengths: dict[int, int]) -> list[dict[str, object]]:
    """Watched over plain, pair by pair, at each length."""
    found: list[dict[str, object]] = []
    for long in (False, True):
        wanted = {length: pairs for length, pairs in lengths.items() if (length >= 4096) == long}
        if not wanted:
            continue
        layers = 4 if long else 12
        model = FAMILIES[family](max(wanted), layers)
        for length, pairs in wanted.items():
            ids = text(length)
            warmup = 1 if length < 8192 else 0  # the model is warm by then, and the longer texts take their time
            figures = paired(lambda: watched(model, ids), lambda: plain(model, ids), pairs=pairs, warmup=warmup)  # noqa: B023
            found.append({"T": length, "layers": layers, **figures})
            print(
                f"{family} T={length:>6}: watched {figures['ours_s']} s, plain {figures['peer_s']} s, "
                f"ratio {figures['ratio']} (from {figures['ratio_range']}), of processor time {figures['cpu_ratio']}"
            )
    return found


def memory(family: str, length: int) -> dict[str, object]:
    """In this process: the peak of a plain and of a watched forward, and the bytes that watching has to keep."""
    model, ids = FAMILIES[family](length), text(length)
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


def memory_apart(family: str, length: int) -> dict[str, object]:
    """`memory` in a fresh process."""
    result: dict[str, object] = alone("bench.look", family, "--memory", str(length))
    return result


def on_cuda(length: int = 131_072) -> dict[str, object]:
    """131,072 tokens on the GPU: watched over plain, the memory it adds, and what a look then takes."""
    sizes = {"d_model": 1024, "d_ff": 2816, "n_heads": 16, "n_kv_heads": 4, "n_layers": 2}
    model = built(presets.llama(**sizes, vocab_size=1000, context=length)).to("cuda", torch.bfloat16)
    ids = (text(length) % 1000).to("cuda")
    kept: list[Any] = []

    def finished(run: Callable[[torch.nn.Module, torch.Tensor], object]) -> Callable[[], object]:
        def waiting() -> object:
            kept[:] = [run(model, ids)]
            torch.cuda.synchronize()
            return None

        return waiting

    figures = paired(finished(watched), finished(plain), pairs=5)
    kept.clear()
    peaks = []
    for run in (plain, watched):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        finished(run)()
        peaks.append(torch.cuda.max_memory_allocated())
        if run is plain:
            kept.clear()
    seen = kept[0]
    m = seen.map(1, 5)

    def looked(name: str, look: Callable[[], object]) -> tuple[str, float]:
        look()
        torch.cuda.synchronize()
        start = time.perf_counter()
        look()
        torch.cuda.synchronize()
        return name, round(1000 * (time.perf_counter() - start), 2)

    looks = {
        "tile_512_ms": lambda: m[length - 512 :, length - 512 :],
        "row_ms": lambda: m.row(length - 1),
        "coarse_overview_512_ms": lambda: next(m.overview(512, 512)),
        "exact_overview_512_ms": lambda: m.pool(512, 512),
        "hottest_100_ms": lambda: m.hottest(100),
    }
    return {
        "T": length,
        **figures,
        "extra_memory_over_kept": round((peaks[1] - peaks[0]) / seen.nbytes, 3),
        "kept_bytes": seen.nbytes,
        **dict(looked(name, look) for name, look in looks.items()),
        "receipts": str(seen.verify(rows=[0, length // 2, length - 1])),
    }


def family_figures(family: str, lengths: dict[int, int]) -> dict[str, object]:
    """Time and memory of one family."""
    forward = forwards(family, lengths)
    apart = [memory_apart(family, length) for length in (512, 4096)]
    for row in apart:
        print(f"{family} T={row['T']:>6}: watching adds {row['extra']:,} bytes, {row['ratio']} × q, k and log-sum-exp")
    return {"forward": forward, "memory": apart}


def eager_figures(length: int, pairs: int) -> dict[str, object]:
    """Against the way of today."""
    figures = against_eager(length, pairs=pairs)
    print(f"against transformers eager with output_attentions: {figures['times_faster']} × faster ({figures})")
    return {"T": length, **figures}


def cuda_figures() -> dict[str, object]:
    """On the GPU, or why not."""
    found = on_cuda() if torch.cuda.is_available() else {"not measured": "this machine has no CUDA device"}
    print(f"131,072 tokens on the GPU: {found}")
    return found


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["all", *FAMILIES, "eager", "cuda"], default="all")
    parser.add_argument("--quick", action="store_true", help="T 512 and 1,024 only, nothing is kept")
    parser.add_argument("--pairs", type=int, help="at most so many pairs at each length")
    parser.add_argument("--lengths", type=int, nargs="+", choices=LENGTHS, help="these alone; a family's others stay")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory(args.parts[0], args.memory)))
        return
    print(machine())
    lengths = {512: 9, 1024: 5} if args.quick else LENGTHS
    most = args.pairs or max(lengths.values())
    lengths = {length: min(pairs, most) for length, pairs in lengths.items() if length in (args.lengths or lengths)}
    measures: dict[str, Callable[[], dict[str, object]]] = {
        **{family: lambda family=family: family_figures(family, lengths) for family in FAMILIES},
        "eager": lambda: eager_figures(1024 if args.quick else 4096, min(5, most)),
        "cuda": cuda_figures,
    }
    for part in measures if "all" in args.parts else args.parts:
        figures = measures[part]()
        if not args.quick:
            before = kept("look")
            if args.lengths and part in before and part in FAMILIES:
                others = [row for row in before[part]["forward"] if row["T"] not in args.lengths]
                figures["forward"] = sorted([*others, *figures["forward"]], key=lambda row: row["T"])  # type: ignore
            keep("look", {name: before[name] for name in measures if name in before} | {part: figures})


if __name__ == "__main__":
    main()
