"""The encoders after BERT, past their grids: positions after the padding id, old files, second heads, embedders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearhead.checkpoint import Pretrained, export, families, load
from clearhead.checkpoint.places import differences
from clearhead.errors import CheckpointError, ContextError, UnknownKeyError
from clearhead.model import build, presets
from clearhead.model.config import EmbeddingConfig, LayerNorm, MaskedLanguageModel, SentenceEmbedding
from tests.parity import support
from tests.parity.grids import albert, distilbert, electra, roberta

CONFIGS = {
    "roberta": "RobertaConfig",
    "xlm-roberta": "XLMRobertaConfig",
    "camembert": "CamembertConfig",
    "distilbert": "DistilBertConfig",
    "albert": "AlbertConfig",
    "electra": "ElectraConfig",
}


class NoTensors:
    def has(self, name: str) -> bool:
        return False

    def same(self, one: str, other: str) -> bool:
        return False


@pytest.mark.parametrize(("family", "name"), CONFIGS.items())
def test_missing_keys_mean_what_transformers_takes_them_for(family: str, name: str) -> None:
    spelled = json.loads(getattr(transformers, name)().to_json_string(use_diff=False))
    config, _, _, errors = families.families()[family].read({}, NoTensors())
    said, _, _, more = families.families()[family].read(spelled, NoTensors())
    assert not errors and not more
    assert not list(differences(config, said))


# ── RoBERTa ──────────────────────────────────────────────────────────────────────────────────────────────────────


def small_roberta(**more: Any) -> Any:
    config = roberta.small(transformers.RobertaConfig)
    config.update({"pad_token_id": 1, "max_position_embeddings": 13, **more})
    return config


@pytest.mark.parametrize("side", ["none", "left", "right"])
@torch.no_grad()
def test_positions_are_those_that_transformers_counts_from_the_padding_id(side: str, tmp_path: Path) -> None:
    theirs = support.tiny(transformers.RobertaForMaskedLM, small_roberta())
    ours = support.loaded(theirs, tmp_path)
    ids, real = support.texts(20, pad=side)
    ids = ids.clamp(min=2).where(real.bool(), torch.ones_like(ids))
    at = real.bool()
    support.close(
        ours.model(ids, attention_mask=real).logits[at], theirs(ids, attention_mask=real).logits[at], "logits"
    )


def test_the_context_ends_where_the_table_does(tmp_path: Path) -> None:
    ours = support.loaded(support.tiny(transformers.RobertaModel, small_roberta()), tmp_path)
    assert ours.config.context == 11
    ours.model(torch.full((1, 11), 5))
    with pytest.raises(ContextError, match="end at 11"):
        ours.model(torch.full((1, 12), 5))


def test_old_files_of_roberta_are_read(tmp_path: Path) -> None:
    theirs = support.tiny(transformers.RobertaForMaskedLM, small_roberta())
    theirs.save_pretrained(tmp_path)
    _add_tensors(
        tmp_path,
        lambda tensors: {
            "roberta.embeddings.position_ids": torch.arange(13)[None],
            "lm_head.decoder.weight": tensors["roberta.embeddings.word_embeddings.weight"].clone(),
            "lm_head.decoder.bias": tensors["lm_head.bias"].clone(),
            "roberta.pooler.dense.weight": torch.randn(8, 8),
            "roberta.pooler.dense.bias": torch.randn(8),
        },
    )
    _add_keys(tmp_path, output_past=True, _num_labels=3, position_embedding_type="absolute")
    support.same_forward(load(tmp_path).model, theirs, 20, inputs=roberta.after_the_pad)


def test_a_padding_id_that_is_no_row_of_positions_is_refused(tmp_path: Path) -> None:
    support.tiny(transformers.RobertaModel, small_roberta()).save_pretrained(tmp_path)
    for pad in (None, -1, 12):
        _add_keys(tmp_path, pad_token_id=pad)
        with pytest.raises(CheckpointError, match="pad_token_id"):
            load(tmp_path)


def test_a_model_whose_positions_begin_elsewhere_is_no_roberta(tmp_path: Path) -> None:
    bert = build(presets.bert(n_layers=1, n_heads=2, d_model=8, vocab_size=20, context=12))
    with pytest.raises(CheckpointError, match="row after the padding id's"):
        export(bert, tmp_path / "out", family="roberta")


def test_the_base_model_of_a_head_that_is_not_read_is_loaded_by_its_class(tmp_path: Path) -> None:
    theirs = support.tiny(transformers.RobertaForQuestionAnswering, small_roberta())
    theirs.save_pretrained(tmp_path)
    with pytest.raises(UnknownKeyError, match=r"RobertaForQuestionAnswering.*head=, one of RobertaModel"):
        load(tmp_path)
    ours = load(tmp_path, head="RobertaModel")
    support.same_forward(ours.model, theirs.roberta, 20, inputs=roberta.after_the_pad)


@pytest.mark.parametrize("with_head", [False, True])
@torch.no_grad()
def test_a_sentence_embedder_is_its_base_model_whatever_class_it_names(with_head: bool, tmp_path: Path) -> None:
    """all-distilroberta-v1: a base model's tensors under RobertaForMaskedLM's name."""
    masked = support.tiny(transformers.RobertaForMaskedLM, small_roberta())
    (masked if with_head else masked.roberta).save_pretrained(tmp_path)
    _add_keys(tmp_path, architectures=["RobertaForMaskedLM"])
    _write_pooling(tmp_path)
    ours = load(tmp_path)
    assert ours.config.head == SentenceEmbedding(pooling="mean", normalise=True)
    ids, real = torch.randint(2, 20, (2, 9)), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    ids[1, 6:] = 1
    hidden = masked.roberta(ids, attention_mask=real).last_hidden_state
    mean = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    want = torch.nn.functional.normalize(mean)
    support.close(ours.model(ids, attention_mask=real).embedding, want, "embedding")
    _exported_alike(ours, transformers.RobertaModel, tmp_path, add_pooling_layer=False)
    assert load(tmp_path / "out").config == ours.config


# ── DistilBERT ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_old_files_of_distilbert_are_read(tmp_path: Path) -> None:
    theirs = support.tiny(transformers.DistilBertForMaskedLM, distilbert.small())
    theirs.save_pretrained(tmp_path)
    _add_tensors(
        tmp_path,
        lambda tensors: {
            "distilbert.embeddings.position_ids": torch.arange(12)[None],
            "vocab_projector.weight": tensors["distilbert.embeddings.word_embeddings.weight"].clone(),
        },
    )
    _add_keys(tmp_path, tie_weights_=True, output_past=True)
    support.same_forward(load(tmp_path).model, theirs, 20)


def test_a_bert_without_types_and_pooler_may_leave_as_distilbert(tmp_path: Path) -> None:
    bert = presets.bert(n_layers=2, n_heads=2, d_model=8, vocab_size=20, context=12)
    changes: dict[str, Any] = {
        "embedding": EmbeddingConfig(norm=LayerNorm(eps=1e-12)),
        "pooler": None,
        "head": MaskedLanguageModel(),
    }
    model = build(replace(bert, **changes)).eval()
    export(model, tmp_path, family="distilbert")
    back, info = transformers.DistilBertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.randint(0, 20, (2, 7))
    with torch.no_grad():
        support.close(model(ids).logits, back.eval()(ids).logits, "logits")  # type: ignore[call-arg]


@pytest.mark.parametrize(("name", "dropout"), [("SequenceClassification", 0.3), ("TokenClassification", 0.2)])
def test_each_classifier_has_the_dropout_of_its_own_key(name: str, dropout: float, tmp_path: Path) -> None:
    config = distilbert.small()
    config.update({"dropout": 0.2, "seq_classif_dropout": 0.3})
    ours = support.loaded(support.tiny(getattr(transformers, f"DistilBertFor{name}"), config), tmp_path)
    assert ours.config.head.dropout == dropout  # type: ignore[union-attr]
    export(ours.model, tmp_path / "out", family="distilbert")
    assert load(tmp_path / "out").config == ours.config


# ── ALBERT ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pretraining_is_read_as_masked_and_its_second_head_is_ignored_by_name(tmp_path: Path) -> None:
    theirs = support.tiny(transformers.AlbertForPreTraining, albert.small())
    theirs.save_pretrained(tmp_path)
    first_release = {"down_scale_factor": 1, "gap_size": 0, "net_structure_type": 0, "num_memory_blocks": 0}
    _add_keys(tmp_path, layers_to_keep=[], **first_release)
    ours = load(tmp_path)
    ids = torch.randint(1, 20, (2, 6))
    with torch.no_grad():
        support.close(ours.model(ids).logits, theirs(ids).prediction_logits, "logits")
    ignored = {account.name: account.why for account in ours.report.tensors if account.fate == "ignored"}
    parts = [f"{name}.{part}" for name in ("albert.pooler", "sop_classifier.classifier") for part in ("weight", "bias")]
    assert set(ignored) == set(parts)
    assert "sentence-order" in ignored["sop_classifier.classifier.weight"]
    export(ours, tmp_path / "out")
    back, info = transformers.AlbertForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        support.close(back.eval()(ids).logits, theirs(ids).prediction_logits, "exported logits")


def test_groups_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    support.tiny(transformers.AlbertModel, albert.small()).save_pretrained(tmp_path)
    _add_keys(tmp_path, inner_group_num=2)
    with pytest.raises(UnknownKeyError, match="inner_group_num=2 cannot be run: no published ALBERT"):
        load(tmp_path)
    _add_keys(tmp_path, inner_group_num=1, num_hidden_groups=3)
    with pytest.raises(CheckpointError, match="n_layers=2 does not divide into layer_groups=3"):
        load(tmp_path)


# ── ELECTRA ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_discriminator_is_read_as_the_base_model(tmp_path: Path) -> None:
    theirs = support.tiny(transformers.ElectraForPreTraining, electra.small())
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    support.same_forward(ours.model, theirs.electra, 20)
    ignored = {account.name for account in ours.report.tensors if account.fate == "ignored"}
    assert ignored and all(name.startswith("discriminator_predictions.") for name in ignored)
    _exported_alike(ours, transformers.ElectraModel, tmp_path)


# ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _add_keys(path: Path, **keys: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | keys))


def _add_tensors(path: Path, more: Any) -> None:
    tensors: dict[str, Tensor] = load_file(path / "model.safetensors")
    save_file(tensors | more(tensors), path / "model.safetensors")


def _write_pooling(path: Path) -> None:
    """The files that sentence-transformers puts beside a model of mean pooling."""
    names = ("Transformer", "Pooling", "Normalize")
    steps = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{name}" if index else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(names)
    ]
    (path / "modules.json").write_text(json.dumps(steps))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512, "do_lower_case": False}))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True})
    )


def _exported_alike(ours: Pretrained, cls: Any, path: Path, **options: Any) -> None:
    """transformers reads the export whole, with the tensors that we read."""
    export(ours, path / "out")
    back, info = cls.from_pretrained(path / "out", output_loading_info=True, **options)
    assert not any(info.values()), info
    tensors = load_file(path / "out" / "model.safetensors")
    assert back.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in back.state_dict().items())
