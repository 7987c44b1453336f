"""clearhead export. Write a model, or a run's newest checkpoint, in Hugging Face's layout: transformers, vLLM and
llama.cpp read it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from clearhead.cli.options import Pickle


def export(
    model: Annotated[str, typer.Argument(help="a folder, a hub id, or an embedded name", show_default=False)],
    folder: Annotated[str, typer.Argument(help="where to write", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is there")] = False,
    pickle: Pickle = False,
) -> None:
    """Write MODEL to FOLDER: config.json, model.safetensors and the tokenizer's files. All of it or nothing.

    MODEL may be a run's folder: its newest checkpoint is written then, whole or sharded, adapters merged.
    """
    import clearhead

    if (Path(model) / "run.json").is_file():
        from clearhead.api.exporting import export_run

        written, step, found = export_run(
            Path(model), folder, overwrite=overwrite, say=lambda line: print(line, file=sys.stderr)
        )
        print(f"{written}: {model} after {step:,} steps, {found.model.n_parameters():,} parameters")
        return
    lm = clearhead.load(model, pickle=pickle)
    written = clearhead.export(lm, folder, overwrite=overwrite)
    print(f"{written}: {lm.name}, {lm.model.n_parameters():,} parameters")
