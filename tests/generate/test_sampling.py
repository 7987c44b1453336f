"""Sampling, rule by rule: its definition, and transformers' logits processors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clearhead.errors import ConfigError
from clearhead.generate.sampling import (
    Written,
    adjust,
    choose,
    forbid,
    force,
    min_p,
    no_bad_words,
    no_repeat,
    repetition_penalty,
    seen_in,
    temperature,
    top_k,
    top_p,
)
from clearhead.generate.settings import GenerationSettings

FORBIDDEN = -math.inf


def drawn(seed: int, batch: int = 3, vocabulary: int = 40) -> Tensor:
    return torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def written(ids: Tensor, new: int = 0, *, last: bool = False, ends: tuple[int, ...] = ()) -> Written:
    real = torch.ones_like(ids, dtype=torch.bool)
    return Written(ids, real, new, last, ends, ids, real)


def kept(logits: Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in logits != FORBIDDEN]


# ── as transformers ──────────────────────────────────────────────────────────────────────────────────────────────


@given(seed=st.integers(0, 10_000), k=st.integers(1, 60), p=st.floats(0.01, 0.99), t=st.floats(0.05, 5.0))
def test_each_rule_is_transformers(seed: int, k: int, p: float, t: float) -> None:
    """p to 0.99: nearer to 1, transformers' float32 sum of the tail decides by its rounding (seed 419, p 0.99999)."""
    from transformers.generation.logits_process import (
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits, ids = drawn(seed), torch.randint(0, 40, (3, 7), generator=torch.Generator().manual_seed(seed))
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter(1, ids, True)
    pairs: list[tuple[Tensor, Tensor]] = [
        (temperature(logits, t), TemperatureLogitsWarper(t)(ids, logits)),
        (top_k(logits, k), TopKLogitsWarper(k)(ids, logits)),
        (top_p(logits, p), TopPLogitsWarper(p)(ids, logits)),
        (min_p(logits, p), MinPLogitsWarper(p)(ids, logits)),
        (repetition_penalty(logits, seen, t), RepetitionPenaltyLogitsProcessor(t)(ids, logits.clone())),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)


def test_all_rules_in_order_are_transformers() -> None:
    """All at once, at each length of text at which one of them begins or ends to speak."""
    from transformers import GenerationConfig
    from transformers.generation.logits_process import LogitsProcessorList
    from transformers.models.gpt2 import GPT2Config, GPT2LMHeadModel

    rules: dict[str, Any] = {
        "temperature": 0.7,
        "top_k": 12,
        "top_p": 0.8,
        "min_p": 0.02,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "encoder_no_repeat_ngram_size": 3,
        "bad_words_ids": [[3], [5, 6], [7, 8, 9], [1, 2], [30]],
        "min_length": 4,
        "forced_bos_token_id": 11,
        "forced_eos_token_id": [30, 31],
        "suppress_tokens": [12, 13],
        "begin_suppress_tokens": [14, 15, 16],
        "renormalize_logits": True,
    }
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=8, n_head=1, n_layer=1, n_positions=8))
    settings = GenerationSettings(max_new_tokens=1, **rules)
    for begun in (1, 3):
        prompt = torch.randint(0, 10, (3, begun))
        config = GenerationConfig(do_sample=True, num_beams=1, max_length=begun + 6, **rules)
        model._prepare_special_tokens(config)
        config._eos_token_tensor = torch.tensor([30, 31])
        processors: LogitsProcessorList = model._get_logits_processor(config, begun, encoder_input_ids=prompt)
        assert len(processors) == len(rules)
        for new in range(6):
            for seed in range(10):
                text = torch.cat((prompt, torch.randint(0, 10, (3, new))), dim=1)
                logits = drawn(seed)
                there = torch.ones_like(prompt, dtype=torch.bool)
                now = Written(text, torch.ones_like(text).bool(), new, new == 5, (30, 31), prompt, there)
                torch.testing.assert_close(adjust(logits, settings, now), processors(text, logits.clone()))


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), length=st.integers(1, 12))
def test_what_may_not_repeat_is_transformers(seed: int, n: int, length: int) -> None:
    from transformers.generation.logits_process import (
        EncoderNoRepeatNGramLogitsProcessor,
        NoBadWordsLogitsProcessor,
        NoRepeatNGramLogitsProcessor,
    )

    torch.manual_seed(seed)
    logits, ids, source = drawn(seed, vocabulary=5), torch.randint(0, 5, (3, length)), torch.randint(0, 5, (3, 7))
    real, there = torch.ones_like(ids).bool(), torch.ones_like(source).bool()
    words = torch.randint(0, 5, (4, n)).tolist()
    pairs = [
        (no_repeat(logits, ids, real, ids, real, n), NoRepeatNGramLogitsProcessor(n)(ids, logits.clone())),
        (
            no_repeat(logits, ids, real, source, there, n),
            EncoderNoRepeatNGramLogitsProcessor(n, source)(ids, logits.clone()),
        ),
        (no_bad_words(logits, ids, real, words), NoBadWordsLogitsProcessor(words)(ids, logits.clone())),
    ]
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)


# ── by definition ────────────────────────────────────────────────────────────────────────────────────────────────


def test_top_k_keeps_the_k_largest_and_what_ties_with_the_last() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 3.0, 2.0]])
    assert kept(top_k(logits, 1)) == [[1]]
    assert kept(top_k(logits, 2)) == [[1, 2, 3]]
    assert kept(top_k(logits, 99)) == [[0, 1, 2, 3, 4]]


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()[:, [2, 0, 3, 1]]  # ids by likelihood: 1, 3, 0, 2
    for p, expected in (
        (0.01, [1]),
        (0.49, [1]),
        (0.51, [1, 3]),
        (0.79, [1, 3]),
        (0.81, [0, 1, 3]),
        (1.0, [0, 1, 2, 3]),
    ):
        assert kept(top_p(logits, p)) == [expected], p
    assert kept(top_p(torch.zeros(1, 4), 0.5)) == [[0, 1]], "of equals, the lower ids"


@given(seed=st.integers(0, 10_000), p=st.floats(1e-6, 1.0))
def test_every_rule_leaves_the_likeliest(seed: int, p: float) -> None:
    logits = drawn(seed)
    for cut in (top_k(logits, 1), top_p(logits, p), min_p(logits, p)):
        assert torch.equal(cut.argmax(-1), logits.argmax(-1))
        stays = cut != FORBIDDEN
        assert torch.equal(cut[stays], logits[stays]), "what stays is as it was"


def test_min_p_is_a_part_of_the_largest_probability() -> None:
    assert kept(min_p(torch.tensor([[0.6, 0.29, 0.11]]).log(), 0.2)) == [[0, 1]]


def test_the_penalty_makes_what_was_seen_less_likely_whatever_its_sign() -> None:
    logits, seen = torch.tensor([[2.0, -2.0, 2.0, -2.0]]), torch.tensor([[True, True, False, False]])
    assert repetition_penalty(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0, -2.0]]


def test_padding_is_no_part_of_a_text() -> None:
    ids, real = torch.tensor([[0, 0, 3, 0]]), torch.tensor([[False, False, True, True]])
    logits = torch.zeros(1, 5)
    assert kept(no_repeat(logits, ids, real, ids, real, 1)) == [[1, 2, 4]]
    assert kept(no_repeat(logits, ids, real, ids, real, 2)) == [[0, 1, 2, 3, 4]], "0 0 came in the padding alone"
    assert kept(no_bad_words(logits, ids[:, :3], real[:, :3], [[0, 3, 1], [3, 2]])) == [[0, 1, 3, 4]]
    assert seen_in(ids, real, 5).tolist() == [[True, False, False, True, False]]


def test_ids_are_forbidden_and_forced() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert kept(forbid(logits, (1, 99))) == [[0, 2, 3]] and forbid(logits, ()).tolist() == logits.tolist()
    assert force(logits, (0, 2)).tolist() == [[0.0, FORBIDDEN, 0.0, FORBIDDEN]]


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_greedy_takes_the_first_of_equals() -> None:
    assert choose(torch.tensor([[0.0, 7.0, 7.0], [1.0, 1.0, 1.0]])).tolist() == [1, 0]


def test_draws_follow_the_softmax() -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.0, 0.2, 0.05])
    draws = choose(probabilities.log().expand(100_000, -1), torch.Generator().manual_seed(0))
    counts = draws.bincount(minlength=5) / 100_000
    torch.testing.assert_close(counts, probabilities, rtol=0, atol=0.006)
    assert counts[2] == 0, "what is forbidden is never drawn"


@given(seed=st.integers(0, 2**40))
def test_what_is_forbidden_is_never_drawn(seed: int) -> None:
    logits = top_k(drawn(seed, batch=50), 2)
    draws = choose(logits, torch.Generator().manual_seed(seed))
    assert (logits.gather(1, draws[:, None]) != FORBIDDEN).all()


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_fall_on_possible_ids(u: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, u, dtype=torch.float64))
    logits = torch.tensor([[FORBIDDEN, 1.0, 2.0, FORBIDDEN], [FORBIDDEN, FORBIDDEN, 0.1, FORBIDDEN]])
    assert choose(logits, torch.Generator()).tolist() == ([1, 2] if u == 0 else [2, 2])


def test_one_number_a_text_is_taken_whatever_the_vocabulary() -> None:
    small, large = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for _ in range(5):
        choose(torch.zeros(2, 4), small)
        choose(torch.zeros(2, 1000), large)
    assert torch.equal(small.get_state(), large.get_state())


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_new_tokens": -1}, "GenerationSettings.max_new_tokens=-1 lies outside 0…"),
        ({"max_new_tokens": 2.5}, "GenerationSettings.max_new_tokens=2.5 is not a whole number"),
        ({"temperature": -0.1}, "GenerationSettings.temperature=-0.1 must be at least 0.0"),
        ({"temperature": math.nan}, "GenerationSettings.temperature=nan is not a finite number"),
        ({"temperature": 1e-9}, "choose 0, which is greedy, or at least 1e-06"),
        ({"top_k": 0}, "GenerationSettings.top_k=0 lies outside 1…"),
        ({"top_p": 0.0}, "GenerationSettings.top_p=0.0 must be above 0.0"),
        ({"top_p": 1.2}, "GenerationSettings.top_p=1.2 is no probability; choose 0 < top_p ≤ 1"),
        ({"min_p": 2}, "GenerationSettings.min_p=2.0 is no probability"),
        ({"repetition_penalty": 0.0}, "GenerationSettings.repetition_penalty=0.0 must be above 0.0"),
        ({"seed": -1}, "GenerationSettings.seed=-1 lies outside 0…"),
        ({"seed": 2**64}, "choose a value in that range"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        GenerationSettings(**{"max_new_tokens": 5, **wrong})  # type: ignore[arg-type]
    message = str(error.value)
    assert says in message and "\n" not in message and message.endswith(".")


def test_greedy_leaves_the_cuts_out_and_keeps_the_penalty() -> None:
    logits, text = torch.tensor([[3.0, 2.0]]), written(torch.tensor([[0]]))
    greedy = GenerationSettings(max_new_tokens=1, top_k=1, top_p=0.1, min_p=0.9)
    assert greedy.greedy and adjust(logits, greedy, text) is logits
    penalised = GenerationSettings(max_new_tokens=1, repetition_penalty=2.0)
    assert choose(adjust(logits, penalised, text)).tolist() == [1]


def test_where_everything_is_forbidden_something_is_chosen() -> None:
    nothing = torch.full((2, 4), FORBIDDEN)
    for generator in (None, torch.Generator()):
        assert all(0 <= id < 4 for id in choose(nothing, generator).tolist())


def test_the_coldest_temperature_is_finite() -> None:
    logits = drawn(0)
    assert torch.equal(choose(temperature(logits, 1e-6), torch.Generator().manual_seed(0)), logits.argmax(-1))
