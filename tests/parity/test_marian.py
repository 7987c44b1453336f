"""Marian and Pegasus, past their grids: tables of tokens that are one, two or untied, and tables of sinusoids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    MarianConfig,
    MarianModel,
    MarianMTModel,
    PegasusConfig,
    PegasusForConditionalGeneration,
)

from clearhead.checkpoint import export, load
from clearhead.errors import CheckpointError
from tests.parity import support
from tests.parity.grids.bart import SMALL
from tests.parity.test_bart import rewritten, same_in_transformers

POSITIONS = "model.decoder.embed_positions.weight"


def test_what_opus_mt_says_and_stores_is_read(tmp_path: Path) -> None:
    theirs = support.tiny(MarianMTModel, MarianConfig(**SMALL, scale_embedding=True, activation_function="swish"))
    theirs.save_pretrained(tmp_path)
    old = {
        "_num_labels": 3,
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "bad_words_ids": [[19]],
        "classif_dropout": 0.0,
        "normalize_before": False,
        "normalize_embedding": False,
        "num_hidden_layers": 2,
        "static_position_embeddings": True,
    }
    tables = {
        f"model.{name}.embed_positions.weight": stack.embed_positions.weight.detach().clone()
        for name, stack in (("encoder", theirs.model.encoder), ("decoder", theirs.model.decoder))
    }
    rewritten(tmp_path, keys=old, tensors=tables)
    ours = load(tmp_path)
    support.same_pair(ours.model, theirs, 20, pads=("none", "right"), alone=True)
    why = {account.name: (account.fate, account.why) for account in ours.report.tensors}
    assert why[POSITIONS] == ("ignored", "worked out from the config, with the same numbers")
    assert POSITIONS not in load_file(export(ours, tmp_path / "out") / "model.safetensors")
    same_in_transformers(tmp_path / "out", MarianMTModel, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pegasus_finds_its_sinusoids_in_the_export(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = support.tiny(PegasusForConditionalGeneration, PegasusConfig(**SMALL)).to(dtype)
    ours = support.loaded(theirs, tmp_path)
    export(ours, tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path, tmp_path / "out"))
    assert torch.equal(before[POSITIONS], after[POSITIONS])


@pytest.mark.parametrize("cls", [MarianModel, PegasusForConditionalGeneration])
def test_sinusoids_that_are_none_are_refused_by_name(cls: Any, tmp_path: Path) -> None:
    config = PegasusConfig(**SMALL) if cls is PegasusForConditionalGeneration else MarianConfig(**SMALL)
    support.tiny(cls, config).save_pretrained(tmp_path)
    name = next(name for name in load_file(tmp_path / "model.safetensors") if "decoder.embed_positions" in name)
    rewritten(tmp_path, tensors={name: torch.randn(12, 8)})
    with pytest.raises(CheckpointError, match=f"{name} holds other numbers"):
        load(tmp_path)
    rewritten(tmp_path, tensors={name: torch.randn(13, 8)})
    with pytest.raises(CheckpointError, match=rf"{name} has the shape \(13, 8\), and the config asks for \(12, 8\)"):
        load(tmp_path)


def test_pegasus_without_stored_sinusoids_is_read(tmp_path: Path) -> None:
    theirs = support.tiny(PegasusForConditionalGeneration, PegasusConfig(**SMALL))
    theirs.save_pretrained(tmp_path)
    rewritten(tmp_path, tensors={POSITIONS: None, POSITIONS.replace("decoder", "encoder"): None})
    support.same_pair(load(tmp_path).model, theirs, 20, pads=("none",))


@pytest.mark.parametrize("stored", ["one table", "three tables"])
def test_a_shared_table_that_is_not_the_heads(stored: str, tmp_path: Path) -> None:
    """transformers 4 has one table and a head; version 5 lets every table go its own way, and never reads `shared`."""
    theirs = support.tiny(MarianMTModel, MarianConfig(**SMALL, tie_word_embeddings=False))
    if stored == "one table":
        for stack in (theirs.model.encoder, theirs.model.decoder):
            stack.embed_tokens.weight = theirs.model.shared.weight
    theirs.save_pretrained(tmp_path)
    if stored == "one table":
        table = theirs.model.shared.weight.detach().clone()
        absent = dict.fromkeys(("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"))
        head = theirs.lm_head.weight.detach().clone()
        rewritten(tmp_path, tensors={**absent, "model.shared.weight": table, "lm_head.weight": head})
    ours = load(tmp_path)
    assert ours.config.shared_embedding is (stored == "one table")
    support.same_pair(ours.model, theirs, 20, pads=("none",))
    export(ours, tmp_path / "out")
    same_in_transformers(tmp_path / "out", MarianMTModel, theirs)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["share_encoder_decoder_embeddings"] is (stored == "one table")
    assert load(tmp_path / "out").config == ours.config
