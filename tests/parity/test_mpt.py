"""MPT, past its grid: MosaicML's own files, slopes that transformers does not run, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import MptConfig, MptForCausalLM

from clearhead.checkpoint import export, load
from clearhead.errors import UnknownKeyError
from tests.parity import support

SIZES = {"vocab_size": 20, "d_model": 12, "n_heads": 3, "n_layers": 2, "max_seq_len": 16}


def saved(path: Path, attention: dict[str, Any] | None = None, **keys: Any) -> Any:
    """A model of transformers in this folder, its config changed thereafter."""
    theirs = support.tiny(MptForCausalLM, MptConfig(attn_config={"clip_qkv": 6.0}, **SIZES))
    theirs.save_pretrained(path)
    says = json.loads((path / "config.json").read_text()) | keys
    says["attn_config"] |= attention or {}
    (path / "config.json").write_text(json.dumps(says))
    return theirs


def test_mosaicmls_own_file(tmp_path: Path) -> None:
    theirs = saved(
        tmp_path,
        {"clip_qkv": 6, "attn_impl": "triton"},
        architectures=["MPTForCausalLM"],
        auto_map={"AutoConfig": "configuration_mpt.MPTConfig"},
        init_config={"name": "kaiming_normal_"},
        tokenizer_name="EleutherAI/gpt-neox-20b",
        verbose=0,
        emb_pdrop=0,
    )
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs, 20)
    out = export(ours, tmp_path / "out")
    written = json.loads((out / "config.json").read_text())
    assert written["attn_config"]["attn_impl"] == "triton" and "auto_map" not in written
    back = MptForCausalLM.from_pretrained(out, attn_implementation="eager").eval()  # which refuses `clip_qkv: 6`
    support.same_forward(ours.model, back, 20)


def test_the_slopes_are_the_files_own(tmp_path: Path) -> None:
    theirs = saved(tmp_path, {"alibi_bias_max": 16})
    ours = load(tmp_path)
    assert any("alibi_bias_max=16" in note for note in ours.report.notes)
    with pytest.raises(AssertionError):
        support.same_forward(ours.model, theirs, 20)
    base = theirs.transformer
    base.build_mpt_alibi_tensor = partial(base.build_mpt_alibi_tensor, alibi_bias_max=16)
    support.same_forward(ours.model, theirs, 20)
    written = json.loads((export(ours, tmp_path / "out") / "config.json").read_text())
    assert written["attn_config"]["alibi_bias_max"] == 16


def test_a_clip_of_nothing_is_none(tmp_path: Path) -> None:
    saved(tmp_path, {"clip_qkv": 0})
    config = load(tmp_path).config
    assert config.decoder is not None and config.decoder.attention_of(0).clip is None


@pytest.mark.parametrize(
    "attention, keys, named",
    [
        ({"alibi": False}, {}, "alibi=False"),
        ({"attn_type": "multiquery_attention"}, {}, "attn_type"),
        ({"qk_ln": True}, {}, "qk_ln"),
        ({"prefix_lm": True}, {}, "prefix_lm"),
        ({"rope": True}, {}, "rope"),
        ({}, {"expansion_ratio": 2}, "expansion_ratio"),
        ({}, {"no_bias": False}, "no_bias"),
        ({}, {"logit_scale": 0.5}, "logit_scale"),
        ({}, {"norm_type": "rmsnorm"}, "norm_type"),
    ],
)
def test_what_transformers_does_not_run_is_refused(
    attention: dict[str, Any], keys: dict[str, Any], named: str, tmp_path: Path
) -> None:
    saved(tmp_path, attention, **keys)
    with pytest.raises(UnknownKeyError, match=named):
        load(tmp_path)
