"""clearhead embed. One vector for each text.

On stdout a line for each text, {"text", "embedding": [numbers]}; fields may be added. --output writes one numpy array
instead, a row for each text.
"""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.options import HeadClass, Pickle, loaded
from clearhead.errors import InputError

if TYPE_CHECKING:
    import numpy as np


class PoolingChoice(str, Enum):  # noqa: UP042 — typer below 0.19 shows str subclasses best
    """The ways of `--pooling`."""

    first = "first"
    last = "last"
    mean = "mean"
    max = "max"


def embed(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="what to embed", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="a folder, a hub id, or an embedded name")] = "minilm",
    pooling: Annotated[
        PoolingChoice | None, typer.Option(help="how tokens become one vector; the checkpoint says, if it can")
    ] = None,
    normalise: Annotated[
        bool | None, typer.Option("--normalise/--no-normalise", help="whether vectors get length 1; likewise")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.npy", help="write an array")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout, as without --output")] = False,
    head: HeadClass = None,
    pickle: Pickle = False,
) -> None:
    """Give one vector for each TEXT, pooled and normalised as MODEL's files say: JSON lines, or an array in a file."""
    if output is not None:
        _check(output)

    lm = loaded(model, head=head, pickle=pickle)
    vectors = lm.embed(texts, pooling=pooling.value if pooling is not None else None, normalise=normalise).float().cpu()
    if output is not None:
        _write(output, vectors.numpy())
        print(f"{output}: {vectors.shape[0]} vectors of {vectors.shape[1]} numbers")
    if output is None or as_json:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            print(json.dumps({"text": text, "embedding": vector}, ensure_ascii=False))


def _check(output: Path) -> None:
    """Raise InputError where no array can be written, before anything is read."""
    if output.suffix != ".npy":
        raise InputError(f"--output {str(output)!r} is no .npy file; name one, such as vectors.npy.")
    if output.exists() and not output.is_file():
        raise InputError(f"--output {str(output)!r} is no ordinary file; write to another.")
    if not output.parent.is_dir():
        raise InputError(f"--output {str(output)!r}: there is no folder {str(output.parent)!r}; make it first.")


def _write(output: Path, vectors: np.ndarray) -> None:
    """The whole file or none: into a neighbour first, which then takes its name."""
    import numpy as np

    neighbour = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with neighbour.open("wb") as file:
            np.save(file, vectors)
        os.replace(neighbour, output)
    except OSError as error:
        neighbour.unlink(missing_ok=True)
        raise InputError(f"--output {str(output)!r} cannot be written: {error.strerror}; write elsewhere.") from None
