"""The recurrent translator: its formula step by step, its cache, its padding, and that it learns to copy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.errors import ConfigError, InputError
from clearhead.generate import generate_ids
from clearhead.model.config import SpecialTokens
from clearhead.model.recurrent import Cell
from clearhead.model.recurrent_translator import Reads, RecurrentTranslator, RecurrentTranslatorConfig
from clearhead.train.batch import Batch
from clearhead.train.loop import Loop, Trainer
from clearhead.train.optimiser import AdamW
from clearhead.train.schedules import Cosine
from tests.model import tiny

CLOSE = {"rtol": 0, "atol": 2e-6}
PAD, EOS, START = 0, 1, 0
READS: tuple[Reads, ...] = ("summary", "attention")


def translator(
    reads: Reads = "attention", cell: Cell = "gru", n_layers: int = 2, **more: object
) -> RecurrentTranslator:
    tokens = SpecialTokens(pad=PAD, eos=(EOS,), decoder_start=START)
    config = RecurrentTranslatorConfig(
        vocab_size=tiny.VOCABULARY,
        d_model=16,
        n_layers=n_layers,
        cell=cell,
        reads=reads,
        tokens=tokens,
        **more,  # type: ignore[arg-type]
    )
    return tiny.lively(RecurrentTranslator(config))


@pytest.fixture(params=[(reads, cell) for reads in READS for cell in ("rnn", "lstm", "gru")], ids="-".join)
def model(request: pytest.FixtureRequest) -> RecurrentTranslator:
    return translator(*request.param)


def test_it_is_called_as_an_encoder_decoder_is(model: RecurrentTranslator) -> None:
    source, target = tiny.ids(2, 7), tiny.ids(2, 5, seed=1)
    out = model(source, target)
    assert out.logits is not None and out.memory is not None
    assert out.hidden.shape == (2, 5, 16) and out.logits.shape == (2, 5, tiny.VOCABULARY)
    torch.testing.assert_close(out.logits, out.hidden @ model.tokens.weight.T + model.bias, **CLOSE)
    again = model(None, target, memory=model.encode(source))
    assert torch.equal(again.logits, out.logits)
    torch.testing.assert_close(model(source, target, last_only=True).logits, out.logits[:, -1:], **CLOSE)


def gru(cell: torch.nn.RNNBase, side: str, x: Tensor, h: Tensor) -> Tensor:
    """One step by hand, as torch's page has it: Cho et al. 2014."""
    w, u = getattr(cell, f"weight_ih_l0{side}"), getattr(cell, f"weight_hh_l0{side}")
    a, b = F.linear(x, w, getattr(cell, f"bias_ih_l0{side}")), F.linear(h, u, getattr(cell, f"bias_hh_l0{side}"))
    (ar, az, an), (br, bz, bn) = a.chunk(3), b.chunk(3)
    r, z = torch.sigmoid(ar + br), torch.sigmoid(az + bz)
    return (1 - z) * torch.tanh(an + r * bn) + z * h


@pytest.mark.parametrize("reads", READS)
def test_it_is_its_formula(reads: Reads) -> None:
    model = translator(reads, n_layers=1)
    source, target = tiny.ids(1, 6), tiny.ids(1, 4, seed=1)
    out = model(source, target)
    left, right = torch.zeros(8), torch.zeros(8)
    lefts, rights = [], []
    for token in source[0]:
        lefts.append(left := gru(model.encoder, "", model.tokens.weight[token], left))
    for token in source[0].flip(0):
        rights.insert(0, right := gru(model.encoder, "_reverse", model.tokens.weight[token], right))
    states = torch.stack([torch.cat(pair) for pair in zip(lefts, rights, strict=True)])
    summary = torch.cat((left, right))
    h = torch.tanh(model.begin(summary))
    for t, token in enumerate(target[0]):
        h = gru(model.decoder, "", model.tokens.weight[token], h)
        read = summary
        if model.attention is not None:
            scores = model.attention.k_proj(states) @ model.attention.q_proj(h) / 16**0.5
            read = model.attention.o_proj(scores.softmax(0) @ model.attention.v_proj(states))
        hidden = torch.tanh(model.join(torch.cat((read, h))))
        torch.testing.assert_close(out.hidden[0, t], hidden, **CLOSE)
        torch.testing.assert_close(out.logits[0, t], model.tokens.weight @ hidden + model.bias, **CLOSE)


@pytest.mark.parametrize("chunks", [[1] * 9, [4, 1, 4]], ids=["by one", "by chunks"])
def test_the_state_is_a_cache(model: RecurrentTranslator, chunks: list[int]) -> None:
    source, target, state, parts = tiny.ids(2, 7), tiny.ids(2, 9, seed=1), model.new_cache(), []
    memory = model.encode(source)
    for piece in target.split(chunks, dim=1):
        parts.append(model(None, piece, memory=memory, cache=state).logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(source, target).logits, **CLOSE)
    assert state.length == 9


@pytest.mark.parametrize("where", ["left", "right", "between"])
def test_padding_changes_nothing(model: RecurrentTranslator, where: str) -> None:
    real = torch.tensor(
        {
            "left": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]],
            "right": [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]],
            "between": [[1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 1]],
        }[where]
    ).bool()
    source, target = tiny.ids(3, 6), tiny.ids(3, 6, seed=1)
    whole = model(source, target, attention_mask=real, decoder_attention_mask=real.flip(0)).logits
    for row in range(3):
        kept = real.flip(0)[row]
        alone = model(source[row, real[row]][None], target[row, kept][None]).logits[0]
        torch.testing.assert_close(whole[row, kept], alone, **CLOSE)


@pytest.mark.parametrize("beams", [1, 3])
def test_it_writes_the_same_with_and_without_its_cache_and_padded(model: RecurrentTranslator, beams: int) -> None:
    source = tiny.ids(3, 6)
    real = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]])
    how = {"max_new_tokens": 8, "num_beams": beams}
    found = generate_ids(model, source, attention_mask=real, **how)
    assert found[:, 0].tolist() == [START] * 3
    slow = generate_ids(model, source, attention_mask=real, use_cache=False, **how)
    assert torch.equal(found, slow)
    for row in range(3):
        alone = generate_ids(model, source[row, real[row].bool()][None], **how)[0].tolist()
        assert found[row].tolist()[: len(alone)] == alone


class Copies:
    """Texts of three ids, to be written again."""

    def at(self, step: int) -> list[Batch]:
        ids = torch.randint(2, 12, (32, 3), generator=torch.Generator().manual_seed(step))
        target = torch.cat((ids, torch.full((32, 1), EOS)), dim=1)
        begins = torch.cat((torch.full((32, 1), START), ids), dim=1)
        return [Batch(inputs={"input_ids": ids, "decoder_input_ids": begins}, labels=target)]

    def state(self) -> dict[str, object]:
        return {}

    def load_state(self, told: object) -> None:
        return


@pytest.mark.parametrize("reads", READS)
def test_it_learns_to_copy_with_the_same_loop(reads: Reads) -> None:
    torch.manual_seed(0)
    tokens = SpecialTokens(pad=PAD, eos=(EOS,), decoder_start=START)
    model = RecurrentTranslator(RecurrentTranslatorConfig(vocab_size=12, d_model=48, reads=reads, tokens=tokens))
    loop = Loop(
        steps=200, optimiser=AdamW(rate=1e-2, weight_decay=0.0), schedule=Cosine(warmup=10), precision="float32"
    )
    list(Trainer(model, Copies(), loop).steps())
    ids = Copies().at(10_000)[0].inputs["input_ids"]
    written = generate_ids(model, ids, max_new_tokens=4, num_beams=2)
    assert float((written[:, 1:4] == ids).all(dim=1).float().mean()) > 0.9


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"d_model=15 does not divide into two directions; choose an even one, e\.g\. 16"
    ):
        RecurrentTranslatorConfig(vocab_size=9, d_model=15)
    with pytest.raises(ConfigError, match="reads='all'"):
        RecurrentTranslatorConfig(vocab_size=9, d_model=16, reads="all")  # type: ignore[arg-type]
    model = translator()
    with pytest.raises(InputError, match="needs the target so far"):
        model(tiny.ids(1, 3))
    with pytest.raises(InputError, match="needs the source"):
        model(None, tiny.ids(1, 3))
    with pytest.raises(InputError, match="a batch of 2 and the target a batch of 1"):
        model(tiny.ids(2, 3), tiny.ids(1, 3))
    with pytest.raises(InputError, match=r"memory is \(1, 3, 8\), not \(batch, tokens, 16\)"):
        model(None, tiny.ids(1, 3), memory=torch.zeros(1, 3, 8))
    with pytest.raises(InputError, match="the state of another model"):
        state = translator(cell="lstm").new_cache()
        translator(cell="lstm")(tiny.ids(1, 3), tiny.ids(1, 3), cache=state)
        model(tiny.ids(1, 3), tiny.ids(1, 3), cache=state)
