"""Every family that writes, against transformers' `generate`: greedy and beam search, with the rules, token by token.

One thing is left out on purpose: under left padding transformers counts the padding as text where repetitions are held
down, so that a text gets another answer in company; here it does not, and PAD is neither prompted nor written.

Texts are compared up to their end. What fills a row behind it is ours to choose: the padding id; transformers' beam
search takes the eos where the padding id is 0.

Two hypotheses may tie within rounding, and another processor then writes another text, here or there. Where the texts
differ, transformers is asked again with its scores moved by what parity allows: if it changes its own mind, the example
decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from clearhead.api import Loaded
from clearhead.generate import generate_ids
from clearhead.model import EncoderDecoder
from tests.parity import support
from tests.parity.grids import Grid, grids
from tests.parity.support import PAD

WRITERS = {family: grid for family, grid in grids().items() if grid.writes is not None}
PROMPT = 4

pytestmark = pytest.mark.usefixtures("as_a_user")  # thousands of small calls: shapes are checked next door


def spread(theirs: Any) -> Any:
    """Its logits far apart, so that nothing ties within rounding."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:  # tables of sinusoids stay as they are
                parameter.normal_(0, 0.4)
    return theirs


def settings_of(draw: st.DrawFn, source: bool) -> dict[str, Any]:
    """Random settings, under the names that both sides have."""
    beams = draw(st.integers(1, 4))
    chosen: dict[str, Any] = {"num_beams": beams, "suppress_tokens": [PAD]}
    if beams > 1:
        chosen["length_penalty"] = draw(st.sampled_from([-1.0, 0.0, 0.6, 1.0, 2.0]))
        chosen["early_stopping"] = draw(st.sampled_from([True, False, "never"]))
        chosen["num_return_sequences"] = draw(st.sampled_from([1, beams]))
    rules: dict[str, st.SearchStrategy[Any]] = {
        "no_repeat_ngram_size": st.integers(1, 3),
        "encoder_no_repeat_ngram_size": st.integers(1, 3),
        "min_new_tokens": st.integers(1, 3),
        "min_length": st.integers(1, 8),
        "repetition_penalty": st.sampled_from([0.8, 1.5]),
        "bad_words_ids": st.lists(st.lists(st.integers(1, 10), min_size=1, max_size=3), min_size=1, max_size=9),
        "begin_suppress_tokens": st.lists(st.integers(1, 10), min_size=1, max_size=6),
        "forced_eos_token_id": st.sampled_from([3, [3, 4]]),
        "renormalize_logits": st.just(True),
    }
    if source:
        rules["forced_bos_token_id"] = st.integers(1, 10)
    for name in draw(st.lists(st.sampled_from(sorted(rules)), unique=True, max_size=3)):
        chosen[name] = draw(rules[name])
    if "min_new_tokens" in chosen:
        chosen.pop("min_length", None)  # transformers sets it aside, with a warning
    return chosen


def texts_of(rows: Tensor, begin: int, ends: list[int]) -> list[list[int]]:
    """The new ids of each row, up to the first that ends it, or to where no word was left to say (-1, PAD)."""
    found = []
    for row in rows[:, begin:].tolist():
        row = row[: next((place for place, id in enumerate(row) if id in (-1, PAD)), len(row))]
        end = next((place for place, id in enumerate(row) if id in ends), len(row))
        found.append(row[: end + 1])
    return found


class Moved(LogitsProcessor):
    """Scores moved at random by up to 1e-5 of their scale: no more than two right programs may differ by."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scale = scores[scores.isfinite()].abs().max()
        return scores + (torch.rand_like(scores) * 2 - 1) * 1e-5 * scale


def hangs_on_rounding(
    theirs: Any, want: list[list[int]], begin: int, ends: list[int], ids: Tensor, **asked: Any
) -> bool:
    """Whether transformers writes another text when its own scores move within rounding."""
    for _ in range(8):
        moved = theirs.generate(ids, logits_processor=LogitsProcessorList([Moved()]), **asked)
        if texts_of(moved, begin, ends) != want:
            return True
    return False


def calls(ids: Tensor, real: Tensor, together: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """The batch, where transformers reads it as we do, and texts alone."""
    if together:
        yield ids, real
    for row in (1,) if together else (0, 1):
        alone = ids[row][real[row].bool()][None]
        yield alone, torch.ones_like(alone)


@pytest.mark.parametrize("family", sorted(WRITERS))
@pytest.mark.parametrize("examples", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_texts_are_transformers(family: str, examples: int) -> None:
    grid: Grid = WRITERS[family]
    decided: list[bool] = []

    @settings(max_examples=examples, derandomize=True, phases=(Phase.explicit, Phase.generate))
    @given(st.data(), st.one_of(grid.configs, st.builds(grid.small)), st.integers(0, 10_000))
    def drawn(data: st.DataObject, config: Any, seed: int) -> None:
        torch.manual_seed(seed)
        kind = grid.writes
        theirs = spread(support.tiny(grid.classes[kind], config, **grid.options.get(kind, {})))
        with support.folder() as path:
            ours = support.loaded(theirs, path).model
        theirs.generation_config = GenerationConfig()  # a class's own defaults are looked at in the next test
        source = isinstance(ours, EncoderDecoder)
        side = data.draw(st.sampled_from(["none", "right" if source else "left"]))
        ids, real = support.texts(config.vocab_size, pad=side, length=PROMPT)
        chosen = data.draw(st.composite(settings_of)(source))
        chosen["max_new_tokens"] = min(8, ours.config.context - (1 if source else PROMPT))
        if "min_length" in chosen:  # a text that cannot become so long is warned of by transformers
            chosen["min_length"] = min(chosen["min_length"], chosen["max_new_tokens"] + 1)
        ends = data.draw(st.sampled_from([[], [3], [3, 5, 8]]))
        # transformers makes T5's cache as deep as the encoder, and a deeper decoder falls out of it
        cached = grid.cached(config) and getattr(config, "num_decoder_layers", 0) <= config.num_hidden_layers
        together = not grid.alone(config) and side in (*grid.pads(kind), "none")
        for some, here in calls(ids, real, together):
            asked = {"attention_mask": here, "do_sample": False, "eos_token_id": ends or None, "pad_token_id": PAD}
            asked |= {"use_cache": cached, **({"decoder_start_token_id": 2} if source else {}), **chosen}
            want = theirs.generate(some, **asked)
            begin = 1 if source else some.shape[1]
            texts = texts_of(want, begin, ends)
            for use_cache in (True, False):
                mine = {"eos": ends, "pad": PAD, "decoder_start": 2 if source else None, "use_cache": use_cache}
                got = generate_ids(ours, some, attention_mask=here, **mine, **chosen)
                told = f"{family}, seed {seed}, {side}, cached {use_cache}, eos {ends}, {chosen}"
                if texts_of(got, begin, ends) == texts:
                    assert got.shape == want.shape, told
                    decided.append(True)
                else:
                    assert hangs_on_rounding(theirs, texts, begin, ends, some, **asked), told
                    decided.append(False)

    drawn()
    assert sum(decided) > 0.8 * len(decided)


@pytest.mark.parametrize("family", sorted(WRITERS))
def test_a_checkpoints_own_settings_are_taken_over(family: str) -> None:
    grid = WRITERS[family]
    kind = grid.writes
    theirs = spread(support.tiny(grid.classes[kind], grid.small(), **grid.options.get(kind, {})))
    asked = {
        "num_beams": 3,
        "length_penalty": 0.4,
        "early_stopping": True,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[7], [4, 9]],
        "forced_eos_token_id": 6,
        "eos_token_id": [6, 8],
        "pad_token_id": PAD,
        "max_length": 10,
        "min_length": 6,
        "renormalize_logits": True,
        "do_sample": True,  # chance is not taken over
        "temperature": 0.3,
    }
    if theirs.config.is_encoder_decoder:
        asked |= {"forced_bos_token_id": 5, "decoder_start_token_id": 2}
    with support.folder() as path:
        theirs.save_pretrained(path)
        (path / "generation_config.json").write_text(json.dumps(asked))
        theirs.generation_config = GenerationConfig.from_pretrained(path)
        lm = Loaded(support.load(path))
    ids = torch.randint(1, theirs.config.vocab_size, (3, PROMPT))
    plainly = {"attention_mask": torch.ones_like(ids), "do_sample": False}
    begin = 1 if theirs.config.is_encoder_decoder else PROMPT
    want = texts_of(theirs.generate(ids, **plainly), begin, [6, 8])
    got = texts_of(generate_ids(lm.model, ids, lm.settings), begin, [6, 8])
    assert got == want or hangs_on_rounding(theirs, want, begin, [6, 8], ids, **plainly)
    assert lm.settings.greedy and any("do_sample, temperature" in note for note in lm.report.notes)
