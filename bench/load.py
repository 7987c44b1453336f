"""What does loading cost? A 500 MB checkpoint against reading its file once, and against transformers' from_pretrained.

    python -m bench.load            everything (about two minutes on 2 cores)
    python -m bench.load --quick    a model of 50 MB, nothing is kept

1. Time, in pairs: our `load`, after which one number of each page is read, since the weights are mapped into memory and
   come in as they are used; over one read of the whole file. Also with the weights turned into bfloat16 on the way.
2. The same against transformers' `from_pretrained`, both with a read of each page.
3. Peak memory over the file's size, each in a process of its own: mapped pages count as soon as they are read.
The file is in the system's cache throughout, and also asked of the disk (`cold`), as far as the system lets go of it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.measure import alone, keep, machine, paired, peak_bytes
from clearhead.checkpoint import export, load
from clearhead.model import presets
from clearhead.model.transformer import build

KINDS = ("gpt2", "llama")
DTYPES = ("float32", "bfloat16")
SINGLE = "model.safetensors"


def make(kind: str, folder: Path, *, quick: bool) -> Path:
    """A random model of about 125 million float32 numbers, as a Hugging Face folder without a tokenizer."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = presets.gpt2(n_layers=1) if quick else presets.gpt2()
    else:
        sizes = {"n_layers": 2 if quick else 20, "n_heads": 10, "n_kv_heads": 5, "d_model": 640, "d_ff": 1792}
        config = presets.llama(**sizes, vocab_size=32_000, context=2048, tied=False)
    return export(build(config).eval(), folder / kind, family=kind)


def touched(model: torch.nn.Module) -> torch.nn.Module:
    """The model, one byte of each of its pages read."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage() for one in model.parameters()}
    for storage in storages.values():
        torch.empty(0, dtype=torch.uint8).set_(storage)[::4096].sum()
    return model


def ours(folder: Path, dtype: str) -> object:
    """Our way."""
    return touched(load(folder, dtype=dtype).model)


def theirs(folder: Path, dtype: str) -> object:
    """transformers' way."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return touched(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)))


def read_once(folder: Path) -> object:
    """The file's bytes, in memory."""
    return (folder / SINGLE).read_bytes()


def forgotten(folder: Path, run: Callable[[], object]) -> Callable[[], object]:
    """The same with the file dropped from the system's cache first."""

    def cold() -> object:
        handle = os.open(folder / SINGLE, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
        return run()

    return cold


RUNS: dict[str, Callable[[Path, str], object]] = {"ours": ours, "transformers": theirs}


def memory(who: str, folder: Path, dtype: str) -> dict[str, object]:
    """In this process: the peak of a load above what stood before, over the file's size."""
    run = RUNS[who]
    warm = next(path for path in folder.parent.iterdir() if path.name == "warm")
    run(warm, dtype)
    size = (folder / SINGLE).stat().st_size
    peak = peak_bytes(lambda: run(folder, dtype))
    return {"who": who, "dtype": dtype, "file": size, "peak": peak, "ratio": round(peak / size, 3)}


def memory_apart(who: str, folder: Path, dtype: str) -> dict[str, object]:
    """`memory` in a fresh process."""
    result: dict[str, object] = alone("bench.load", "--memory", who, str(folder), dtype)
    return result


def measure(folder: Path, pairs: int) -> dict[str, Any]:
    """All figures of one model."""
    figures: dict[str, Any] = {"file": (folder / SINGLE).stat().st_size}
    for dtype in DTYPES:
        figures[f"over_reading_{dtype}"] = paired(lambda: ours(folder, dtype), lambda: read_once(folder), pairs=pairs)  # noqa: B023
        against = paired(lambda: ours(folder, dtype), lambda: theirs(folder, dtype), pairs=pairs)  # noqa: B023
        figures[f"over_transformers_{dtype}"] = against
    figures["over_reading_cold"] = paired(
        forgotten(folder, lambda: ours(folder, "float32")), forgotten(folder, lambda: read_once(folder)), pairs=pairs
    )
    figures["memory"] = [memory_apart(who, folder, dtype) for who in RUNS for dtype in DTYPES]
    return figures


def show(kind: str, figures: dict[str, Any]) -> None:
    print(f"{kind}, {figures['file']:,} bytes")
    for name, row in figures.items():
        if name == "memory":
            for one in row:
                print(f"  peak of {one['who']} to {one['dtype']}: {one['peak']:,} bytes, {one['ratio']} × the file")
        elif name != "file":
            print(f"  {name}: {row['ours_s']} s over {row['peer_s']} s, ratio {row['ratio']} {row['ratio_range']}")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, nothing is kept")
    parser.add_argument("--pairs", type=int, default=5, help="so many pairs of each")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        who, folder, dtype = args.memory
        print(json.dumps(memory(who, Path(folder), dtype)))
        return
    print(machine())
    kept: dict[str, Any] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            folder = make(kind, Path(name), quick=args.quick)
            make(kind, Path(name) / "small", quick=True).rename(Path(name) / "warm")
            kept[kind] = measure(folder, args.pairs)
            show(kind, kept[kind])
    if not args.quick:
        keep("load", kept)


if __name__ == "__main__":
    main()
