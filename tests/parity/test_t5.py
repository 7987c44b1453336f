"""T5, past its grid: every way in which a file ties and scales its head, old files, and the encoder alone."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5EncoderModel, T5ForConditionalGeneration

from clearhead.checkpoint import export, load
from clearhead.errors import UnknownKeyError
from clearhead.model import Encoder
from clearhead.model.config import LanguageModel
from tests.parity import support

SIZES = {"vocab_size": 20, "d_model": 8, "d_kv": 3, "num_heads": 2, "d_ff": 12, "num_layers": 2}


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **keys: Any) -> None:
    """Change the file in this folder; a key that is None is taken out."""
    was = json.loads((path / "config.json").read_text()) | keys
    (path / "config.json").write_text(json.dumps({key: value for key, value in was.items() if value is not None}))
    save_file(load_file(path / "model.safetensors") | (tensors or {}), path / "model.safetensors")


def as_version_4_reads(path: Path) -> tuple[bool, bool]:
    """Whether it ties the head, and whether it scales it: one flag says both."""
    says = json.loads((path / "config.json").read_text()).get("tie_word_embeddings", True)
    return says, says


HEADS = list(product((None, True, False), (None, True, False), ("none", "same", "other")))


@pytest.mark.parametrize("tie, scale, matrix", HEADS)
@torch.no_grad()
def test_however_the_head_is_tied_and_scaled(tie: bool | None, scale: bool | None, matrix: str, tmp_path: Path) -> None:
    theirs = support.tiny(T5ForConditionalGeneration, T5Config(decoder_start_token_id=0, **SIZES))
    theirs.save_pretrained(tmp_path)
    table = theirs.shared.weight.detach()
    stored = {"none": {}, "same": {"lm_head.weight": table.clone()}, "other": {"lm_head.weight": table.flip(0).clone()}}
    rewrite(tmp_path, stored[matrix], tie_word_embeddings=tie, scale_decoder_outputs=scale)
    theirs = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()

    ours = load(tmp_path)
    head = ours.config.head
    assert isinstance(head, LanguageModel)
    assert head.tied == (matrix != "other")
    assert (head.scale is not None) == (scale if scale is not None else tie is not False)
    support.same_pair(ours.model, theirs, 20, pads=("none",))

    out = export(ours, tmp_path / "out")
    assert load(out).config == ours.config
    back, info = T5ForConditionalGeneration.from_pretrained(out, output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), info
    support.same_pair(ours.model, back.eval(), 20, pads=("none",))
    tied, scaled = as_version_4_reads(out)
    if not scaled:
        assert "lm_head.weight" in load_file(out / "model.safetensors")
    if head.tied or head.scale is None:  # a matrix of its own, scaled: version 4 cannot say it
        assert scaled == (head.scale is not None)
        assert not tied or head.tied


def test_mt5_is_never_scaled(tmp_path: Path) -> None:
    theirs = support.tiny(MT5ForConditionalGeneration, MT5Config(**SIZES))
    ours = support.loaded(theirs, tmp_path)
    assert ours.config.head == LanguageModel(tied=True)
    out = export(ours, tmp_path / "out")
    assert as_version_4_reads(out) == (False, False) and "lm_head.weight" in load_file(out / "model.safetensors")
    rewrite(tmp_path, scale_decoder_outputs=True)
    with pytest.raises(UnknownKeyError, match="scale_decoder_outputs"):
        load(tmp_path)


def test_the_first_files_spell_it_otherwise(tmp_path: Path) -> None:
    theirs = support.tiny(T5ForConditionalGeneration, T5Config(decoder_start_token_id=0, **SIZES))
    theirs.save_pretrained(tmp_path)
    table = theirs.shared.weight.detach()
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    stored = {f"{stack}.embed_tokens.weight": table.clone() for stack in ("encoder", "decoder")}
    newer = ("dense_act_fn", "is_gated_act", "scale_decoder_outputs", "tie_word_embeddings", "num_decoder_layers")
    newer += ("feed_forward_proj", "relative_attention_max_distance", "classifier_dropout", "is_decoder")
    rewrite(
        tmp_path,
        {**stored, unused: torch.randn(32, 2)},
        architectures=["T5WithLMHeadModel"],
        n_positions=512,
        output_past=True,
        task_specific_params={"summarization": {"prefix": "summarize: "}},
        **dict.fromkeys(newer),
    )
    ours = load(tmp_path)
    support.same_pair(ours.model, theirs, 20, pads=("left",))
    assert {account.name for account in ours.report.tensors if account.fate == "ignored"} == {unused}
    written = json.loads((export(ours, tmp_path / "out") / "config.json").read_text())
    assert written["architectures"] == ["T5WithLMHeadModel"] and written["task_specific_params"]


def test_the_encoder_of_a_whole_file(tmp_path: Path) -> None:
    support.tiny(T5ForConditionalGeneration, T5Config(tie_word_embeddings=False, **SIZES)).save_pretrained(tmp_path)
    ours = load(tmp_path, head="T5EncoderModel")
    assert isinstance(ours.model, Encoder)
    theirs = T5EncoderModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    support.same_forward(ours.model, theirs, 20)
    out = export(ours, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["architectures"] == ["T5EncoderModel"]
    assert not any(name.startswith("decoder.") for name in load_file(out / "model.safetensors"))


@pytest.mark.parametrize("kind", ["relu", "gelu", "gated-gelu", "gated-silu"])
@pytest.mark.parametrize("later", [{"dense_act_fn": "silu"}, {"dense_act_fn": "gelu"}])
def test_the_later_keys_of_the_feedforward_hold(kind: str, later: dict[str, Any], tmp_path: Path) -> None:
    config = T5Config(feed_forward_proj=kind, decoder_start_token_id=0, **SIZES)
    support.tiny(T5ForConditionalGeneration, config).save_pretrained(tmp_path)
    rewrite(tmp_path, **later)
    theirs = T5ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ours = load(tmp_path)
    support.same_pair(ours.model, theirs, 20, pads=("none",))
    support.same_both_ways(ours, theirs, tmp_path)


def test_half_of_a_pair_is_refused_by_name(tmp_path: Path) -> None:
    support.tiny(T5ForConditionalGeneration, T5Config(**SIZES)).save_pretrained(tmp_path)
    for key in ("is_encoder_decoder", "is_decoder"):
        rewrite(tmp_path, is_encoder_decoder=True, is_decoder=False)
        rewrite(tmp_path, **{key: key == "is_decoder"})
        with pytest.raises(UnknownKeyError, match=key):
            load(tmp_path)
