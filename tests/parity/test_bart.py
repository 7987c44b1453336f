"""BART and mBART, past their grids: old files, tables that are tied or not, other classes, and texts to be labelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BartForQuestionAnswering,
    BartForSequenceClassification,
    BartModel,
    MBartConfig,
    MBartForConditionalGeneration,
)

from clearhead.checkpoint import export, load
from clearhead.errors import CheckpointError, UnknownKeyError
from tests.parity import support
from tests.parity.grids.bart import SMALL


def rewritten(path: Path, *, keys: dict[str, Any] | None = None, tensors: dict[str, Tensor | None]) -> None:
    """Change the config and the tensors of a folder; None takes one out."""
    config, weights = json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config | (keys or {})))
    kept = {name: tensor for name, tensor in (weights | tensors).items() if tensor is not None}
    save_file(kept, path / "model.safetensors")


@torch.no_grad()
def same_in_transformers(path: Path, cls: Any, theirs: Any) -> Any:
    """transformers reads the folder whole, and as the model `theirs`."""
    back, info = cls.from_pretrained(path, output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), info
    ids, target = torch.randint(1, 20, (2, 6)), torch.randint(1, 20, (2, 4))
    support.close(back.eval()(ids, decoder_input_ids=target)[0], theirs(ids, decoder_input_ids=target)[0], "the export")
    return back


def test_what_bart_large_cnn_says_and_stores_is_read(tmp_path: Path) -> None:
    theirs = support.tiny(BartForConditionalGeneration, BartConfig(**SMALL))
    theirs.save_pretrained(tmp_path)
    table = theirs.model.shared.weight.detach().clone()
    old = {
        "_num_labels": 3,
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "classif_dropout": 0.0,
        "extra_pos_embeddings": 2,
        "force_bos_token_to_be_generated": True,
        "forced_eos_token_id": 2,
        "gradient_checkpointing": False,
        "normalize_before": False,
        "normalize_embedding": True,
        "num_hidden_layers": 2,
        "output_past": True,
        "prefix": " ",
        "replacing_rate": 0,
        "save_step": 58,
        "static_position_embeddings": False,
        "student_decoder_layers": None,
        "task_specific_params": {"summarization": {"num_beams": 4}},
    }
    stored = {
        "model.shared.weight": None,  # safetensors kept the other name of the one table
        "model.decoder.embed_tokens.weight": table,
        "lm_head.weight": table.clone(),
        "model.encoder.version": torch.tensor([3.0]),
        "model.decoder.version": torch.tensor([3.0]),
    }
    rewritten(tmp_path, keys=old, tensors=stored)
    ours = load(tmp_path)
    support.same_pair(ours.model, theirs, 20, pads=("none", "right"), alone=True)
    written = json.loads((export(ours, tmp_path / "out") / "config.json").read_text())
    assert "num_hidden_layers" not in written and written["save_step"] == 58
    same_in_transformers(tmp_path / "out", BartForConditionalGeneration, theirs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalize_before", True),
        ("add_final_layer_norm", True),
        ("normalize_embedding", False),
        ("static_position_embeddings", True),
        ("is_decoder", True),
        ("is_encoder_decoder", False),
    ],
)
def test_what_barts_classes_do_not_do_is_refused_by_name(key: str, value: bool, tmp_path: Path) -> None:
    support.tiny(BartModel, BartConfig(**SMALL)).save_pretrained(tmp_path)
    rewritten(tmp_path, keys={key: value}, tensors={})
    with pytest.raises(UnknownKeyError, match=rf"{key}={value} cannot be run"):
        load(tmp_path)


@pytest.mark.parametrize("cls", [BartForCausalLM, BartForQuestionAnswering])
def test_classes_that_are_not_had_are_refused_by_name(cls: Any, tmp_path: Path) -> None:
    support.tiny(cls, BartConfig(**SMALL)).save_pretrained(tmp_path)
    rewritten(tmp_path, keys={"is_decoder": False, "is_encoder_decoder": True}, tensors={})
    with pytest.raises(UnknownKeyError, match=cls.__name__):
        load(tmp_path)


def test_the_base_models_file_writes_as_transformers_lets_it(tmp_path: Path) -> None:
    theirs = support.tiny(BartModel, BartConfig(**SMALL))
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path, head="BartForConditionalGeneration")
    writes = BartForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    support.same_pair(ours.model, writes, 20, pads=("none",))
    export(ours, tmp_path / "out")
    same_in_transformers(tmp_path / "out", BartForConditionalGeneration, writes)
    alone = load(tmp_path / "out", head="BartModel")
    support.same_pair(alone.model, theirs, 20, pads=("none",))


def test_a_file_without_the_bias_of_the_logits_has_none(tmp_path: Path) -> None:
    theirs = support.tiny(BartForConditionalGeneration, BartConfig(**SMALL))
    theirs.final_logits_bias.zero_()
    theirs.save_pretrained(tmp_path)
    rewritten(tmp_path, tensors={"final_logits_bias": None})
    ours = load(tmp_path)
    support.same_pair(ours.model, theirs, 20, pads=("none",))
    assert "final_logits_bias" not in load_file(export(ours, tmp_path / "out") / "model.safetensors")
    same_in_transformers(tmp_path / "out", BartForConditionalGeneration, theirs)


@pytest.mark.parametrize("kept", ["config says untied", "config says tied"])
def test_one_table_with_a_head_of_its_own_is_written_so_that_both_versions_read_it(kept: str, tmp_path: Path) -> None:
    """transformers 4 stored one table; untied, version 5 looks for three, and draws those that it does not find."""
    theirs = support.tiny(BartForConditionalGeneration, BartConfig(**SMALL, tie_word_embeddings=False))
    for stack in (theirs.model.encoder, theirs.model.decoder):
        stack.embed_tokens.weight = theirs.model.shared.weight
    theirs.save_pretrained(tmp_path)
    table = theirs.model.shared.weight.detach().clone()
    absent = dict.fromkeys(("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"))
    tied = kept == "config says tied"
    rewritten(
        tmp_path,
        keys={"tie_word_embeddings": tied},
        tensors={**absent, "model.shared.weight": table, "lm_head.weight": theirs.lm_head.weight.detach().clone()},
    )
    ours = load(tmp_path)
    assert ours.config.shared_embedding and bool(ours.report.notes) is tied
    support.same_pair(ours.model, theirs, 20, pads=("none",))
    export(ours, tmp_path / "out")
    back = same_in_transformers(tmp_path / "out", BartForConditionalGeneration, theirs)
    assert back.config.tie_word_embeddings is False
    assert load(tmp_path / "out").config == ours.config


def test_tied_tables_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    support.tiny(BartModel, BartConfig(**SMALL)).save_pretrained(tmp_path)
    rewritten(tmp_path, tensors={"encoder.embed_tokens.weight": torch.randn(20, 8)})
    with pytest.raises(CheckpointError, match=r"encoder\.embed_tokens\.weight and shared\.weight are tied"):
        load(tmp_path)


def test_a_config_that_names_no_labels_has_barts_three(tmp_path: Path) -> None:
    theirs = support.tiny(BartForSequenceClassification, BartConfig(**SMALL))
    theirs.save_pretrained(tmp_path)
    keys = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({k: v for k, v in keys.items() if k not in ("id2label", "label2id")})
    )
    support.same_pair(load(tmp_path).model, theirs, 20, pads=("none",))


def test_mbart_starts_from_no_token_of_its_own(tmp_path: Path) -> None:
    keys = {key: value for key, value in SMALL.items() if key != "decoder_start_token_id"}
    theirs = support.tiny(MBartForConditionalGeneration, MBartConfig(**keys))
    ours = support.loaded(theirs, tmp_path)
    assert ours.config.tokens.decoder_start is None
    support.same_both_ways(ours, theirs, tmp_path)
