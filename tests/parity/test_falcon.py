"""Falcon, past its grid: ALiBi in bfloat16 far into a text, older keys and tensors, and what was never a Falcon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import FalconForCausalLM

from clearhead.checkpoint import load
from clearhead.errors import CheckpointError
from tests.checkpoint.support import change_config
from tests.parity import support
from tests.parity.grids.falcon import SDPA, small

REFINED_WEB = {
    "new_decoder_architecture": False,
    "multi_query": False,
    "parallel_attn": False,
    "alibi": True,
    "bias": True,
}


@pytest.mark.parametrize("heads", [3, 16])
@torch.no_grad()
def test_far_into_a_text_the_bias_is_rounded_as_theirs(heads: int, tmp_path: Path) -> None:
    """Slopes and products are rounded to bfloat16, which shows past position 256, padded or cached."""
    config = small(hidden_size=heads * 4, num_attention_heads=heads, num_kv_heads=None, **REFINED_WEB)
    theirs = support.tiny(FalconForCausalLM, config, **SDPA)
    ours = support.loaded(theirs, tmp_path).model
    ids = torch.randint(1, 20, (2, 700))
    real = torch.ones_like(ids)
    ids[0, :37] = real[0, :37] = support.PAD
    want = theirs(ids, attention_mask=real).logits[real.bool()]
    support.close(ours(ids, attention_mask=real).logits[real.bool()], want, "logits")
    cache = ours.new_cache()
    parts = [ours(ids[:, at], attention_mask=real[:, at], cache=cache).logits for at in (slice(600), slice(600, 700))]
    support.close(torch.cat(parts, dim=1)[real.bool()], want, "cached logits")


@torch.no_grad()
def test_theirs_with_eager_attention_is_another_model(tmp_path: Path) -> None:
    """Why the grid asks for sdpa. If this fails, transformers has mended it, and the grid can ask for eager."""
    config = small(num_kv_heads=None, **REFINED_WEB)
    theirs = support.tiny(FalconForCausalLM, config, **SDPA)
    theirs.save_pretrained(tmp_path)
    eager = FalconForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.randint(1, 20, (1, 9))
    difference = (eager(ids).logits - theirs(ids).logits).abs().max()
    assert difference > 1e-3 * theirs(ids).logits.abs().max()


def test_older_keys_and_tensors(tmp_path: Path) -> None:
    theirs = support.tiny(FalconForCausalLM, small())
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    more = {f"transformer.h.{layer}.self_attention.maybe_rotary.inv_freq": torch.rand(4) for layer in (0, 1)}
    more["lm_head.weight"] = tensors["transformer.word_embeddings.weight"].clone()
    save_file(tensors | more, tmp_path / "model.safetensors")
    new = {"num_attention_heads": ..., "num_hidden_layers": ..., "hidden_size": ..., "num_ln_in_parallel_attn": ...}
    change_config(tmp_path, n_head=4, n_layer=2, n_embed=32, **new, apply_residual_connection_post_layernorm=False)
    support.same_forward(load(tmp_path).model, theirs, 20)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"parallel_attn": False}, "parallel_attn=False is not true"),
        ({"num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn=3 is not 1 or 2"),
        ({"new_decoder_architecture": False, "num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn=2 is not 1"),
        ({"new_decoder_architecture": False, "multi_query": False, "num_ln_in_parallel_attn": None}, "num_kv_heads=2"),
    ],
)
def test_what_was_never_a_falcon_is_refused_in_one_line(keys: dict[str, Any], says: str, tmp_path: Path) -> None:
    support.tiny(FalconForCausalLM, small()).save_pretrained(tmp_path)
    change_config(tmp_path, **keys)
    with pytest.raises(CheckpointError, match=says) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
