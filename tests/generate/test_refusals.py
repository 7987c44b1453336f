"""What is wrong with the arguments is said at the call, whole or streamed, and nothing is read before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearhead.errors import InputError
from clearhead.generate import generate_ids, stream_ids
from clearhead.model.config import SpecialTokens, T5Bias
from clearhead.model.recurrent import RecurrentConfig, RecurrentLanguageModel
from tests.model import tiny

IDS = tiny.ids(2, 4)
RECURRENT = RecurrentLanguageModel(RecurrentConfig(vocab_size=tiny.VOCABULARY, d_model=8))
GAP = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1]])

REFUSED: list[tuple[nn.Module, object, dict[str, object], str]] = [
    (tiny.decoder(), IDS + 61, {}, "is outside the vocabulary of 61"),
    (tiny.translator(), IDS - 99, {}, "is outside the vocabulary of 61"),
    (RECURRENT, IDS + 61, {}, "is outside the vocabulary of 61"),
    (tiny.translator(whole={"tokens": SpecialTokens(decoder_start=61)}), IDS, {}, "id 61 is outside the vocabulary"),
    (tiny.decoder(), [[1, 2]], {}, "ids are given as list; give a tensor of ids"),
    (RECURRENT, [[1, 2]], {}, "ids are given as list; give a tensor of ids"),
    (tiny.decoder(), IDS, {"attention_mask": [[1] * 4] * 2}, "attention_mask is a list; give a tensor"),
    (tiny.translator(T5Bias()), IDS, {"attention_mask": GAP}, "text 1 of the batch has padding between its tokens"),
]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(("model", "ids", "given", "says"), REFUSED)
def test_it_is_refused_at_the_call(model: nn.Module, ids: object, given: dict[str, object], says: str) -> None:
    for start in (generate_ids, stream_ids):
        with pytest.raises(InputError) as error:
            start(model, ids, max_new_tokens=2, **given)  # type: ignore[arg-type]
        message = str(error.value)
        assert says in message and "\n" not in message and message.endswith(".")
