"""Makes the README's picture: the explorer as it opens, by a real browser over a real server.

    .venv/bin/python tools/screenshot.py [--dark] [--phone] [FILE]

Needs the default model, playwright and a Chromium (`apt install chromium`). The text is set in the first of the page's
fonts that this machine has; the picture in the repository was made with Inter (`apt install fonts-inter`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.browser.conftest import FLAGS, NAMES, ready  # noqa: E402
from tests.serve.running import running  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "explorer.png"
DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, "device_scale_factor": 2}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "is_mobile": True}


def take(url: str, browser: str, *, dark: bool, phone: bool, to: Path) -> None:
    """Photograph the page at `url` once everything is drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=[*FLAGS, "--font-render-hinting=none"])
        page = chromium.new_page(**(PHONE if phone else DESK), color_scheme="dark" if dark else "light")
        page.goto(url)
        ready(page)
        page.wait_for_selector("#links button")
        page.wait_for_function("() => [...document.querySelectorAll('#grid canvas')].every((c) => c.width > 1)")
        page.screenshot(path=to, full_page=phone, animations="disabled")
        chromium.close()


def shrink(picture: Path) -> None:
    """Pack it as tightly as PNG goes, without loss, and without the alpha channel that nothing uses."""
    from PIL import Image

    with Image.open(picture) as image:
        plain = image.convert("RGB")
    plain.save(picture, optimize=True)


def main() -> None:
    """Serve, photograph, shrink."""
    options = argparse.ArgumentParser(description="Makes the README's picture of the explorer.")
    options.add_argument("file", nargs="?", type=Path, default=PICTURE)
    options.add_argument("--dark", action="store_true", help="as it looks at night")
    options.add_argument("--phone", action="store_true", help="390 pixels wide, the whole page")
    asked = options.parse_args()
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("there is no Chromium here: apt install chromium")
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    with running("minilm") as explorer:
        take(explorer.url, browser, dark=asked.dark, phone=asked.phone, to=asked.file)
    shrink(asked.file)
    print(f"{asked.file}: {asked.file.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
