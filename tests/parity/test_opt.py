"""OPT, past its grid: the first files had no prefix, and every published config says more than transformers reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import OPTForCausalLM

from clearhead.checkpoint import load
from clearhead.errors import UnknownKeyError
from tests.checkpoint.support import change_config
from tests.parity import support
from tests.parity.grids.opt import small


def test_files_without_prefix_and_with_the_tied_copy(tmp_path: Path) -> None:
    theirs = support.tiny(OPTForCausalLM, small())
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    bare["lm_head.weight"] = bare["decoder.embed_tokens.weight"].clone()
    save_file(bare, tmp_path / "model.safetensors")
    support.same_forward(load(tmp_path).model, theirs, 20)


def test_the_keys_of_published_configs(tmp_path: Path) -> None:
    theirs = support.tiny(OPTForCausalLM, small())
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, activation_dropout=0.0, prefix="</s>", learned_embeddings=True, scale_embeddings=False)
    support.same_forward(load(tmp_path).model, theirs, 20)
    change_config(tmp_path, scale_embeddings=True)
    with pytest.raises(UnknownKeyError, match="scale_embeddings=True cannot be run"):
        load(tmp_path)
