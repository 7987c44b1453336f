"""Record an oracle that cannot drift: one tiny model of each family, with what transformers said on the day.

    python -m tests.parity.record [FAMILY …]     families without a record, or those named

Each record is one safetensors file: the weights, the texts and the logits, with the config, the class and
transformers' version in its header. A family that transformers comes to read otherwise still has to match it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearhead.checkpoint import load
from tests.parity import support
from tests.parity.grids import Grid, grids

RECORDED = Path(__file__).parent / "recorded"


@torch.no_grad()
def record(grid: Grid) -> Path:
    """Draw the family's small model, ask transformers, and keep both."""
    torch.manual_seed(0)
    kind, config = next(iter(grid.classes)), grid.small()
    theirs = support.tiny(grid.classes[kind], config, **grid.options.get(kind, {}))
    ids, real = support.texts(config.vocab_size, pad="right")
    asked: dict[str, Any] = {"attention_mask": real}
    if config.is_encoder_decoder:
        asked["decoder_input_ids"] = torch.randint(1, config.vocab_size, (3, 5))
    said = theirs(ids, **asked).logits
    with support.folder() as path:
        theirs.save_pretrained(path)
        weights = load_file(path / "model.safetensors")
        keys = (path / "config.json").read_text()
    tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
    tensors |= {"ids": ids, "logits": said.contiguous(), **asked}
    header = {"config": keys, "class": type(theirs).__name__, "transformers": transformers.__version__}
    target = RECORDED / f"{grid.family}.safetensors"
    save_file(tensors, target, metadata=header)
    return target


@torch.no_grad()
def replay(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Our logits of a record, the recorded ones, and where they are of real tokens."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    with support.folder() as folder:
        (folder / "config.json").write_text(json.dumps(json.loads(header["config"])))
        weights = {name.removeprefix("weights/"): one for name, one in tensors.items() if name.startswith("weights/")}
        save_file(weights, folder / "model.safetensors")
        model: Any = load(folder).model
    ids, real, decoder_ids = tensors["ids"], tensors["attention_mask"], tensors.get("decoder_input_ids")
    if decoder_ids is not None:
        got = model(ids, decoder_ids, attention_mask=real).logits
        return got, tensors["logits"], torch.ones_like(decoder_ids, dtype=torch.bool)
    return model(ids, attention_mask=real).logits, tensors["logits"], real.bool()


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for name, grid in sorted(grids().items()):
        if name in wanted or (not wanted and not (RECORDED / f"{name}.safetensors").exists()):
            print(record(grid))
