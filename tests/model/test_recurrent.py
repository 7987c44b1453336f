"""What the Transformer replaced: the same call, and a state where the cache would be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearhead.errors import InputError
from clearhead.model.recurrent import Cell, RecurrentConfig, RecurrentLanguageModel
from clearhead.model.transformer import Output
from tests.model import tiny

CLOSE = {"rtol": 0, "atol": 1e-6}
CELLS: tuple[Cell, ...] = ("rnn", "lstm", "gru")


@pytest.fixture(params=CELLS)
def model(request: pytest.FixtureRequest) -> RecurrentLanguageModel:
    config = RecurrentConfig(vocab_size=tiny.VOCABULARY, d_model=16, n_layers=2, cell=request.param)
    return RecurrentLanguageModel(config).eval()


def test_it_is_called_as_a_decoder_is(model: RecurrentLanguageModel) -> None:
    out = model(tiny.ids(2, 9))
    assert isinstance(out, Output) and out.logits is not None
    assert out.hidden.shape == (2, 9, 16) and out.logits.shape == (2, 9, tiny.VOCABULARY)
    torch.testing.assert_close(out.logits, out.hidden @ model.tokens.weight.T)
    torch.testing.assert_close(model(tiny.ids(2, 9), last_only=True).logits, out.logits[:, -1:])


def test_the_cell_is_its_formula() -> None:
    """Elman's: h_t = tanh(W x_t + U h_{t−1} + b)."""
    model = RecurrentLanguageModel(RecurrentConfig(vocab_size=9, d_model=8, cell="rnn"))
    cell, h = model.cell, torch.zeros(8)
    hidden = model(torch.tensor([[3, 1, 4, 1, 5]])).hidden[0]
    for t, token in enumerate((3, 1, 4, 1, 5)):
        x = model.tokens.weight[token]
        h = torch.tanh(
            F.linear(x, cell.weight_ih_l0, cell.bias_ih_l0) + F.linear(h, cell.weight_hh_l0, cell.bias_hh_l0)
        )
        torch.testing.assert_close(hidden[t], h, **CLOSE)


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 6]], ids=["by one", "by chunks"])
def test_the_state_is_a_cache(model: RecurrentLanguageModel, chunks: list[int]) -> None:
    ids, state, parts = tiny.ids(2, 12), model.new_cache(), []
    for piece in ids.split(chunks, dim=1):
        parts.append(model(piece, cache=state).logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits, **CLOSE)
    assert state.length == 12


@pytest.mark.parametrize("where", ["left", "right", "between"])
def test_padding_leaves_the_state_as_it_was(model: RecurrentLanguageModel, where: str) -> None:
    real = torch.tensor(
        {
            "left": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]],
            "right": [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]],
            "between": [[1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 1]],
        }[where]
    )
    ids, more = tiny.ids(3, 6), tiny.ids(3, 2, seed=1)
    whole = model(ids, attention_mask=real).logits
    state, parts = model.new_cache(), []
    for piece, mask in zip(ids.split([3, 3], dim=1), real.split([3, 3], dim=1), strict=True):
        parts.append(model(piece, attention_mask=mask, cache=state).logits)
    after = model(more, cache=state).logits
    for row in range(3):
        own = ids[row, real[row].bool()]
        alone = model(torch.cat((own, more[row]))[None]).logits[0]
        torch.testing.assert_close(whole[row, real[row].bool()], alone[: len(own)], **CLOSE)
        torch.testing.assert_close(torch.cat(parts, dim=1)[row, real[row].bool()], alone[: len(own)], **CLOSE)
        torch.testing.assert_close(after[row], alone[len(own) :], **CLOSE)


def test_what_comes_later_changes_nothing_before(model: RecurrentLanguageModel) -> None:
    ids = tiny.ids(1, 10)
    other = ids.clone()
    other[0, 6] = (other[0, 6] + 1) % tiny.VOCABULARY
    assert torch.equal(model(other).logits[:, :6], model(ids).logits[:, :6])
    assert not torch.equal(model(other).logits[:, 6:], model(ids).logits[:, 6:])


def test_tied_and_untied() -> None:
    tied, untied = (
        RecurrentLanguageModel(RecurrentConfig(vocab_size=50, d_model=8, tied=tied)) for tied in (True, False)
    )
    assert tied.head is None and untied.n_parameters() - tied.n_parameters() == 50 * 8
    untied(torch.tensor([[1, 2]])).logits.sum().backward()
    assert all(p.grad is not None for p in untied.parameters())


def test_dropout_between_layers_runs_in_training() -> None:
    config = RecurrentConfig(vocab_size=9, d_model=8, n_layers=2, dropout=0.5)
    model, ids = RecurrentLanguageModel(config), torch.tensor([[1, 2, 3]])
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.usefixtures("as_a_user")
def test_bad_ids_are_refused_in_one_line(model: RecurrentLanguageModel) -> None:
    with pytest.raises(InputError, match=r"id 61 is outside the vocabulary of 61; use the tokenizer"):
        model(torch.tensor([[1, 61]]))
    with pytest.raises(InputError, match=r"ids of shape \(3,\) are not a batch of texts"):
        model(torch.tensor([1, 2, 3]))
    with pytest.raises(InputError, match=r"attention_mask has shape \(1, 3\) and the ids \(1, 2\)"):
        model(torch.tensor([[1, 2]]), attention_mask=torch.ones(1, 3).bool())
