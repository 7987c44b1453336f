"""A few verses, and the recipe of a decoder that learns them in no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VERSES = "".join(
    f"the {a} {b} sat on the {c}.\n" for a in ("old", "new") for b in ("cat", "dog") for c in ("mat", "hat")
)

RECIPE = """
batch = 4

[data]
source = { kind = "text-files", paths = ["verses.txt"] }
packing = { kind = "windows", length = 16 }

[tokenizer]
kind = "new-tokenizer"
learn = "character"

[model]
kind = "gpt2"
n_layers = 1
n_heads = 2
d_model = 16

[loop]
steps = 4
precision = "float32"
optimiser = { kind = "adamw", rate = 1e-3 }
save_every = 2

[evaluation]
batches = 2
"""


def laid_out(folder: Path) -> Path:
    """The recipe, and its text beside it."""
    (folder / "verses.txt").write_text(VERSES * 8)
    (folder / "verses.toml").write_text(RECIPE)
    return folder / "verses.toml"


def contents(folder: Path) -> dict[Path, Any]:
    """Every file below a folder, with its time."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
