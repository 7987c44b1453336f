"""Takes a run's model into the package, in float16: src/clearhead/trained/NAME, with the curve of its training.

    .venv/bin/python tools/take_in.py runs/dates dates

The card, README.md, is written by hand and stays. Figures on it are of what this writes (`python -m bench.dates`).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402
from PIL import Image  # noqa: E402

import clearhead  # noqa: E402
from clearhead.checkpoint.embedded import TRAINED  # noqa: E402


def take_in(run: Path, name: str) -> Path:
    """Write the folder of `name`; its card, where there is one, stays."""
    target = TRAINED / name
    target.mkdir(parents=True, exist_ok=True)
    lm = clearhead.load(run / "model", dtype=torch.float16)
    with tempfile.TemporaryDirectory() as scratch:
        for path in clearhead.export(lm, Path(scratch) / name).iterdir():
            shutil.copyfile(path, target / path.name)
    with Image.open(run / "curve.png") as curve:  # in few colours: it travels with every copy of the package
        curve.convert("RGB").quantize(32, dither=Image.Dither.NONE).save(target / "curve.png", optimize=True)
    return target


def main() -> None:
    """Take in what the command line names, and say how large each file is."""
    if len(sys.argv) != 3:
        sys.exit("give a run's folder and a name: tools/take_in.py runs/dates dates")
    folder = take_in(Path(sys.argv[1]), sys.argv[2])
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>10,}  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
