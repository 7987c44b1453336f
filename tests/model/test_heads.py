"""Heads: what the last vectors become, and that padding is never read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.errors import InputError
from clearhead.model.config import (
    EmbeddingConfig,
    Head,
    LanguageModel,
    MaskedLanguageModel,
    SentenceEmbedding,
    SequenceClassification,
    SpecialTokens,
    TokenClassification,
)
from clearhead.model.heads import pool
from tests.model import tiny

LABELS = ("no", "yes", "perhaps")
HEADS: dict[str, Head] = {
    "language model": LanguageModel(),
    "language model, untied": LanguageModel(tied=False, bias=True, scale=0.5, softcap=3.0),
    "masked": MaskedLanguageModel(),
    "masked, untied": MaskedLanguageModel(tied=False, activation="relu"),
    "text": SequenceClassification(labels=LABELS, pooling="mean", hidden="tanh", dropout=0.2),
    "text, by the pooler": SequenceClassification(labels=LABELS, pooling="pooler", bias=False),
    "tokens": TokenClassification(labels=LABELS, dropout=0.2),
    "sentence": SentenceEmbedding(),
}


def whole(head: Head) -> dict[str, object]:
    return {"head": head, "pooler": "tanh" if getattr(head, "pooling", None) == "pooler" else None}


# ── each head's formula ──────────────────────────────────────────────────────────────────────────────────────────


def test_language_model() -> None:
    model = tiny.decoder()
    out = model(tiny.ids(2, 5))
    torch.testing.assert_close(out.logits, out.hidden @ model.decoder.embedding.tokens.weight.T)
    assert model.head.weight is None, "the table is the embedding's"  # type: ignore[union-attr]
    untied = tiny.decoder(whole=whole(HEADS["language model, untied"]))
    out = untied(tiny.ids(2, 5))
    raw = out.hidden * 0.5 @ untied.head.weight.T + untied.head.bias  # type: ignore[union-attr]
    torch.testing.assert_close(out.logits, 3.0 * torch.tanh(raw / 3.0))
    assert untied.n_parameters() - model.n_parameters() == tiny.VOCABULARY * (tiny.WIDTH + 1)


def test_tied_weights_are_one_and_learn_from_both_sides() -> None:
    model = tiny.decoder()
    table = model.decoder.embedding.tokens.weight
    F.cross_entropy(model(tiny.ids(1, 5)).logits[0], tiny.ids(1, 5, seed=1)[0]).backward()
    assert table.grad is not None and (table.grad.abs().sum(1) > 0).all(), "rows that were only scored learn, too"


def test_masked_language_model() -> None:
    model = tiny.encoder(whole=whole(HEADS["masked"]))
    head, out = model.head, model(tiny.ids(2, 5))
    x = F.layer_norm(F.gelu(head.dense(out.hidden)), (tiny.WIDTH,), head.norm.weight, head.norm.bias, 1e-12)  # type: ignore[union-attr]
    torch.testing.assert_close(out.logits, x @ model.encoder.embedding.tokens.weight.T + head.bias)  # type: ignore[union-attr]
    narrow = tiny.encoder(whole={**whole(HEADS["masked"]), "embedding": EmbeddingConfig(width=12)})
    assert narrow(tiny.ids(2, 5)).logits.shape == (2, 5, tiny.VOCABULARY), "ELECTRA's: the dense layer narrows"


def test_text_classification() -> None:
    model = tiny.encoder(whole=whole(HEADS["text"]))
    head, out = model.head, model(tiny.ids(2, 5))
    expected = head.classify(torch.tanh(head.dense(out.hidden.mean(1))))  # type: ignore[union-attr, misc]
    torch.testing.assert_close(out.logits, expected)
    pooled = tiny.encoder(whole=whole(HEADS["text, by the pooler"]))
    out = pooled(tiny.ids(2, 5))
    torch.testing.assert_close(out.pooled, torch.tanh(pooled.pooler.dense(out.hidden[:, 0])))  # type: ignore[misc]
    torch.testing.assert_close(out.logits, pooled.head.classify(out.pooled))  # type: ignore[union-attr]


def test_text_classification_by_the_last_end_token() -> None:
    by_eos = SequenceClassification(labels=("a", "b"), pooling="eos", hidden="tanh")
    ends = {"tokens": SpecialTokens(eos=(7, 8), decoder_start=5)}
    model = tiny.encoder(whole={**whole(by_eos), **ends})
    out = model(torch.tensor([[1, 7, 2, 8, 3], [7, 1, 2, 3, 4]]))
    x = torch.stack((out.hidden[0, 3], out.hidden[1, 0]))
    torch.testing.assert_close(out.logits, model.head.classify(torch.tanh(model.head.dense(x))))  # type: ignore[union-attr, misc]
    with pytest.raises(InputError, match=r"text 1 has no end token \(id 7\)"):
        model(torch.tensor([[1, 7], [2, 3]]))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("left", [True, False], ids=["padded left", "padded right"])
def test_a_translator_that_labels_reads_the_source_again(wrapped: bool, left: bool) -> None:
    head = SequenceClassification(labels=("a", "b"), pooling="eos", wrapped=wrapped)
    model = tiny.translator(whole={**whole(head), "tokens": SpecialTokens(eos=(7,), decoder_start=5)})
    texts = [torch.tensor([1, 2, 7, 9]), torch.tensor([3, 7])]
    source, real = tiny.padded(texts, left=left)
    out = model(source, attention_mask=real)
    for row, text in enumerate(texts):
        begin = text[-1:] if wrapped else torch.tensor([5])
        alone = model(text[None], torch.cat((begin, text[:-1]))[None])
        torch.testing.assert_close(out.logits[row], alone.logits[0])
        at = int((text == 7).nonzero()[-1])
        torch.testing.assert_close(alone.logits[0], model.head.classify(alone.hidden[0, at]))  # type: ignore[union-attr]


def test_a_translator_without_a_target_says_what_it_lacks() -> None:
    with pytest.raises(InputError, match="give decoder_input_ids"):
        tiny.translator()(tiny.ids(1, 3))
    head = SequenceClassification(labels=("a",), pooling="eos")
    model = tiny.translator(whole={**whole(head), "tokens": SpecialTokens(eos=(7,))})
    with pytest.raises(InputError, match=r"set SpecialTokens\.decoder_start"):
        model(torch.tensor([[1, 7]]))
    with pytest.raises(InputError, match="decoder_input_ids has shape"):
        model(torch.tensor([[1, 7]]), torch.tensor([[1, 7, 2]]))
    with pytest.raises(InputError, match="give input_ids"):
        model(None, torch.tensor([[1, 7]]), memory=model.encode(torch.tensor([[1, 7]])))


def test_a_decoder_may_know_another_vocabulary() -> None:
    model = tiny.translator(whole={"shared_embedding": False, "decoder_vocab_size": 9})
    assert model(tiny.ids(2, 5), torch.tensor([[2, 8], [2, 0]])).logits.shape == (2, 2, 9)
    with pytest.raises(InputError, match="id 9 is outside the vocabulary of 9"):
        model(tiny.ids(2, 5), torch.tensor([[2, 9], [2, 0]]))


def test_token_classification() -> None:
    model = tiny.encoder(whole=whole(HEADS["tokens"]))
    out = model(tiny.ids(2, 5))
    assert out.logits.shape == (2, 5, 3)
    torch.testing.assert_close(out.logits, model.head.classify(out.hidden))  # type: ignore[union-attr]


def test_sentence_embedding() -> None:
    model = tiny.encoder(whole=whole(HEADS["sentence"]))
    out = model(tiny.ids(2, 5))
    torch.testing.assert_close(out.embedding, F.normalize(out.hidden.mean(1)))
    assert out.logits is None and not list(model.head.parameters())  # type: ignore[union-attr]


def test_no_head_gives_the_last_vectors() -> None:
    out = tiny.encoder()(tiny.ids(2, 5))
    assert out.hidden.shape == (2, 5, tiny.WIDTH) and out.logits is out.embedding is out.pooled is None


# ── padding is not read ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["first", "last", "mean", "max"])
@pytest.mark.parametrize("left", [True, False], ids=["padded left", "padded right"])
def test_pooling_reads_real_tokens_only(how: str, left: bool) -> None:
    texts = [torch.randn(n, 4) for n in (6, 3, 1)]
    hidden = torch.full((4, 6, 4), 9.0)
    real = torch.zeros(4, 6).bool()
    for row, text in enumerate(texts):
        span = slice(6 - len(text), None) if left else slice(None, len(text))
        hidden[row, span], real[row, span] = text, True
    pooled = pool(hidden, real, how)  # type: ignore[arg-type]
    one = {"first": lambda t: t[0], "last": lambda t: t[-1], "mean": lambda t: t.mean(0), "max": lambda t: t.amax(0)}
    for row, text in enumerate(texts):
        torch.testing.assert_close(pooled[row], one[how](text))
    assert not pooled[3].any(), "a text of nothing but padding gives zeros"


POOLED = {f"text, {how}": replace(HEADS["text"], pooling=how) for how in ("first", "last", "mean", "max")}  # type: ignore[call-arg]


@pytest.mark.parametrize("head", [*HEADS.values(), *POOLED.values()], ids=[*HEADS, *POOLED])
@pytest.mark.parametrize("left", [True, False], ids=["padded left", "padded right"])
def test_every_head_gives_a_padded_text_what_it_gets_alone(head: Head, left: bool) -> None:
    model = tiny.encoder(whole=whole(head))
    texts = [tiny.ids(1, n, seed=n)[0] for n in (9, 4)]
    ids, real = tiny.padded(texts, left=left)
    out = model(ids, attention_mask=real.long())
    for row, text in enumerate(texts):
        alone = model(text[None])
        for ours, own in ((out.logits, alone.logits), (out.embedding, alone.embedding), (out.pooled, alone.pooled)):
            if own is not None:
                batched: Tensor = ours[row][real[row]] if ours.ndim == 3 else ours[row]
                torch.testing.assert_close(batched, own[0], rtol=0, atol=1e-5)


def test_the_last_logits_alone_are_the_last_of_all() -> None:
    ids, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (9, 4)])
    for name, head in HEADS.items():
        if name == "text, by the pooler":
            continue
        model = tiny.decoder(whole=whole(head))
        all_of_it, last = (model(ids, attention_mask=real, last_only=only) for only in (False, True))
        if all_of_it.logits is not None and all_of_it.logits.ndim == 3:
            torch.testing.assert_close(last.logits, all_of_it.logits[:, -1:])
        elif all_of_it.logits is not None:
            torch.testing.assert_close(last.logits, all_of_it.logits, msg="a label is the whole text's")


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_in_training(name: str) -> None:
    model = tiny.encoder(whole=whole(HEADS[name])).train()
    out = model(tiny.ids(2, 5))
    (out.logits if out.logits is not None else out.embedding).sum().backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())  # type: ignore[union-attr]
