"""Whole texts against transformers' `generate`, token by token, and a real model against what it is known to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from clearhead.checkpoint import load
from clearhead.generate import generate_ids

pytestmark = pytest.mark.usefixtures("as_a_user")  # values are compared here; shapes are checked next door

SIZES = {"vocab_size": 97, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
FAMILIES: dict[str, tuple[Any, Any]] = {
    "GPT-2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2, n_positions=64, **SIZES),
    ),
    "Llama": (
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_hidden_layers=2,
            max_position_embeddings=64,
            **SIZES,
        ),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_texts_are_transformers(name: str, tmp_path: Path) -> None:
    kind, config = FAMILIES[name]
    theirs = kind(config).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.2)
    theirs.save_pretrained(tmp_path)
    ours = load(str(tmp_path)).model
    ids = torch.randint(6, 97, (6, 9))
    real = torch.ones_like(ids)
    for row, padding in enumerate((0, 3, 8, 5, 0, 1)):
        ids[row, :padding], real[row, :padding] = 0, 0
    free = theirs.generate(ids, attention_mask=real, max_new_tokens=30, do_sample=False)
    end = int(free[2, 9 + 6])  # some text ends, and the others go on
    expected = theirs.generate(ids, attention_mask=real, max_new_tokens=30, do_sample=False, eos_token_id=end)
    assert (expected[2, 9 + 7 :] == 0).all() and not torch.equal(free, expected)
    for use_cache in (True, False):
        settings = {"attention_mask": real, "max_new_tokens": 30, "use_cache": use_cache}
        assert torch.equal(generate_ids(ours, ids, **settings), free)
        assert torch.equal(generate_ids(ours, ids, eos=end, **settings), expected)
    penalised = theirs.generate(ids[:1], max_new_tokens=20, do_sample=False, repetition_penalty=1.5)
    assert torch.equal(generate_ids(ours, ids[:1], max_new_tokens=20, repetition_penalty=1.5), penalised)


STORY = ", there was a little girl named Lily. She loved to play outside in the park"


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_a_real_model_tells_its_story(shared: Path, use_cache: bool) -> None:
    """`../shared/data/README.md` says how stories260K goes on, greedily."""
    folder = shared / "models" / "stories260K-llama"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    pretrained = load(str(folder))
    assert pretrained.model.n_parameters() == 260_032 and pretrained.tokenizer is not None
    prompt = pretrained.tokenizer.encode("Once upon a time").ids
    ids = generate_ids(pretrained.model, torch.tensor([prompt]), max_new_tokens=60, use_cache=use_cache)
    text = pretrained.tokenizer.decode(ids[0, len(prompt) :].tolist())
    assert text.lstrip().startswith(STORY.lstrip()), text


def test_and_transformers_tells_the_same(shared: Path) -> None:
    folder = shared / "models" / "stories260K-llama"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    pretrained = load(str(folder))
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    assert pretrained.tokenizer is not None
    prompt = torch.tensor([pretrained.tokenizer.encode("Once upon a time").ids])
    expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=200, do_sample=False)
    assert torch.equal(generate_ids(pretrained.model, prompt, max_new_tokens=200), expected)
