"""What models refuse: one line each, that says what is wrong and what to do. Seen as a user sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearhead.errors import ClearheadError, InputError
from clearhead.model.masks import KeyPadding
from tests.model import tiny

IDS = tiny.ids(2, 4)
OTHER = torch.ones(2, 5, dtype=torch.long)

REFUSED: list[tuple[Callable[[], object], str]] = [
    (
        lambda: tiny.decoder()(torch.tensor([1, 2, 3])),
        "ids of shape (3,) are not a batch of texts; give (batch, tokens)",
    ),
    (lambda: tiny.decoder()(torch.zeros(2, 0, dtype=torch.long)), "ids of shape (2, 0) are not a batch of texts"),
    (lambda: tiny.encoder()(torch.zeros(0, 3, dtype=torch.long)), "at least one token"),
    (lambda: tiny.encoder()(torch.rand(1, 3)), "ids are whole numbers, and these are torch.float32; give torch.long"),
    (lambda: tiny.decoder()(IDS + tiny.VOCABULARY), "is outside the vocabulary of 61; use the tokenizer that belongs"),
    (lambda: tiny.decoder()(IDS - 99), "is outside the vocabulary of 61"),
    (lambda: tiny.decoder()(IDS, attention_mask=OTHER), "attention_mask has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.encoder()(IDS, documents=OTHER), "documents has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.decoder()(IDS, documents=OTHER), "documents has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.translator()(None, IDS), "give input_ids, or memory from encode()"),
    (lambda: tiny.translator()(IDS, IDS, attention_mask=OTHER), "attention_mask has shape (2, 5)"),
    (
        lambda: tiny.translator()(None, IDS, memory=torch.zeros(2, 4, tiny.WIDTH), attention_mask=OTHER),
        "attention_mask has shape (2, 5) and the ids (2, 4); give one value for each id",
    ),
    (lambda: tiny.translator()(IDS, IDS, decoder_attention_mask=OTHER), "attention_mask has shape (2, 5)"),
]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(("call", "says"), REFUSED)
def test_a_refusal_is_one_line(call: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert isinstance(error.value, ClearheadError)
    message = str(error.value)
    assert says in message and "\n" not in message and message.endswith(".")


def test_ids_may_be_int32_and_masks_whole_numbers() -> None:
    model = tiny.decoder()
    real = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    expected = model(IDS, attention_mask=real.bool()).logits
    assert torch.equal(model(IDS.int(), attention_mask=real).logits, expected)


def test_a_text_of_nothing_but_padding_is_finite() -> None:
    real = torch.ones_like(IDS).bool()
    real[1] = False
    for model in (tiny.decoder(), tiny.encoder()):
        assert model(IDS, attention_mask=real).hidden.isfinite().all()
    both = tiny.translator()
    assert both(IDS, IDS, attention_mask=real, decoder_attention_mask=real).logits.isfinite().all()


def test_shapes_are_checked_under_the_tests() -> None:
    with pytest.raises(TypeError, match="Type-check error"):
        tiny.decoder()(torch.tensor([1, 2, 3]))
    with pytest.raises(TypeError, match="Type-check error"):
        KeyPadding(torch.ones(2, 3))  # type: ignore[arg-type]
