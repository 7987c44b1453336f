"""Makes the pictures of docs/tour/9-ways-out.md: two heads and all heads of MiniLM, and the page in a browser.

    .venv/bin/python tools/pictures.py

Needs the default model, matplotlib, playwright and a Chromium. Pictures are set in the first of the fonts that this
machine has; those in the repository were made with Liberation Sans and, the page, with Inter.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import clearhead  # noqa: E402
from clearhead.lens import write_picture  # noqa: E402
from clearhead.serve import still  # noqa: E402
from tests.browser.conftest import FLAGS, NAMES  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
TEXT = "The animal didn't cross the street because it was too tired"


def shrink(picture: Path, colours: int = 0) -> None:
    """Pack it tightly: without loss, or, for a photograph of a page, in so many colours."""
    from PIL import Image

    with Image.open(picture) as image:
        plain = image.convert("RGB")
    if colours:
        plain = plain.quantize(colours, dither=Image.Dither.NONE)
    plain.save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size // 1024} kB")


def photograph(page: Path, to: Path) -> None:
    """The page as it opens, once all heads are painted."""
    from playwright.sync_api import sync_playwright

    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("there is no Chromium here: apt install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=[*FLAGS, "--font-render-hinting=none"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1.5)
        tab.goto(page.as_uri())
        tab.wait_for_selector("script[id^=data-]", state="detached")
        tab.wait_for_timeout(1500)
        tab.screenshot(path=to, animations="disabled")
        chromium.close()


def main() -> None:
    """Look, draw, photograph, shrink."""
    lm = clearhead.load("minilm")
    seen = clearhead.look(lm, TEXT)
    words = " ".join((ROOT / "docs/tour/1-attention.md").read_text().split())
    write_picture(PICTURES / "head.png", seen, layer=5, head=11)
    write_picture(PICTURES / "heads.png", seen)
    write_picture(PICTURES / "long-head.png", clearhead.look(lm, words[:520]), layer=3, head=1)
    for name in ("head", "heads", "long-head"):
        shrink(PICTURES / f"{name}.png")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        still.write(page, lm, seen, still.Opening("encoder", 5, 11, seen.find("it")[0], seen.find("animal")[0]))
        photograph(page, PICTURES / "page.png")
    shrink(PICTURES / "page.png", colours=256)


if __name__ == "__main__":
    main()
