"""A source: where a checkpoint was found, read so far that a model can be filled from it, and no further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clearhead.checkpoint import families
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.files import SafetensorsFolder, read_json
from clearhead.checkpoint.sentence import Sentence, read_sentence
from clearhead.checkpoint.transfer import Tensors
from clearhead.errors import CheckpointError
from clearhead.text.folder import READERS
from clearhead.text.tokenizer import Tokenizer

CONFIG = "config.json"
GENERATION = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint before its model is built.

    keys: its config as the file has it. exports_as: the family that it is written back as. dtype: what its weights
    are held in unless the caller says; None is the files' own.
    """

    name: str
    where: str
    family: Family
    keys: dict[str, Any]
    tensors: Tensors
    tokenizer: Callable[[], Tokenizer | None]
    exports_as: str
    generation: dict[str, Any] | None = None
    sentence: Sentence | None = None
    dtype: torch.dtype | None = None


def from_folder(folder: Path, name: str) -> Source:
    """The checkpoint in a folder. Raises CheckpointError (or its kin) where it is not one that we can read."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}; it is not a model's folder.")
    keys = read_json(folder / CONFIG)
    family = families.family(keys.get("model_type"), str(folder / CONFIG))
    return Source(
        name=name,
        where=str(folder / CONFIG),
        family=family,
        keys=keys,
        tensors=SafetensorsFolder.of(folder),
        tokenizer=lambda: _tokenizer(folder),
        exports_as=family.model_type,
        generation=read_json(folder / GENERATION) if (folder / GENERATION).is_file() else None,
        sentence=read_sentence(folder),
    )


def _tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer, or None where it has no file of one. Raises TokenizerError for one that is damaged."""
    held = any((folder / name).is_file() for name in READERS) or any(folder.glob("*.model"))
    return Tokenizer.load(folder) if held else None
