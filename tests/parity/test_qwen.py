"""Qwen 2 and 3, past their grids: windows as files of different years spell them, and Qwen 3 as an embedder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3ForCausalLM, Qwen3Model

from clearhead.checkpoint import export, load
from clearhead.errors import CheckpointError, UnknownKeyError
from clearhead.model.config import SentenceEmbedding
from tests.checkpoint.support import change_config, change_tensors
from tests.parity import support
from tests.parity.grids import qwen2, qwen3


def windows(config: Any) -> list[int | None]:
    return [config.decoder.attention_of(layer).window for layer in range(config.decoder.n_layers)]


def written(folder: Path) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return keys


def test_a_window_that_is_switched_off_is_kept_in_the_file_and_not_used(tmp_path: Path) -> None:
    """The keys of Qwen 2.5's own files."""
    theirs = support.tiny(Qwen2ForCausalLM, qwen2.small(use_sliding_window=False))
    theirs.save_pretrained(tmp_path)
    own = {"use_sliding_window": False, "sliding_window": 131_072, "max_window_layers": 28, "use_mrope": False}
    change_config(tmp_path, layer_types=..., rope_parameters=..., rope_theta=10_000.0, **own)
    ours = load(tmp_path)
    assert windows(ours.config) == [None, None]
    support.same_forward(ours.model, theirs, 20)
    keys = written(export(ours, tmp_path / "out"))
    assert keys["layer_types"] == ["full_attention"] * 2
    assert {key: keys[key] for key in own if key != "use_mrope"} == {k: v for k, v in own.items() if k != "use_mrope"}


def test_layers_are_counted_where_they_are_not_listed_and_both_are_written(tmp_path: Path) -> None:
    theirs = support.tiny(Qwen2ForCausalLM, qwen2.small(num_hidden_layers=3))
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, layer_types=...)
    ours = load(tmp_path)
    assert windows(ours.config) == [None, 4, 4]
    support.same_forward(ours.model, theirs, 20)
    for family in ("qwen2", None):
        model = ours if family is None else ours.model
        keys = written(export(model, tmp_path / f"out {family}", family=family))
        assert keys["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention"]
        assert (keys["use_sliding_window"], keys["sliding_window"], keys["max_window_layers"]) == (True, 4, 1)
        del keys["layer_types"]
        assert Qwen2Config(**keys).layer_types == theirs.config.layer_types


@pytest.mark.parametrize(
    "changes",
    [{"use_sliding_window": False}, {"sliding_window": None}],
)
def test_a_window_without_a_width_is_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    support.tiny(Qwen2ForCausalLM, qwen2.small()).save_pretrained(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match="layer_types asks for sliding_attention"):
        load(tmp_path)


def test_a_bias_of_the_way_out_is_refused_by_name(tmp_path: Path) -> None:
    support.tiny(Qwen2ForCausalLM, qwen2.small()).save_pretrained(tmp_path)
    change_tensors(tmp_path, lambda all_: all_.update({"model.layers.0.self_attn.o_proj.bias": torch.zeros(16)}))
    with pytest.raises(UnknownKeyError, match=r"layers\.0\.self_attn\.o_proj\.bias"):
        load(tmp_path)


def test_a_head_of_qwen_3_is_128_wide_where_the_file_is_silent(tmp_path: Path) -> None:
    theirs = support.tiny(Qwen3ForCausalLM, qwen3.small(head_dim=128))
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, head_dim=...)
    support.same_forward(load(tmp_path).model, theirs, 20)


@torch.no_grad()
def test_qwen_3_as_an_embedder_reads_the_last_token(tmp_path: Path) -> None:
    """The layout of Qwen3-Embedding: the base model's tensors without a prefix, beside a language model's class."""
    theirs = support.tiny(Qwen3Model, qwen3.small(tie_word_embeddings=True))
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, architectures=["Qwen3ForCausalLM"])
    steps = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(steps))
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_lasttoken": True, "include_prompt": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    ours = load(tmp_path)
    assert ours.config.head == SentenceEmbedding(pooling="last", normalise=True)
    ids, real = support.texts(20, pad="left")
    want = theirs(ids, attention_mask=real, **support.positions(theirs)(theirs.config, real)).last_hidden_state[:, -1]
    support.close(ours.model(ids, attention_mask=real).embedding, F.normalize(want, dim=-1), "embedding")
