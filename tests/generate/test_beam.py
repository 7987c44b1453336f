"""Beam search: the best text where nothing is left out, and the same texts however they are read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clearhead.errors import ConfigError
from clearhead.generate import GenerationSettings, generate_ids, stream_ids
from clearhead.generate.reader import Reader
from clearhead.model.config import SpecialTokens
from tests.generate.test_decode import WRITERS
from tests.model import tiny

NEW = 7


@pytest.fixture(params=WRITERS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return WRITERS[request.param]


def log_p(model: nn.Module, prompt: Tensor, new: Tensor) -> Tensor:
    """The log-probability of each continuation of one prompt."""
    text = torch.cat((prompt.expand(len(new), -1), new), dim=1)
    logits = model(text).logits[:, prompt.shape[1] - 1 : -1].log_softmax(-1)
    return logits.gather(2, new[..., None]).sum((1, 2))


def test_with_a_beam_for_everything_the_likeliest_text_is_found() -> None:
    model, prompt, v = tiny.decoder(), tiny.ids(1, 5), tiny.VOCABULARY
    every = torch.cartesian_prod(torch.arange(v), torch.arange(v))
    best = log_p(model, prompt, every).topk(5).indices
    found = generate_ids(model, prompt, max_new_tokens=2, num_beams=v, num_return_sequences=5, eos=())
    assert torch.equal(found[:, 5:], every[best])
    greedy = generate_ids(model, prompt, max_new_tokens=2, eos=())[:, 5:]
    assert log_p(model, prompt, greedy) <= log_p(model, prompt, found[:1, 5:])


def test_a_texts_score_is_over_its_length() -> None:
    """Of all texts of up to 2 ids that end with 3, or are cut off there: log p / length^penalty decides."""
    model, prompt, v = tiny.decoder(), tiny.ids(1, 5, seed=2), tiny.VOCABULARY
    for penalty in (-3.0, 0.0, 1.0, 3.0):
        every = torch.cartesian_prod(torch.arange(v), torch.arange(v))
        every = every[every[:, 0] != 3]
        scores = torch.cat((log_p(model, prompt, torch.tensor([[3]])), log_p(model, prompt, every) / 2**penalty))
        best = int(scores.argmax())
        expected = [3] if best == 0 else every[best - 1].tolist()
        found = generate_ids(
            model, prompt, max_new_tokens=2, num_beams=v, length_penalty=penalty, eos=3, early_stopping="never"
        )
        assert found[0, 5:].tolist() == expected


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_padded_batch_finds_what_each_text_finds_alone(model: nn.Module, early_stopping: bool | str) -> None:
    texts = [tiny.ids(1, n, seed=n)[0] for n in (9, 4, 1)]
    ids, real = tiny.padded(texts)
    free = generate_ids(model, ids, attention_mask=real, max_new_tokens=NEW, num_beams=3, eos=())[:, -NEW:]
    ends = sorted({int(free[0, 2]), int(free[1, 4])})
    settings = GenerationSettings(max_new_tokens=NEW, num_beams=3, eos=ends, pad=60, early_stopping=early_stopping)
    cached, uncached = (
        generate_ids(model, ids, settings, attention_mask=real, use_cache=use_cache) for use_cache in (True, False)
    )
    assert torch.equal(cached, uncached)
    new = cached[:, 1 if hasattr(model, "encode") else ids.shape[1] :]
    for row, text in enumerate(texts):
        alone = generate_ids(model, text[None], settings)
        found = alone[0, 1 if hasattr(model, "encode") else len(text) :].tolist()
        assert new[row].tolist() == found + [60] * (new.shape[1] - len(found))


def test_several_texts_of_each_prompt_stand_side_by_side(model: nn.Module) -> None:
    ids, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (6, 3)])
    settings = {"max_new_tokens": NEW, "num_beams": 4, "eos": ()}
    found = generate_ids(model, ids, attention_mask=real, num_return_sequences=3, **settings)  # type: ignore[arg-type]
    best = generate_ids(model, ids, attention_mask=real, **settings)  # type: ignore[arg-type]
    assert found.shape[0] == 6 and torch.equal(found[::3], best)
    assert len({tuple(row) for row in found[:3].tolist()}) == 3
    steps = list(stream_ids(model, ids, attention_mask=real, num_return_sequences=3, **settings))  # type: ignore[arg-type]
    assert torch.equal(torch.stack(steps, dim=1), found[:, -NEW:])


def test_a_reader_goes_on_with_the_rows_it_is_told(model: nn.Module) -> None:
    ids, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (6, 3)])
    rows, new = torch.tensor([1, 0, 1]), torch.tensor([[5], [6], [7]])
    for use_cache in (True, False):
        moved = Reader(model, ids, attention_mask=real, use_cache=use_cache)
        moved.read(moved.start, moved.start_real)
        moved.select(rows)
        fresh = Reader(model, ids[rows], attention_mask=real[rows], use_cache=use_cache)
        fresh.read(fresh.start, fresh.start_real)
        torch.testing.assert_close(moved.read(new), fresh.read(new), rtol=0, atol=1e-5)


def test_beams_end_where_the_config_says_and_are_filled_with_its_padding() -> None:
    free = generate_ids(tiny.decoder(), tiny.ids(3, 5), max_new_tokens=NEW, num_beams=2)[:, 5:]
    ending = tiny.decoder(whole={"tokens": SpecialTokens(eos=(int(free[0, 1]),), pad=60)})
    found = generate_ids(ending, tiny.ids(3, 5), max_new_tokens=NEW, num_beams=2, early_stopping=True)[:, 5:]
    for row in found.tolist():
        end = row.index(int(free[0, 1])) if int(free[0, 1]) in row else len(row) - 1
        assert set(row[end + 1 :]) <= {60}


def test_no_new_tokens_give_the_prompt_back() -> None:
    ids = tiny.ids(2, 5)
    found = generate_ids(tiny.decoder(), ids, max_new_tokens=0, num_beams=3, num_return_sequences=2)
    assert torch.equal(found, ids.repeat_interleave(2, dim=0))


def test_a_vocabulary_smaller_than_the_beams_is_no_trouble() -> None:
    model = tiny.decoder(whole={"vocab_size": 3})
    assert generate_ids(model, torch.tensor([[1, 2]]), max_new_tokens=4, num_beams=9, eos=(0, 1)).shape[0] == 1


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"num_beams": 0}, "GenerationSettings.num_beams=0 lies outside 1…"),
        ({"num_beams": 2, "temperature": 0.5}, "beam search takes the likeliest and draws nothing"),
        ({"num_beams": 2, "num_return_sequences": 3}, "choose at most 2"),
        ({"num_return_sequences": 2}, "choose at most 1"),
        ({"length_penalty": 21.0}, "is too large; choose at most 20.0"),
        ({"length_penalty": -21.0}, "must be at least -20.0"),
        ({"early_stopping": "soon"}, "choose True, False or 'never'"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        GenerationSettings(**wrong)  # type: ignore[arg-type]
    message = str(error.value)
    assert says in message and "\n" not in message and message.endswith(".")
