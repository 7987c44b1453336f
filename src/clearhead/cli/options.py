"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Pickle = Annotated[bool, typer.Option("--pickle", help="read PyTorch's own files, too, which are pickles")]
