"""What every bench needs: pairs timed in turn, the machine's name, and a place where figures are kept."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """The processor, its cores, and the versions that a figure depends on."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    named: dict[str, object] = {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        named["gpu"] = torch.cuda.get_device_name()
    return named


Timed = tuple[float, float]
"""Seconds by the clock, and seconds that the processor worked (all threads, the system's share too)."""


def timed(run: Callable[[], object]) -> Timed:
    """What one run takes."""
    gc.collect()
    start, began = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - began


def paired(ours: Callable[[], object], peer: Callable[[], object], *, pairs: int, warmup: int = 1) -> dict[str, object]:
    """Run the two in turn, `pairs` times; seconds of each, and the median of the ratios ours/peer pair by pair.

    cpu_ratio is of the seconds that the processor worked for each: where others want the machine as well, it wanders
    less than the clock.
    """
    return in_turn(lambda: timed(ours), lambda: timed(peer), pairs=pairs, warmup=warmup)


def in_turn(ours: Callable[[], Timed], peer: Callable[[], Timed], *, pairs: int, warmup: int = 1) -> dict[str, object]:
    """`paired` of two that time themselves, such as two processes (`Apart`)."""
    for _ in range(warmup):
        ours()
        peer()
    found: dict[str, list[Timed]] = {"ours": [], "peer": []}
    for pair in range(pairs):
        order = [("ours", ours), ("peer", peer)]
        for name, run in order if pair % 2 else order[::-1]:
            found[name].append(run())
    (ours_s, ours_cpu), (peer_s, peer_cpu) = (zip(*found[name], strict=True) for name in ("ours", "peer"))
    ratios = [a / b for a, b in zip(ours_s, peer_s, strict=True)]
    return {
        "ours_s": round(statistics.median(ours_s), 4),
        "peer_s": round(statistics.median(peer_s), 4),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
        "cpu_ratio": round(statistics.median(a / b for a, b in zip(ours_cpu, peer_cpu, strict=True)), 4),
        "pairs": pairs,
    }


class Apart:
    """A process of its own that calls `answer`: it runs once whenever it is called here, and says what that took."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe)

    def __call__(self) -> Timed:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, worked = json.loads(self._process.stdout.readline())
        return seconds, worked

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends where its input ends


def answer(run: Callable[[], object]) -> None:
    """Run once for each line that comes in, and say what it took; in a process that is kept `Apart`."""
    for _ in sys.stdin:
        print(json.dumps(timed(run)), flush=True)


def peak_bytes(run: Callable[[], object]) -> int:
    """How much higher this process's resident memory rose while `run` ran than it stood before (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = status_bytes("VmRSS")
    kept = run()
    peak = status_bytes("VmHWM")
    del kept
    return peak - before


def status_bytes(key: str) -> int:
    """One of this process's sizes, in bytes, as Linux tells it: VmRSS, VmHWM, RssAnon …"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def alone(*command: str) -> Any:
    """What `python -m COMMAND` prints last, as JSON: a fresh process, whose allocator gives large blocks back."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    told = subprocess.run([sys.executable, "-m", *command], env=environment, check=True, capture_output=True, text=True)
    return json.loads(told.stdout.splitlines()[-1])


def kept(name: str) -> dict[str, Any]:
    """What was measured before; nothing where nothing was."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def keep(name: str, figures: dict[str, object]) -> Path:
    """Write the figures and the machine to bench/results/NAME.json and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    print(f"kept in {path}")
    return path


def keep_part(name: str, part: str, figures: dict[str, object]) -> Path:
    """Write one part's figures to bench/results/NAME.json, with the machine it was measured on; the others stay."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**kept(name), part: {"machine": machine(), **figures}}, indent=1) + "\n")
    print(f"{part} kept in {path}", flush=True)
    return path
