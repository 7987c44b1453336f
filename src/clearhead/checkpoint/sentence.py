"""Sentence embedders: the small files that sentence-transformers puts beside a base model, read and written.

modules.json names the steps after the model: pooling, whose own folder says how, and perhaps normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearhead.checkpoint.config_rules import shown
from clearhead.checkpoint.files import parse_json, read_bytes, read_json
from clearhead.checkpoint.writing import write_json
from clearhead.errors import CheckpointError, UnknownKeyError, UnsafeFileError
from clearhead.model.config import Pooling, SentenceEmbedding

MODULES = "modules.json"
KEPT = ("sentence_bert_config.json", "config_sentence_transformers.json")
MODES: dict[str, Pooling] = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
NAMES: dict[str, Pooling] = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}
OTHER_MODES = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")


@dataclass(frozen=True)
class Sentence:
    """A folder's pooling, as our head; `files` are kept as they are; `notes` say what they ask for and we do not do."""

    head: SentenceEmbedding
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_sentence(folder: Path) -> Sentence | None:
    """The sentence embedder that a folder is, or None. Raises UnknownKeyError for steps that we do not have."""
    path = folder / MODULES
    if not path.is_file():
        return None
    steps = parse_json(read_bytes(path), str(path))
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"{path} is no list of modules; fetch it again.")
    kinds = [str(step.get("type")).rsplit(".", 1)[-1] for step in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnknownKeyError(
            f"{path}: the steps {shown(kinds)} are not read; we have Transformer, Pooling, Normalize."
        )
    place = steps[1].get("path")
    if not isinstance(place, str) or not _lies_in(folder, place):
        raise UnsafeFileError(f"{path} names the folder {shown(place)}, which is none of its own; correct the file.")
    pooling = _pooling(read_json(folder / place / "config.json"), folder / place / "config.json")
    files = {name: read_json(folder / name) for name in KEPT if (folder / name).is_file()}
    settings = files.get(KEPT[0], {})
    if settings.get("do_lower_case") not in (None, False):
        raise UnknownKeyError(f"{folder / KEPT[0]}: do_lower_case is not done here; let the tokenizer lower the case.")
    notes: tuple[str, ...] = ()
    if settings.get("max_seq_length") is not None:
        notes = (
            f"sentence-transformers cuts texts at {shown(settings['max_seq_length'])} tokens; nothing is cut here",
        )
    return Sentence(SentenceEmbedding(pooling=pooling, normalise=len(kinds) == 3), files, notes)


def _lies_in(folder: Path, name: str) -> bool:
    """Whether the name is one of the folder's own; a link in it may not lead out of it. (Files may be links: the
    hub's cache is made of them.)"""
    if Path(name).name != name or name in ("", ".", "..") or any(mark in name for mark in "\\:\0"):
        return False
    try:
        return (folder / name).resolve().parent == folder.resolve()
    except (OSError, ValueError, RuntimeError):  # no name that a file could have, or links in a circle
        return False


def _pooling(says: dict[str, Any], path: Path) -> Pooling:
    """One way of pooling, in either spelling."""
    if "pooling_mode" in says:
        mode = says["pooling_mode"]
        if isinstance(mode, str) and mode in NAMES:
            return NAMES[mode]
        raise UnknownKeyError(f"{path}: pooling_mode={shown(mode)} is not had; we have {', '.join(NAMES)}.")
    chosen = [mode for mode in (*MODES, *OTHER_MODES) if says.get(mode)]
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise UnknownKeyError(f"{path}: pooling by {shown(chosen)} is not had; choose one of {', '.join(MODES)}.")
    return MODES[chosen[0]]


def write_sentence(folder: Path, head: SentenceEmbedding, d_model: int, files: dict[str, dict[str, Any]]) -> None:
    """The files of a sentence embedder, as sentence-transformers reads them."""
    names = ["Transformer", "Pooling", *(["Normalize"] if head.normalise else [])]
    steps = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{name}" if index else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(names)
    ]
    write_json(folder / MODULES, steps)
    modes = {mode: pooling == head.pooling for mode, pooling in MODES.items()}
    says = {"word_embedding_dimension": d_model, **modes, **dict.fromkeys(OTHER_MODES, False)}
    write_json(folder / "1_Pooling" / "config.json", says)
    for name, value in files.items():
        write_json(folder / name, value)
