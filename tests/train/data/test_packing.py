"""Packing: every id once, no document read by another, whatever the lengths."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from clearhead.errors import ConfigError, TrainingError
from clearhead.model import presets
from clearhead.model.config import MaskedLanguageModel
from clearhead.model.transformer import build
from clearhead.train.data.cache import Column
from clearhead.train.data.encoders import Labelled, Text
from clearhead.train.data.packing import Blocks, Documents, Fitted, Windows, packed
from clearhead.train.data.readers import GivenRows
from clearhead.train.loss import total_loss
from clearhead.train.objectives.causal import CausalLanguageModel
from clearhead.train.objectives.common import Chance, Vocabulary, document_inputs, inputs_of
from tests.train.data.support import bytes_tokenizer, cache_of

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12)


class Stretch:
    """A cache of documents of these lengths, whose ids count on through all of them."""

    def __init__(self, lengths):
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.columns = {
            "ids": Column(np.arange(offsets[-1], dtype=np.uint16), offsets),
            "starts": Column((np.arange(offsets[-1]) % 3 == 0).astype(np.uint8), offsets),
        }
        self.document = np.repeat(np.arange(len(lengths)), lengths)

    def __len__(self):
        return len(self.columns["ids"].offsets) - 1

    def __getitem__(self, row):
        return {n: c.numbers[c.offsets[row] : c.offsets[row + 1]] for n, c in self.columns.items()}


@pytest.fixture(autouse=True)
def _unchecked(as_a_user):
    """A cache is stood in for by a stretch of numbers."""


@given(lengths=LENGTHS, length=st.integers(2, 7), ahead=st.integers(0, 1))
def test_blocks_have_every_id_once(lengths, length, ahead):
    if sum(lengths) <= ahead:
        with pytest.raises(TrainingError, match="too few for a row"):
            packed(Stretch(lengths), Blocks(length=length), ahead=ahead)
        return
    stretch = Stretch(lengths)
    rows = packed(stretch, Blocks(length=length), ahead=ahead)
    every = [rows[n] for n in range(len(rows))]
    # all ids that can be inputs, once each; with one ahead, the last id of all is only ever a label
    inputs = np.concatenate([row["ids"][: len(row["ids"]) - ahead] for row in every])
    assert inputs.tolist() == list(range(sum(lengths) - ahead))
    assert rows.lengths.tolist() == [len(row["ids"]) for row in every]
    for row in every:
        assert len(row["starts"]) == len(row["ids"]) == len(row["documents"])
        truth = stretch.document[row["ids"]]
        assert row["documents"][0] == 0
        assert (np.diff(row["documents"]) == (np.diff(truth) > 0)).all()


@given(lengths=LENGTHS, length=st.integers(2, 12))
def test_fitted_rows_hold_whole_documents(lengths, length):
    stretch = Stretch(lengths)
    if max(lengths) > length:
        with pytest.raises(TrainingError, match="documents are longer than"):
            packed(stretch, Fitted(length=length))
        rows = packed(stretch, Fitted(length=length, too_long="cut"))
    elif not sum(lengths):
        with pytest.raises(TrainingError, match="no tokens"):
            packed(stretch, Fitted(length=length))
        return
    else:
        rows = packed(stretch, Fitted(length=length))
    every = [rows[n] for n in range(len(rows))]
    assert sorted(np.concatenate([row["ids"] for row in every]).tolist()) == list(range(sum(lengths)))
    assert rows.lengths.tolist() == [len(row["ids"]) for row in every]
    assert all(len(row["ids"]) <= length for row in every)
    for row in every:
        for document in range(row["documents"].max() + 1):
            ids = row["ids"][row["documents"] == document]
            assert (np.diff(ids) == 1).all() and len(set(stretch.document[ids])) == 1
    # best fit: no two rows could have shared one
    fill = sorted(rows.lengths.tolist())
    assert len(fill) < 2 or fill[0] + fill[1] > length


@given(lengths=LENGTHS, length=st.integers(2, 7))
def test_windows_are_every_stretch(lengths, length):
    stretch = Stretch(lengths)
    if sum(lengths) < length + 1:
        with pytest.raises(TrainingError, match="too few for a window"):
            packed(stretch, Windows(length=length), ahead=1)
        return
    rows = packed(stretch, Windows(length=length), ahead=1)
    assert len(rows) == sum(lengths) - length
    assert [rows[n]["ids"].tolist() for n in range(len(rows))] == [
        list(range(n, n + length + 1)) for n in range(len(rows))
    ]
    assert "documents" not in rows[0] and rows.lengths.tolist() == [length + 1] * len(rows)


def test_documents_are_as_they_are(tmp_path):
    rows = packed(Stretch([2, 0, 3]), Documents())
    assert [row["ids"].tolist() for row in (rows[0], rows[1], rows[2])] == [[0, 1], [], [2, 3, 4]]
    assert rows.lengths.tolist() == [2, 0, 3]


def test_labels_cannot_be_joined(tmp_path):
    given_rows = GivenRows([{"text": "a", "label": 0}, {"text": "bc", "label": 0}])
    cache = cache_of(tmp_path, given_rows, bytes_tokenizer(), Labelled(labels=("x",)))
    with pytest.raises(ConfigError, match="'label' is not one number a token"):
        packed(cache, Blocks(length=4))
    cache = cache_of(tmp_path, GivenRows([{"text": "abcdef"}]), bytes_tokenizer(), Text())
    assert [len(packed(cache, kind)) for kind in (Blocks(length=4), Windows(length=4))] == [2, 4]
    with pytest.raises(ConfigError, match="2 or more"):
        Blocks(length=1)


# ── what a packed row teaches ────────────────────────────────────────────────────────────────────────────────────────

SMALL = {"n_layers": 2, "n_heads": 2, "d_model": 8, "vocab_size": 120, "context": 24}
VOCABULARY = Vocabulary(size=120)


@lru_cache
def model(kind):
    """In float64, as it is trained."""
    torch.manual_seed(0)
    match kind:
        case "gpt2":
            config = presets.gpt2(**SMALL)
        case "llama":
            config = presets.llama(**SMALL, n_kv_heads=1, d_ff=16, theta=100.0)
        case _:
            config = replace(presets.bert(**SMALL, dropout=0.0), head=MaskedLanguageModel())
    return build(config).double().train()


def documents_of(row):
    """The stretches of a row that belong to one document, each as a row of its own."""
    return [{"ids": row["ids"][row["documents"] == number]} for number in range(row["documents"].max() + 1)]


PACKED = (
    settings(max_examples=8, phases=(Phase.explicit, Phase.generate), derandomize=True),
    given(
        lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
        packing=st.sampled_from([Blocks(length=7), Blocks(length=24), Fitted(length=9), Fitted(length=24)]),
    ),
)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@PACKED[0]
@PACKED[1]
def test_a_packed_row_teaches_what_its_documents_teach_alone(kind, lengths, packing):
    """The loss, and so every gradient: to 1e-6, whatever was put beside what."""
    learn = CausalLanguageModel()
    if sum(lengths) < 2:
        return
    rows = packed(Stretch(lengths), packing, ahead=1)
    every = [rows[n] for n in range(len(rows))]
    together = learn.batch(every, VOCABULARY, Chance(seed=0, step=0))
    alone = [learn.batch([text], VOCABULARY, Chance(seed=0, step=0)) for row in every for text in documents_of(row)]
    alone = [batch for batch in alone if batch.n_labels]
    assert together.n_labels == sum(batch.n_labels for batch in alone)
    if not alone:
        return
    gradients = []
    for batches in ([together], alone):
        model(kind).zero_grad()
        loss = sum(total_loss(model(kind)(**batch.inputs), batch) for batch in batches)
        loss.backward()
        gradients.append([loss.detach(), *(each.grad for each in model(kind).parameters() if each.grad is not None)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-5, atol=1e-5)
    assert abs(float(gradients[0][0] - gradients[1][0])) <= 1e-6 * float(gradients[1][0])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@PACKED[0]
@PACKED[1]
def test_a_packed_document_is_read_as_if_it_stood_alone(kind, lengths, packing):
    """In both directions, where the model reads both; its positions begin anew."""
    rows = packed(Stretch(lengths), packing)
    every = [rows[n] for n in range(len(rows))]
    inputs = inputs_of([row["ids"] for row in every], VOCABULARY)
    inputs |= document_inputs(every, [len(row["ids"]) for row in every])
    read = model(kind)(**inputs).logits
    for number, row in enumerate(every):
        for place, text in enumerate(documents_of(row)):
            alone = model(kind)(**inputs_of([text["ids"]], VOCABULARY)).logits[0]
            there = np.flatnonzero(row["documents"] == place)
            torch.testing.assert_close(read[number, there], alone, rtol=0, atol=1e-6)
