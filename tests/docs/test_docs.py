"""The pages tell the truth: their code runs, and prints what they say it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/tour").glob("*.md")), ROOT / "docs/scale.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_prints_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page share one namespace; a `text` block right after a `python` block is what that one prints."""
    import torch

    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    space: dict[str, object] = {"__name__": "__page__"}
    with torch.random.fork_rng():
        for (kind, code), (following, expected) in zip(blocks, [*blocks[1:], ("", "")], strict=False):
            if kind != "python":
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, f"{page.name}: {code.splitlines()[0]}", "exec"), space)
            if following == "text":
                assert printed.getvalue().rstrip() == expected.rstrip(), code
            else:
                assert not printed.getvalue(), f"this prints and the page does not say what:\n{code}"
    torch.set_printoptions(profile="default")


@pytest.mark.parametrize(
    "page", sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")}), ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
