"""How large is the page of `look --html`, and how soon is it open? 12 layers of 12 heads at 512 tokens, in Chromium.

    python -m bench.page            GPT-2 124M of ours with random weights, and MiniLM (6 layers × 12 heads of 32) as it
                                    was trained, at its own size and in a quarter of the room, as it has of the numbers
    python -m bench.page --quick    one opening each, nothing is kept

Open is the moment at which the chosen head's map stands on the screen, counted from the request for the page, which is
a file on this disk. The other heads' pictures follow; when the last is painted is said, too. Then the weights that the
page derives are compared with the lens's: of every head, four queries against all keys.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.measure import keep, machine
from clearhead.lens.look import Look, look
from clearhead.model import presets
from clearhead.model.transformer import build
from clearhead.serve import still
from tests.browser.conftest import FLAGS, NAMES
from tests.cli.small import Words

TOKENS = 512

DRAWN = "() => { const map = document.getElementById('map'); return map && map.style.width !== ''; }"
PAINTED = (
    "() => [...document.querySelectorAll('#grid canvas')].every((canvas) => canvas.width > 1 && canvas.width !== 300)"
)


def gpt2_like() -> Any:
    """12 layers of 12 heads of 64, random weights; as much of `clearhead.Loaded` as a page needs."""
    torch.manual_seed(0)
    model = build(presets.gpt2(context=TOKENS)).eval()
    lm = SimpleNamespace(name="gpt2-124m-random", model=model, tokenizer=Numbers())
    lm.look = lambda text, target=None: look(lm, text, target)
    return lm


class Numbers(Words):
    """Words as ids, all of them different, as many as a text has."""

    def __init__(self) -> None:
        super().__init__(framed=False)

    def encode(self, text: str, /) -> Any:
        encoding = super().encode(text)
        encoding.ids = [(7919 * n) % 50_257 for n in range(len(encoding.ids))]
        return encoding


def a_text(tokens: int) -> str:
    """Some words of this house's own."""
    words = " ".join(Path(__file__).parent.parent.joinpath("docs/tour/1-attention.md").read_text().split())
    return " ".join("".join(c if c.isalnum() else " " for c in words).split()[:tokens])


def minilm_text(lm: Any) -> str:
    """As many of those words as MiniLM's 512 positions hold."""
    words = a_text(TOKENS).split()
    while len(lm.tokenizer.encode(" ".join(words)).ids) > TOKENS:
        words = words[:-1]
    return " ".join(words)


def measure(browser: Any, lm: Any, text: str, times: int, folder: Path) -> dict[str, object]:
    """One page: its bytes, what rounding cost, how soon it is open, and how far its weights are from the lens's."""
    seen = lm.look(text)
    path = folder / f"{lm.name}.html"
    started = time.perf_counter()
    layers = seen.n_layers()
    size = still.write(path, lm, seen, still.Opening(seen.kinds[0], layers - 1, 0))
    wrote = time.perf_counter() - started
    packed = still.fitted(seen)
    opened, painted = [], []
    for n in range(times):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_function(DRAWN, polling="raf", timeout=120_000)
        opened.append(page.evaluate("performance.now()") / 1000)
        page.wait_for_function(PAINTED, polling=100, timeout=300_000)
        painted.append(page.evaluate("performance.now()") / 1000)
        if n == 0:
            worst = difference(page, seen)
        page.close()
    figures: dict[str, object] = {
        "model": lm.name,
        "layers": layers,
        "heads": seen.n_heads(),
        "tokens": len(seen.tokens),
        "bytes": size,
        "bits": packed.bits,
        "stated_error": packed.error,
        "largest_difference_to_the_lens": worst,
        "write_s": round(wrote, 2),
        "open_s": round(statistics.median(opened), 3),
        "open_range_s": [round(min(opened), 3), round(max(opened), 3)],
        "all_heads_painted_s": round(statistics.median(painted), 2),
        "openings": times,
        "browser": browser.version,
    }
    print(figures)
    return figures


def difference(page: Any, seen: Look) -> float:
    """The largest difference between a weight that the page derives and the lens's, of four queries of every head."""
    worst = 0.0
    rows = [0, len(seen.tokens) // 3, len(seen.tokens) // 2, len(seen.tokens) - 1]
    for layer in range(seen.n_layers()):
        for head in range(seen.n_heads(layer=layer)):
            derived = page.evaluate("([l, h, rows]) => rows.map((i) => [...weights(l, h, i)])", [layer, head, rows])
            m = seen.map(layer, head)
            exact = torch.stack([m.row(i) for i in rows]).double()
            worst = max(worst, float((torch.tensor(derived, dtype=torch.float64) - exact).abs().max()))
    return worst


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one opening each, nothing is kept")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    import clearhead

    print(machine())
    minilm = clearhead.load("minilm")
    times = 1 if args.quick else 7
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = next(path for name in NAMES if (path := shutil.which(name)))
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        pages = [
            measure(browser, gpt2_like(), a_text(TOKENS), times, Path(folder)),
            measure(browser, minilm, minilm_text(minilm), times, Path(folder)),
        ]
        still.MOST = still.MOST // 4 + still.PAGE  # MiniLM has a quarter of GPT-2's numbers: what a trained model costs
        pages.append({**measure(browser, minilm, minilm_text(minilm), times, Path(folder)), "most_bytes": still.MOST})
        browser.close()
    if not args.quick:
        keep("page", {"pages": pages})


if __name__ == "__main__":
    main()
