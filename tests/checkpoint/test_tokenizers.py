"""A model's folder with its tokenizer: what is exported of both is read by transformers, and replaces itself."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sentencepiece", reason="the sentencepiece package, which trains the folders, is not installed")

import torch

import clearhead
from tests.text.published import TEXTS, write
from tests.text.test_families import auto

pytestmark = pytest.mark.filterwarnings("ignore:::transformers")
SIZES = {
    "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "d_model": 8,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


def published(folder: Path, name: str, **config: object) -> Path:
    """A tiny random model of transformers, with the tokenizer of its family."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    write(folder, name)
    size = len(auto(folder))
    model_type = "marian" if "marian" in name else "m2m_100" if name == "nllb" else name
    made = AutoConfig.for_model(model_type, vocab_size=size, decoder_start_token_id=2, **SIZES, **config)
    AutoModelForSeq2SeqLM.from_config(made).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["marian", "m2m_100", "nllb", "mbart"])
def test_a_translator_is_exported_with_its_vocabularies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForSeq2SeqLM

    # a pad of its own in Marian's list; the other families' is 1
    more = {"pad_token_id": 99, "eos_token_id": 0, "bos_token_id": None} if name == "marian" else {}
    lm = clearhead.load(published(tmp_path / "a", name, **more))
    for overwrite in (False, True):
        clearhead.export(lm, tmp_path / "b", overwrite=overwrite)
    again, theirs = clearhead.load(tmp_path / "b"), auto(tmp_path / "b")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "b").eval()
    for text in [text for text in TEXTS if text]:
        ids = lm.tokenizer.encode(text).ids
        assert ids == again.tokenizer.encode(text).ids == theirs(text)["input_ids"]
        source, start = torch.tensor([ids]), torch.tensor([[2]])
        logits = lm.model(source, start).logits
        assert logits is not None
        theirs_say = model(input_ids=source, decoder_input_ids=start).logits
        torch.testing.assert_close(logits, theirs_say, atol=1e-5, rtol=1e-5)
