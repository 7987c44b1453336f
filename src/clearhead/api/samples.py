"""Samples: what a model writes while it is trained, after a recipe's prompts."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from clearhead.api.building import Built
from clearhead.api.recipe import Samples
from clearhead.errors import ClearheadError
from clearhead.generate import generate_ids
from clearhead.model.recurrent_translator import RecurrentTranslator
from clearhead.model.transformer import EncoderDecoder


def written(model: torch.nn.Module, parts: Built, samples: Samples) -> Iterator[str]:
    """What the model writes after each prompt, greedily; or why it writes nothing. parts: whose tokenizer it has."""
    tokenizer, translates = parts.tokenizer, isinstance(model, EncoderDecoder | RecurrentTranslator)
    device = next(model.parameters()).device
    for prompt in samples.prompts:
        ids = torch.tensor([tokenizer.encode(prompt).ids], device=device)
        room = getattr(model.config, "context", 10**9) - (0 if translates else ids.shape[1])
        try:
            found = generate_ids(
                model,
                ids,
                max_new_tokens=max(1, min(samples.max_new_tokens, room)),
                eos=[] if tokenizer.eos_id is None else [tokenizer.eos_id],
                pad=0,
                decoder_start=parts.vocabulary.start if translates else None,
            )
        except ClearheadError as error:
            yield f"({error})"
        else:
            yield tokenizer.decode(found[0].tolist())
