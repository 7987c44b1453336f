"""How long does it take to start? `import clearhead` should take under 0.1 s, `clearhead --help` under 0.3 s.

    python -m bench.startup

Each time is that of a fresh Python from its start to its end; the bare interpreter stands beside it. They take turns,
and the first round, which fills the caches of files and byte code, is left out. Prints medians and keeps them in
bench/results/. Exits with 1 where a limit is passed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.measure import keep

RUNS = 15
CALLS: dict[str, tuple[list[str], float | None]] = {
    "python": (["-c", "pass"], None),
    "import clearhead": (["-c", "import clearhead"], 0.1),
    "clearhead --help": (["-m", "clearhead", "--help"], 0.3),
    "clearhead look --help": (["-m", "clearhead", "look", "--help"], None),
}
"""What is timed, and its limit in seconds."""


def seconds(arguments: list[str]) -> float:
    """The wall time of a fresh process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> int:
    """Time all of them in turn, so often; say the medians, and compare them with the limits."""
    rounds = [{name: seconds(arguments) for name, (arguments, _) in CALLS.items()} for _ in range(RUNS + 1)][1:]
    results: dict[str, object] = {}
    late = False
    for name, (_, limit) in CALLS.items():
        times = [one[name] for one in rounds]
        median = statistics.median(times)
        late |= limit is not None and median > limit
        results[name] = {"median_s": round(median, 4), "range_s": [round(min(times), 4), round(max(times), 4)]}
        print(f"{name:<24}{median:7.3f} s" + (f"   limit {limit} s" if limit is not None else ""))
    keep("startup", {"runs": RUNS, "calls": results})
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
