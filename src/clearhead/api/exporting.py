"""From a run's checkpoint to a model's folder: on one process, without what trained it, and while it still trains.

A checkpoint holds weights by our names, perhaps in parts and with adapters beside them. The recipe says of what model;
it is built, filled slice by slice, its adapters merged, and written as any other. Of the checkpoint only the weights
are read, so the memory it takes is theirs, once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from clearhead.api import resuming
from clearhead.api.building import built
from clearhead.checkpoint.pretrained import Pretrained, export
from clearhead.errors import CheckpointError, TrainingError
from clearhead.text.tokenizer import Tokenizer
from clearhead.train import sharded, state
from clearhead.train.adapters import adapt, merge
from clearhead.train.distributed import Processes


def export_run(
    run: Path, folder: str | Path, *, overwrite: bool = False, say: Callable[[str], None] = lambda _: None
) -> tuple[Path, int, Pretrained]:
    """Write the newest checkpoint of a run as a Hugging Face folder; its path, after how many steps, and the model.

    say: is told of checkpoints that are passed over. Raises TrainingError where there is none that is whole, the
    model has no such layout, or not all of its weights are numbers; what building the model and `export` raise.
    """
    recipe = resuming.recipe_of(resuming.record(run))
    parts = built(recipe, Tokenizer.load(run / "tokenizer"))
    newest = state.newest(run, say)
    if newest is None:
        raise TrainingError(f"{run} has no checkpoint that is whole; let the run come to its first one.")
    pretrained = parts.pretrained
    if pretrained is None:
        raise TrainingError(
            f"{run} trains a recurrent model, and Hugging Face's layout has none; its weights are in it."
        )
    adapt(parts.model, recipe.adapters)
    step = fill(parts.model, newest)
    merge(parts.model)
    parts.model.eval()
    if (name := state.not_finite(parts.model.state_dict())) is not None:
        raise TrainingError(f"{newest} is not exported, for its {name} is not all numbers: the run has diverged.")
    return export(pretrained, folder, overwrite=overwrite), step, pretrained


def fill(model: nn.Module, checkpoint: Path) -> int:
    """Give a model, adapters and all, a checkpoint's weights, whole or sharded; after how many steps it was written.

    Raises CheckpointError where they are another model's.
    """
    if state.is_sharded(checkpoint):
        return sharded.load(checkpoint, model, Processes("alone"), what=("model",)).step
    try:
        model.load_state_dict(state.weights(checkpoint), assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} is of another model: {str(error).splitlines()[-1].strip()}") from None
    return resuming.step_of(checkpoint)
