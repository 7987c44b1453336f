"""Decoding: the same text however it is read, alone or in a batch, with a cache or without, whole or as it comes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.errors import ConfigError, ContextError, InputError
from clearhead.generate import generate_ids, stream_ids
from clearhead.generate.reader import Reader
from clearhead.model.config import (
    EmbeddingConfig,
    LanguageModel,
    Learned,
    NoPosition,
    Rotary,
    SpecialTokens,
    T5Bias,
    TokenClassification,
)
from clearhead.model.recurrent import Cell, RecurrentConfig, RecurrentLanguageModel
from tests.model import tiny

NEW = 8


def recurrent(cell: Cell = "lstm") -> RecurrentLanguageModel:
    config = RecurrentConfig(vocab_size=tiny.VOCABULARY, d_model=16, n_layers=2, cell=cell)
    return tiny.lively(RecurrentLanguageModel(config))


WRITERS: dict[str, nn.Module] = {
    **{f"decoder, {name}": tiny.decoder(position) for name, position in tiny.POSITIONS.items()},
    "decoder, window": tiny.decoder(Rotary(), attention=replace(tiny.GROUPED, window=5)),
    "translator": tiny.translator(),
    "translator, T5": tiny.translator(T5Bias(buckets=8, max_distance=20)),
    **{cell: recurrent(cell) for cell in ("rnn", "lstm", "gru")},  # type: ignore[arg-type]
}


@pytest.fixture(params=WRITERS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return WRITERS[request.param]


def greedy_by_hand(model: nn.Module, prompt: Tensor, n: int) -> list[int]:
    """One text, no cache, no padding: the model is called and the largest logit taken."""
    if hasattr(model, "encode"):
        target = torch.tensor([[model.config.tokens.decoder_start]])
        for _ in range(n):
            target = torch.cat((target, model(prompt[None], target).logits[:, -1].argmax(-1)[None]), dim=1)
        return target[0].tolist()
    text = prompt[None]
    for _ in range(n):
        text = torch.cat((text, model(text).logits[:, -1].argmax(-1)[None]), dim=1)
    return text[0].tolist()


# ── the same text however it is read ─────────────────────────────────────────────────────────────────────────────


def test_greedy_takes_the_largest_logit_each_time(model: nn.Module) -> None:
    prompt = tiny.ids(1, 7)
    expected = greedy_by_hand(model, prompt[0], NEW)
    for use_cache in (True, False):
        assert generate_ids(model, prompt, max_new_tokens=NEW, eos=(), use_cache=use_cache).tolist() == [expected]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_padded_batch_writes_what_each_text_gets_alone(model: nn.Module, temperature: float) -> None:
    texts = [tiny.ids(1, n, seed=n)[0] for n in (9, 4, 1)]
    ids, real = tiny.padded(texts)
    settings = {"max_new_tokens": NEW, "temperature": temperature, "seed": 4, "eos": ()}
    cached, uncached = (
        generate_ids(model, ids, attention_mask=real, use_cache=use, **settings)  # type: ignore[arg-type]
        for use in (True, False)
    )
    assert torch.equal(cached, uncached)
    if temperature == 0:
        for row, text in enumerate(texts):
            alone = generate_ids(model, text[None], max_new_tokens=NEW, eos=())
            assert cached[row, -NEW:].tolist() == alone[0, -NEW:].tolist()


def test_cached_logits_are_the_uncached_under_padding(model: nn.Module) -> None:
    ids, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (9, 4)])
    cached, uncached = (Reader(model, ids, attention_mask=real, use_cache=use) for use in (True, False))
    new, new_real = cached.start, cached.start_real
    for _ in range(NEW):
        one, other = cached.read(new, new_real), uncached.read(new, new_real)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        new = one.argmax(-1)[:, None]
        new_real = torch.ones_like(new, dtype=torch.bool)


def test_streaming_gives_the_same_ids_one_at_a_time(model: nn.Module) -> None:
    ids, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (6, 3)])
    settings = {"max_new_tokens": NEW, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 1, "eos": ()}
    steps = list(stream_ids(model, ids, attention_mask=real, **settings))  # type: ignore[arg-type]
    assert len(steps) == NEW and all(step.shape == (2,) for step in steps)
    whole = generate_ids(model, ids, attention_mask=real, **settings)  # type: ignore[arg-type]
    assert torch.equal(torch.stack(steps, dim=1), whole[:, -NEW:])


# ── where a text ends ────────────────────────────────────────────────────────────────────────────────────────────


def test_texts_that_ended_are_filled_with_padding_until_all_have() -> None:
    model = tiny.decoder()
    free = generate_ids(model, tiny.ids(3, 5), max_new_tokens=NEW)[:, 5:]
    end = int(free[1, 2])
    out = generate_ids(model, tiny.ids(3, 5), max_new_tokens=NEW, eos=end)[:, 5:]
    for row in range(3):
        text = free[row].tolist()
        if end in text:
            stop = text.index(end) + 1
            assert out[row].tolist() == (text[:stop] + [end] * NEW)[: out.shape[1]], (
                "no padding id: the end is repeated"
            )
        else:
            assert out[row].tolist() == text
    padded = tiny.decoder(whole={"tokens": SpecialTokens(pad=60, eos=(end, 59))})
    out = generate_ids(padded, tiny.ids(3, 5), max_new_tokens=NEW)[1, 5:].tolist()
    assert out[3:] == [60] * (len(out) - 3)


def test_it_stops_when_all_have_ended() -> None:
    model, read = tiny.decoder(), []
    end = int(generate_ids(model, tiny.ids(1, 5), max_new_tokens=3)[0, -1])
    hook = model.register_forward_hook(lambda *_: read.append(1))
    out = generate_ids(model, tiny.ids(1, 5).expand(2, 5), max_new_tokens=50, eos=[end])
    hook.remove()
    assert out.shape[1] == 5 + len(read) <= 8 and (out[:, -1] == end).all()


def test_the_configs_end_counts_unless_another_is_given() -> None:
    free = tiny.decoder()
    written = generate_ids(free, tiny.ids(1, 5), max_new_tokens=NEW)[0, 5:].tolist()
    ending = tiny.decoder(whole={"tokens": SpecialTokens(eos=(written[0], written[1]))})
    assert generate_ids(ending, tiny.ids(1, 5), max_new_tokens=NEW)[0, 5:].tolist() == written[:1]
    assert generate_ids(ending, tiny.ids(1, 5), max_new_tokens=NEW, eos=())[0, 5:].tolist() == written


def test_a_translator_begins_with_its_start_token() -> None:
    model = tiny.translator()
    out = generate_ids(model, tiny.ids(2, 6), max_new_tokens=4, eos=())
    assert out.shape == (2, 5) and (out[:, 0] == 2).all()
    calls: list[int] = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    generate_ids(model, tiny.ids(2, 6), max_new_tokens=4, eos=())
    assert len(calls) == 1, "the source is read once"


def test_no_new_tokens_give_the_prompt_back() -> None:
    ids = tiny.ids(2, 5)
    assert torch.equal(generate_ids(tiny.decoder(), ids, max_new_tokens=0), ids)
    assert list(stream_ids(tiny.decoder(), ids, max_new_tokens=0)) == []


# ── chance ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_seed_gives_one_text_and_leaves_torchs_generator_alone() -> None:
    model, ids = tiny.decoder(), tiny.ids(2, 5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = generate_ids(model, ids, max_new_tokens=12, temperature=1.0, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(generate_ids(model, ids, max_new_tokens=12, temperature=1.0, seed=1), one)
    assert not torch.equal(generate_ids(model, ids, max_new_tokens=12, temperature=1.0, seed=2), one)
    unseeded = [generate_ids(model, ids, max_new_tokens=12, temperature=1.0) for _ in range(2)]
    assert not torch.equal(*unseeded), "without a seed each text is its own"


def test_the_first_id_is_drawn_from_the_models_distribution() -> None:
    model, prompt = tiny.decoder(), tiny.ids(1, 5)
    expected = model(prompt).logits[0, -1].div(2.0).softmax(-1).detach()
    drawn = generate_ids(model, prompt.expand(20_000, 5), max_new_tokens=1, temperature=2.0, seed=0)[:, -1]
    frequencies = drawn.bincount(minlength=tiny.VOCABULARY) / 20_000
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=0.015)


def test_the_penalty_forbids_repetition_when_it_is_large() -> None:
    model = tiny.decoder()
    ids, real = tiny.padded([tiny.ids(1, 5)[0], tiny.ids(1, 2)[0]])
    out = generate_ids(model, ids, attention_mask=real, max_new_tokens=NEW, repetition_penalty=1e6)
    for row in range(2):
        text = out[row][torch.cat((real[row], torch.ones(NEW).bool()))].tolist()
        new = text[-NEW:]
        assert len(set(new)) == NEW and not set(new) & set(text[:-NEW])
    alone = generate_ids(model, tiny.ids(1, 2), max_new_tokens=NEW, repetition_penalty=1e6)
    assert alone[0, 2:].tolist() == out[1, 5:].tolist(), "padding was not seen"


def test_a_model_in_training_writes_without_dropout_and_stays_in_training() -> None:
    config = {"embedding": EmbeddingConfig(dropout=0.5)}
    quiet, training = tiny.decoder(whole=config), tiny.decoder(whole=config).train()
    training.head.eval()  # type: ignore[union-attr]
    ids = tiny.ids(2, 5)
    expected = generate_ids(quiet, ids, max_new_tokens=NEW)
    for step, column in zip(stream_ids(training, ids, max_new_tokens=NEW), expected[:, 5:].T, strict=True):
        assert torch.equal(step, column)
        assert training.training and training.decoder.embedding.training
        assert not training.head.training  # type: ignore[union-attr]


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_reads_nothing_before_it_is_asked_and_may_be_left() -> None:
    model, read = tiny.decoder(), []
    model.register_forward_hook(lambda *_: read.append(1))
    stream = stream_ids(model, tiny.ids(1, 5), max_new_tokens=50)
    assert not read
    next(stream)
    next(stream)
    assert len(read) == 2
    assert not torch.is_inference_mode_enabled(), "between two steps the caller is where it was"
    del stream


def test_what_was_written_can_be_learnt_from() -> None:
    model = tiny.decoder()
    ids = generate_ids(model, tiny.ids(1, 5), max_new_tokens=4)
    assert not ids.is_inference()
    F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).backward()
    for step in stream_ids(model, tiny.ids(1, 5), max_new_tokens=2):
        model(step[None]).logits.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_write_too(dtype: torch.dtype) -> None:
    model = tiny.decoder(Rotary()).to(dtype)
    out = generate_ids(model, tiny.ids(2, 5), max_new_tokens=NEW)
    assert torch.equal(out, generate_ids(model, tiny.ids(2, 5), max_new_tokens=NEW, use_cache=False)) or (
        dtype == torch.bfloat16  # coarse logits tie, and ties fall differently
    )
    assert generate_ids(model, tiny.ids(2, 5).int(), max_new_tokens=2).dtype == torch.int32


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["learned", "rotary", "sinusoidal", "longrope"])
def test_what_does_not_fit_is_refused_before_anything_is_read(name: str) -> None:
    model = tiny.decoder(tiny.POSITIONS[name], whole={"context": 20})
    model.register_forward_hook(lambda *_: pytest.fail("something was read"))
    for start in (generate_ids, stream_ids):
        with pytest.raises(ContextError, match=r"a prompt of 15 and 6 new tokens do not fit the model's 20 positions"):
            start(model, tiny.ids(1, 15), max_new_tokens=6)
        with pytest.raises(ContextError, match=r"ask for at most 5 new tokens, or shorten the prompt\."):
            start(model, tiny.ids(1, 15), max_new_tokens=6)
        with pytest.raises(ContextError, match=r"the prompt is 21 tokens long .* shorten it to fewer than 20 tokens\."):
            start(model, tiny.ids(1, 21), max_new_tokens=1)
        with pytest.raises(ContextError, match="no new token fits"):
            start(model, tiny.ids(1, 20), max_new_tokens=1)


def test_exactly_what_fits_is_written_and_padding_takes_no_room() -> None:
    model = tiny.decoder(whole={"context": 20})
    ids, real = tiny.padded([tiny.ids(1, 15)[0], tiny.ids(1, 3)[0]])
    ids, real = F.pad(ids, (10, 0)), F.pad(real, (10, 0))
    assert generate_ids(model, ids, attention_mask=real, max_new_tokens=5).shape == (2, 30)


@pytest.mark.parametrize("name", ["T5", "ALiBi", "none", "dynamic"])
def test_positions_without_an_end_write_on(name: str) -> None:
    model = tiny.decoder(tiny.POSITIONS[name], whole={"context": 8})
    assert generate_ids(model, tiny.ids(1, 15), max_new_tokens=6, eos=()).shape == (1, 21)
    assert generate_ids(recurrent(), tiny.ids(1, 200), max_new_tokens=2).shape == (1, 202)


def test_a_translators_source_and_target_must_fit() -> None:
    model = tiny.translator(Learned(), whole={"context": 10})
    assert generate_ids(model, tiny.ids(1, 10), max_new_tokens=9, eos=()).shape == (1, 10)
    with pytest.raises(ContextError, match="the source is 11 tokens long and the model's positions end at 10"):
        generate_ids(model, tiny.ids(1, 11), max_new_tokens=1)
    with pytest.raises(ContextError, match="ask for at most 9 new tokens"):
        generate_ids(model, tiny.ids(1, 5), max_new_tokens=10)


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_write_is_refused_in_one_line() -> None:
    ids, whole = tiny.ids(2, 4), {"tokens": SpecialTokens()}
    right = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    empty = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    labels = {"head": TokenClassification(labels=("a", "b"))}
    for model, given, says in (
        (tiny.encoder(whole={"head": LanguageModel()}), {}, "Encoder reads both ways: it has no next token to give"),
        (nn.Linear(2, 2), {}, "Linear is none of ours"),
        (tiny.decoder(whole={"head": None}), {}, "the model has no head and scores no vocabulary"),
        (tiny.decoder(whole=labels), {}, "the model has TokenClassification and scores no vocabulary"),
        (tiny.translator(whole=whole), {}, "names no token for the decoder to start from"),
        (tiny.decoder(), {"attention_mask": right}, "text 1 of the batch has padding after its tokens"),
        (recurrent(), {"attention_mask": right}, "pad on the left"),
        (tiny.decoder(), {"attention_mask": empty}, "text 1 of the batch is nothing but padding"),
        (tiny.translator(), {"attention_mask": empty}, "text 1 of the batch is nothing but padding"),
        (tiny.decoder(), {"attention_mask": torch.ones(2, 5)}, "attention_mask has shape (2, 5) and the ids (2, 4)"),
    ):
        with pytest.raises(InputError) as error:
            generate_ids(model, ids, max_new_tokens=2, **given)  # type: ignore[arg-type]
        message = str(error.value)
        assert says in message and "\n" not in message and message.endswith(".")
    with pytest.raises(InputError, match=r"ids of shape \(2, 0\) are not a batch of texts"):
        generate_ids(tiny.decoder(), ids[:, :0], max_new_tokens=2)
    with pytest.raises(InputError, match="outside the vocabulary of 61"):
        generate_ids(tiny.decoder(), ids + 61, max_new_tokens=2)
    with pytest.raises(ConfigError, match=r"GenerationSettings\.temperature=-1"):
        stream_ids(tiny.decoder(NoPosition()), ids, max_new_tokens=2, temperature=-1.0)
