"""clearhead finetune. A trained model, some data, a task: the recipe is written for you, and carried out.

The recipe is shown first and saved as RUN/recipe.toml, so that the next run can begin from it with `clearhead train`.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead.cli.given import reads_data
from clearhead.errors import InputError

if TYPE_CHECKING:
    from clearhead.api.sources import Reading


@reads_data
def finetune(
    model: Annotated[str, typer.Argument(help="a folder, a hub id or an embedded name", show_default=False)],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA… [KEY=VALUE…]",
            help="files or folders; and changes to the recipe, such as loop.optimiser.rate=1e-4",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="the run's folder; runs/NAME by itself")] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="data to evaluate on; the last tenth of DATA by itself"),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="train small companions of frozen weights, not the weights")
    ] = False,
    epochs: Annotated[float, typer.Option(help="how often each row is seen")] = 3.0,
    reading: Reading,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write the recipe to stdout, and train nothing")] = False,
) -> None:
    """Train MODEL further on DATA: to label texts or words, to translate, or to go on from texts of a new kind.

    What to learn follows from the data's columns, and its labels are found in it. Ctrl-C saves and says how to go on.
    """
    if not data:
        raise InputError("no data: name at least one file or folder to learn from.")
    from clearhead.api.finetune import recipe_for

    written = recipe_for(model, data, reading, validation=validation or None, lora=lora, epochs=epochs)
    from clearhead.cli.train import _speaks, carry_out

    if _speaks():
        for note in written.notes:
            print(f"note: {note}", file=sys.stderr)
    recipe = written.toml(f"Written by: clearhead {shlex.join(sys.argv[1:])}" if sys.argv[1:2] == ["finetune"] else "")
    if dry_run:
        print(recipe, end="")
        return
    folder = out if out is not None else Path("runs") / f"{Path(model).name}-{Path(data[0]).stem}"
    if _speaks():
        print(recipe, file=sys.stderr)
    carry_out(written.recipe, folder, recipe=recipe)
