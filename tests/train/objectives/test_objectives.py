"""Objectives: what goes in can be had back from what comes out, shares hold, nothing special is touched, padding counts
for nothing, and a row's chance is its own."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.errors import ConfigError
from clearhead.model import presets
from clearhead.model.transformer import build
from clearhead.text import Tokenizer
from clearhead.train.batch import IGNORED
from clearhead.train.objectives.causal import CausalLanguageModel
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.common import Chance, Vocabulary
from clearhead.train.objectives.infilling import TextInfilling, permuted
from clearhead.train.objectives.masked import MaskedLanguageModel
from clearhead.train.objectives.spans import SpanCorruption, cut_out, put_back
from clearhead.train.objectives.translation import SequenceToSequence

PAD, EOS, MASK, CLS, SEP, START = 0, 1, 2, 3, 4, 5
SENTINELS = tuple(range(40, 60))
WORDS = Vocabulary(
    size=60,
    pad=PAD,
    eos=EOS,
    mask=MASK,
    start=START,
    special=frozenset({PAD, EOS, MASK, CLS, SEP, START, *SENTINELS}),
    sentinels=SENTINELS,
    stops=frozenset({10}),
)
TEXT = st.lists(st.integers(6, 39), max_size=40)
TEXTS = st.lists(TEXT, min_size=1, max_size=5)
STEP = st.builds(Chance, seed=st.integers(0, 2**40), step=st.integers(0, 999), first=st.integers(0, 9))


def row(ids, **others):
    return {"ids": np.array(list(ids), dtype=np.uint16), **{name: np.array(values) for name, values in others.items()}}


def real(table, mask):
    """The ids of each row that are no padding."""
    return [
        ids.tolist() if mask is None else ids[on].tolist()
        for ids, on in zip(table, table if mask is None else mask, strict=True)
    ]


def sources(batch):
    return real(batch.inputs["input_ids"], batch.inputs.get("attention_mask"))


def targets(batch):
    """What the decoder should say; and it reads just that, one place on."""
    said = [labels[labels != IGNORED].tolist() for labels in batch.labels]
    reads = real(batch.inputs["decoder_input_ids"], batch.inputs.get("decoder_attention_mask"))
    assert reads == [[START, *ids[:-1]] for ids in said]
    assert batch.labels.shape == batch.inputs["decoder_input_ids"].shape
    return said


# ── causal ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.lists(TEXT, min_size=1, max_size=3), min_size=1, max_size=4), STEP)
def test_each_token_is_told_the_next_of_its_document(rows, chance):
    rows = [[text for text in texts if text] for texts in rows]
    packed = [
        row(chain(*texts), documents=np.repeat(np.arange(len(texts)), [len(text) for text in texts])) for texts in rows
    ]
    batch = CausalLanguageModel().batch(packed, WORDS, chance, range(len(rows)))
    width = batch.inputs["input_ids"].shape[1]
    documents = batch.inputs.get("documents", torch.zeros(len(rows), width, dtype=torch.long))
    for at, texts in enumerate(rows):
        pairs = [(a, b) for text in texts for a, b in pairwise(text)]
        learned = batch.labels[at] != IGNORED
        assert (
            list(zip(batch.inputs["input_ids"][at][learned].tolist(), batch.labels[at][learned].tolist(), strict=True))
            == pairs
        )
        n = max(sum(map(len, texts)) - 1, 0)
        assert documents[at, :n].tolist() == packed[at]["documents"][:n].tolist()
    assert batch.n_labels == sum(max(len(text) - 1, 0) for texts in rows for text in texts)
    assert batch.rows == tuple(range(len(rows)))


def test_of_a_conversation_the_answers_are_learned():
    batch = CausalLanguageModel().batch([row([7, 8, 9, 11], learned=[0, 0, 1, 1])], WORDS, Chance(seed=0, step=0))
    assert batch.labels.tolist() == [[IGNORED, 9, 11]]
    assert "attention_mask" not in batch.inputs and "documents" not in batch.inputs


def test_packed_documents_say_what_they_say_alone():
    """The loss of a packed row is the sum of its documents' losses."""
    from clearhead.train.loss import total_loss

    model = build(presets.gpt2(n_layers=2, n_heads=2, d_model=16, vocab_size=60, context=32)).eval()
    texts = [[7, 8, 9], [10, 11, 12, 13], [14, 15]]
    packed = row(chain(*texts), documents=[0, 0, 0, 1, 1, 1, 1, 2, 2])
    chance, learn = Chance(seed=0, step=0), CausalLanguageModel()
    whole = learn.batch([packed, row([20, 21, 22], documents=[0, 0, 0])], WORDS, chance)
    parts = learn.batch([row(text) for text in [*texts, [20, 21, 22]]], WORDS, chance)
    with torch.no_grad():
        losses = [float(total_loss(model(**batch.inputs), batch)) for batch in (whole, parts)]
    assert whole.n_labels == parts.n_labels == 8
    assert math.isclose(*losses, rel_tol=1e-5)


# ── masked ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(TEXTS, STEP, st.booleans(), st.data())
def test_what_is_masked_can_be_put_back(texts, chance, whole_words, data):
    rows = []
    for text in texts:
        starts = [1, *(data.draw(st.integers(0, 1)) if n else 1 for n in range(len(text))), 1]
        rows.append(row([CLS, *text, SEP], starts=starts))
    learn = MaskedLanguageModel(whole_words=whole_words)
    batch = learn.batch(rows, WORDS, chance)
    ids, labels = batch.inputs["input_ids"], batch.labels
    restored = torch.where(labels != IGNORED, labels, ids)
    assert real(restored, batch.inputs.get("attention_mask")) == [[CLS, *text, SEP] for text in texts]
    for at, text in enumerate(texts):
        chosen = (labels[at] != IGNORED).numpy()
        assert not chosen[0] and not chosen[len(text) + 1 :].any()  # [CLS], [SEP] and padding
        wanted = min(len(text), max(1, round(0.15 * len(text))))
        if not whole_words:
            assert chosen.sum() == wanted
        elif text:
            words = np.cumsum(rows[at]["starts"])[1:-1]
            inside = chosen[1 : len(text) + 1]
            by_word = [set(inside[words == word]) for word in set(words)]
            assert all(len(each) == 1 for each in by_word)  # all of a word or nothing
            sizes = [int((words == word).sum()) for word in set(words)]
            assert 1 <= chosen.sum() <= max(wanted, *sizes)
            assert chosen.sum() > wanted - max(sizes) or chosen.sum() >= wanted
    assert set(ids[labels != IGNORED].tolist()) <= {MASK, *range(6, 40)}


def test_80_10_10():
    rows = [row(np.random.default_rng(n).integers(6, 40, 500)) for n in range(60)]
    batch = MaskedLanguageModel().batch(rows, WORDS, Chance(seed=3, step=7))
    ids, labels = batch.inputs["input_ids"], batch.labels
    chosen = labels != IGNORED
    n = int(chosen.sum())
    assert n == 60 * 75
    masked, same = int((ids[chosen] == MASK).sum()), int((ids[chosen] == labels[chosen]).sum())
    kept = 0.1 + 0.1 / 34  # a random token is, one time in 34, the same
    for count, share in ((masked, 0.8), (same, kept)):
        assert abs(count - share * n) < 4 * math.sqrt(n * share * (1 - share))  # four standard deviations
    places = chosen.float().mean(0)
    assert abs(float(places[:250].mean() - places[250:].mean())) < 0.02


def test_masking_needs_what_it_needs():
    with pytest.raises(ConfigError, match="no mask token"):
        MaskedLanguageModel().batch([row([7])], Vocabulary(size=60), Chance(seed=0, step=0))
    with pytest.raises(ConfigError, match=r"Text\(words=True\)"):
        MaskedLanguageModel(whole_words=True).batch([row([7])], WORDS, Chance(seed=0, step=0))
    with pytest.raises(ConfigError, match="more than all"):
        MaskedLanguageModel(masked=0.9, random=0.2)
    with pytest.raises(ConfigError, match=r"rate=1\.5 should be a share"):
        MaskedLanguageModel(rate=1.5)


# ── spans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(TEXTS, STEP, st.sampled_from([0.15, 0.5]), st.sampled_from([1.0, 3.0]))
def test_what_is_cut_out_can_be_put_back(texts, chance, density, mean_span):
    texts = [text for text in texts if text] or [[6]]
    if density == 0.5:
        texts = [text[:30] for text in texts]
    learn = SpanCorruption(density=density, mean_span=mean_span)
    batch = learn.batch([row([*text, EOS]) for text in texts], WORDS, chance)
    for text, source, target in zip(texts, sources(batch), targets(batch), strict=True):
        assert source[-1] == target[-1] == EOS
        assert put_back(np.array(source[:-1]), np.array(target[:-1]), SENTINELS).tolist() == text
        spans = [id for id in source if id in SENTINELS]
        assert spans == list(SENTINELS[: len(spans)])
        assert [id for id in target if id in SENTINELS] == list(SENTINELS[: len(spans) + 1])
        cut = len(target) - 2 - len(spans)
        if len(text) > 1:
            assert cut == min(max(round(len(text) * density), 1), len(text) - 1)
            assert len(spans) == min(max(round(cut / mean_span), 1), cut, len(text) - cut)


def test_the_papers_example():
    """Figure 2 of Raffel et al. 2020, words for tokens."""
    text = np.arange(10, 21)  # Thank you for inviting me to your party last week .
    noise = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0], dtype=bool)
    source, target = cut_out(text, noise, SENTINELS)
    assert source.tolist() == [10, 11, 40, 14, 15, 16, 17, 41, 19, 20]
    assert target.tolist() == [40, 12, 13, 41, 18, 42]
    with pytest.raises(ConfigError, match="has 2 spans, and the tokenizer has 2 sentinels"):
        cut_out(text, noise, SENTINELS[:2])


def test_spans_are_anywhere():
    """Every partition is as likely as any other: of 4 tokens that stay in 2 runs, the first has 1, 2 or 3."""
    learn, firsts = SpanCorruption(density=0.5, mean_span=2.0), []
    for step in range(900):
        noise = learn.noise(8, Chance(seed=1, step=step).of(0))
        firsts.append(int(np.argmax(noise)))
    assert np.abs(np.bincount(firsts, minlength=4)[1:] - 300).max() < 60


# ── infilling ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(TEXTS, STEP)
def test_what_is_hidden_is_what_is_missing(texts, chance):
    learn = TextInfilling()
    batch = learn.batch([row([CLS, *text, EOS]) for text in texts], WORDS, chance)
    assert targets(batch) == [[CLS, *text, EOS] for text in texts]
    for at, (text, source) in enumerate(zip(texts, sources(batch), strict=True)):
        if not text:
            assert source == [CLS, EOS]
            continue
        assert source[0] == CLS and source[-1] == EOS
        _, lengths = learn.spans(len(text), chance.of(at))
        assert lengths.sum() == math.ceil(0.3 * len(text))
        assert source.count(MASK) == len(lengths)
        assert "".join("m" if id == MASK else "." for id in source).count("mm") == 0
        spans, left, restored = iter(lengths.tolist()), iter(text), []
        for id in source[1:-1]:
            restored += [next(left) for _ in range(next(spans))] if id == MASK else [next(left)]
            assert id == MASK or restored[-1] == id
        assert restored == text and next(left, None) is None


def test_spans_are_as_long_as_poisson_says():
    learn = TextInfilling()
    lengths = np.concatenate([learn.spans(2000, Chance(seed=2, step=step).of(0))[1] for step in range(20)])
    n = len(lengths)
    assert abs(lengths.mean() - 3) < 0.15
    for value in (0, 1, 3):
        share = math.exp(-3) * 3**value / math.factorial(value)
        assert abs((lengths == value).mean() - share) < 4 * math.sqrt(share * (1 - share) / n)


@given(TEXT, st.integers(0, 99))
def test_sentences_change_places_whole(text, step):
    moved = permuted(np.array(text, dtype=np.int64), WORDS.stops, Chance(seed=0, step=step).of(0)).tolist()

    def sentences(ids):
        found = [[]]
        for id in ids:
            found[-1].append(id)
            if id in WORDS.stops:
                found.append([])
        return [each for each in found if each]

    if 10 in text and text[-1] == 10:
        assert sorted(sentences(moved)) == sorted(sentences(text))
    assert sorted(moved) == sorted(text)
    batch = TextInfilling(permute=True).batch([row([CLS, *text, EOS])], WORDS, Chance(seed=0, step=step))
    assert targets(batch) == [[CLS, *text, EOS]]


# ── translation and classification ───────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), STEP)
def test_a_target_is_said_from_the_start_to_its_end(pairs, chance):
    rows = [row(source, target=[*target, EOS]) for source, target in pairs]
    batch = SequenceToSequence().batch(rows, WORDS, chance)
    assert targets(batch) == [[*target, EOS] for _, target in pairs]
    assert sources(batch) == [source for source, _ in pairs] or not any(source for source, _ in pairs)
    with pytest.raises(ConfigError, match="no id that its decoder starts from"):
        SequenceToSequence().batch(rows, Vocabulary(size=60), chance)


def test_labels_are_the_rows_own():
    learn, chance = SequenceClassification(), Chance(seed=0, step=0)
    rows = [row([7, 8], types=[0, 1], label=[2]), row([9], types=[0], label=[0])]
    batch = learn.batch(rows, WORDS, chance)
    assert batch.labels.tolist() == [2, 0]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 1], [0, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[True, True], [True, False]]
    floats = learn.batch([row([7], label=np.array([1.0, 0.0], "f4"))], WORDS, chance).labels
    assert floats.dtype == torch.float32 and floats.tolist() == [[1.0, 0.0]]
    assert learn.batch([row([7], score=np.array([2.5], "f4"))], WORDS, chance).labels.tolist() == [2.5]
    tags = TokenClassification().batch([row([7, 8], tags=[1, IGNORED]), row([9], tags=[0])], WORDS, chance)
    assert tags.labels.tolist() == [[1, IGNORED], [0, IGNORED]] and tags.n_labels == 2


# ── chance, and special ids ──────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=20)
@given(st.lists(TEXT.filter(len), min_size=2, max_size=6), STEP, st.data())
@pytest.mark.parametrize("learn", [MaskedLanguageModel(), SpanCorruption(), TextInfilling(permute=True)], ids=repr)
def test_a_rows_chance_is_its_own(learn, texts, chance, data):
    """Whatever rows are beside it, and whoever computes it."""
    rows = [row(text) for text in texts]
    whole = learn.batch(rows, WORDS, chance)
    again = learn.batch(rows, WORDS, chance)
    assert all(torch.equal(whole.inputs[name], again.inputs[name]) for name in whole.inputs)
    cut = data.draw(st.integers(1, len(rows) - 1))
    first = learn.batch(rows[:cut], WORDS, chance)
    rest = learn.batch(rows[cut:], WORDS, Chance(seed=chance.seed, step=chance.step, first=chance.first + cut))
    assert sources(first) + sources(rest) == sources(whole)
    others = [learn.batch([row(range(6, 40))], WORDS, Chance(seed=0, step=step)) for step in range(5)]
    assert len({str(batch.inputs) for batch in others}) == 5


def test_the_ids_with_a_meaning():
    lines = ["One. Two! Three"]
    bert = Vocabulary.of(Tokenizer.train(lines, kind="wordpiece", vocab_size=60))
    assert (bert.pad, bert.mask) == (0, 4) and bert.special == {0, 2, 3, 4}  # [UNK] stands for text
    assert {1, 5} <= set(bert.ordinary.tolist()) and not set(bert.ordinary.tolist()) & bert.special
    assert len(bert.stops) == 2
    t5 = Tokenizer.train(lines, kind="byte", special_tokens=["<pad>", "</s>", *(f"<extra_id_{n}>" for n in (2, 0, 1))])
    vocabulary = Vocabulary.of(t5, start=t5.pad_id, size=300)
    assert vocabulary.sentinels == tuple(t5.token_to_id(f"<extra_id_{n}>") for n in range(3))
    assert vocabulary.eos == t5.eos_id and vocabulary.size == 300
    gpt = Vocabulary.of(Tokenizer.train([], kind="byte", special_tokens=["<|endoftext|>"]))
    assert gpt.pad == gpt.eos == gpt.bos == 256
