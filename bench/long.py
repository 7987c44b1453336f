"""How long may a text be? One head at 32,768 tokens, 72 heads at 131,072 in a file, and a forward pass over 65,536.

    python -m bench.long                    everything (about ten minutes on 2 cores; 5 GB of disk in --folder)
    python -m bench.long --only 32768       one part: 32768, 131072 or 65536; nothing is kept
    python -m bench.long --quick            every part at an eighth of its length, nothing is kept

1. T = 32,768, one head, causal, D = 64, float32: a tile, a row, a coarse overview, the exact one, the hottest cells.
2. T = 131,072, 6 layers × 12 heads, spilled to a file and read back: a row and a tile of a head drawn at random, and
   the largest resident memory of the process that did so, mapped pages of the file included. q and k are drawn at
   random, and the log-sum-exp is worked out for the rows that are read: the kernel would take half an hour for all.
3. T = 65,536: a two-layer model, watched as it runs, and its receipts.
Each part runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.measure import keep, machine, status_bytes
from clearhead.lens.kept.call import Call
from clearhead.lens.kept.keep import Choice, Spilled
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.maps.softmax import log_sum_exp
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.kernels import Scoring, fused_with_lse
from clearhead.model.masks import Causal, Mask
from clearhead.model.transformer import build

WIDTH, LAYERS, HEADS = 64, 6, 12
SCORING = Scoring(WIDTH**-0.5, Mask((Causal(),)))


def timed(run: Callable[[], object], times: int) -> dict[str, float]:
    """Milliseconds: the median, and the slowest. The first run warms and is not counted."""
    run()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - start))
    return {"ms": round(statistics.median(taken), 2), "slowest_ms": round(max(taken), 2), "times": times}


def one_head(length: int, folder: Path) -> dict[str, object]:
    """Everything that is asked of one long head."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, length, WIDTH) for _ in range(3))
    m = AttentionMap(q, k, fused_with_lse(q, k, v, SCORING)[1], SCORING)
    last, half = length - 512, length // 2
    return {
        "T": length,
        "tile_512_diagonal": timed(lambda: m[last:, last:], 21),
        "tile_512_inside": timed(lambda: m[last:, half : half + 512], 21),
        "row": timed(lambda: m.row(length - 1), 21),
        "column": timed(lambda: m.column(half), 21),
        "coarse_overview_512": timed(lambda: next(m.overview(512, 512)), 7),
        "exact_overview_512_max": timed(lambda: m.pool(512, 512, "max"), 3),
        "exact_overview_512_mean": timed(lambda: m.pool(512, 512, "mean"), 3),
        "hottest_100": timed(lambda: m.hottest(100), 3),
        "column_sums": timed(m.column_sums, 3),
        "top_5_of_every_row": timed(lambda: m.top_rows(5), 1),
        "receipt": str(m.verify()),
    }


def spilled(length: int, folder: Path) -> dict[str, object]:
    """72 heads that are in a file, read here and there."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([0, length // 3, length // 2, length - 2, length - 1])
    choice = Choice(keep=Spilled(folder))
    calls, kept = [], 0
    start = time.perf_counter()
    for layer in range(LAYERS):
        q, k = (torch.randn(1, HEADS, length, WIDTH, generator=generator) for _ in range(2))
        lse = torch.full((1, HEADS, length), 10.0)
        for head in range(HEADS):
            one = slice(head, head + 1)
            lse[:, one, rows] = log_sum_exp(q[:, one, rows], k[:, one], SCORING, rows)
        where = {"kind": "decoder", "layer": layer, "module": "drawn"}
        calls.append(Call(q, k, lse, SCORING, **where, choice=choice))
        kept += calls[-1].nbytes
        del q, k
    seconds = time.perf_counter() - start

    def drawn(below: int) -> int:
        return int(torch.randint(below, (1,), generator=generator))

    def some_map() -> AttentionMap:
        return calls[drawn(LAYERS)].map(drawn(HEADS))

    def some_tile() -> object:
        a, b = (drawn(length - 512) for _ in range(2))
        a, b = max(a, b), min(a, b)
        return some_map()[a : a + 512, b : b + 512]

    worst = max(
        abs(float(call.map(head).row(row).sum()) - 1)
        for call in calls
        for head in range(HEADS)
        for row in rows.tolist()[-2:]
    )
    return {
        "T": length,
        "heads": LAYERS * HEADS,
        "kept_bytes": kept,
        "written_in_s": round(seconds, 1),
        "row": timed(lambda: some_map().row(int(rows[drawn(len(rows))])), 41),
        "last_row": timed(lambda: some_map().row(length - 1), 41),
        "tile_512": timed(some_tile, 41),
        "largest_error_of_a_row_sum": worst,
        "peak_resident_bytes": status_bytes("VmHWM"),
        "of_it_anonymous_now": status_bytes("RssAnon"),
    }


def forward(length: int, folder: Path) -> dict[str, object]:
    """One pass of a model that we have, watched."""
    torch.manual_seed(0)
    sizes = {"n_layers": 2, "n_heads": 4, "d_model": 4 * WIDTH, "vocab_size": 1000}
    model = build(presets.gpt2(**sizes, context=length)).eval()
    ids = torch.randint(1000, (1, length))
    start = time.perf_counter()
    with torch.inference_mode(), watch(model, receipts=True) as seen:
        model(ids)
    seconds = time.perf_counter() - start
    m = seen.map(1, 3)
    return {
        "T": length,
        "forward_s": round(seconds, 1),
        "kept_bytes": seen.nbytes,
        "row": timed(lambda: m.row(length - 1), 11),
        "tile_512": timed(lambda: m[length - 512 :, length - 512 :], 11),
        "coarse_overview_512": timed(lambda: next(m.overview(512, 512)), 3),
        "receipts": str(seen.verify(rows=[0, length // 2, length - 1])),
        "peak_resident_bytes": status_bytes("VmHWM"),
    }


PARTS: dict[str, Callable[[int, Path], dict[str, object]]] = {
    "32768": one_head,
    "131072": spilled,
    "65536": forward,
}


def apart(part: str, length: int, folder: str) -> dict[str, object]:
    """One part in a fresh process."""
    command = [sys.executable, "-m", "bench.long", "--part", part, "--length", str(length), "--folder", folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="an eighth of each length, nothing is kept")
    parser.add_argument("--only", choices=PARTS, help="this part alone, nothing is kept")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where 131,072 tokens are spilled to (5 GB)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args.length, Path(args.folder))))
        return
    print(machine())
    found: dict[str, object] = {}
    for part in [args.only] if args.only else PARTS:
        found[part] = apart(part, int(part) // (8 if args.quick else 1), args.folder)
        print(json.dumps(found[part], indent=1, ensure_ascii=False))
    if not args.quick and not args.only:
        keep("long", found)


if __name__ == "__main__":
    main()
