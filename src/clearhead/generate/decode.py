"""Decoding: read the text, choose what comes next, add it, and read on.

`decode` is the loop; `generate_ids` gives whole texts and `stream_ids` one id at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from clearhead.generate.beam import search
from clearhead.generate.reader import Reader
from clearhead.generate.sampling import Written, adjust, choose
from clearhead.generate.settings import GenerationSettings, settled
from clearhead.model.config import SpecialTokens
from clearhead.model.recurrent import RecurrentLanguageModel

Ids = Int[Tensor, "B T"]
Real = Bool[Tensor, "B T"] | Int[Tensor, "B T"]


def generate_ids(
    model: nn.Module,
    ids: Ids,
    settings: GenerationSettings | None = None,
    *,
    attention_mask: Real | None = None,
    use_cache: bool = True,
    **changes: Any,
) -> Int[Tensor, "Bn Tn"]:
    """The texts with what the model adds to them: (B, T + n); of beam search, `num_return_sequences` rows for each.

    model: a Decoder, a RecurrentLanguageModel, or a translator (EncoderDecoder, RecurrentTranslator), whose `ids` are
    the source; what comes back is then the target, from the token that the decoder starts with. ids: one row a text,
    shorter ones padded on the left (a source on either side), where `attention_mask` is 0. A padded text gets what it
    would get alone. settings: how ids are chosen; changes: its fields by name, `generate_ids(model, ids,
    max_new_tokens=20, num_beams=4)`. Texts that ended are filled with the padding id until all have. use_cache: False
    reads the whole text again for each id: the slow twin.

    The draws have a generator of their own: torch's global one is neither read nor moved. No gradients, no dropout.

    Raises ContextError, before anything is read, where the new tokens do not fit the model's positions; InputError for
    a model that does not write or ids that do not fit it; ConfigError for a setting out of its range.
    """
    settings = settled(settings, changes)
    reader = _reader(model, ids, settings, attention_mask, use_cache)
    new = [step[:, None] for step in decode(reader, settings)]
    return torch.cat((reader.start.repeat_interleave(settings.num_return_sequences, dim=0), *new), dim=1)


def stream_ids(
    model: nn.Module,
    ids: Ids,
    settings: GenerationSettings | None = None,
    *,
    attention_mask: Real | None = None,
    use_cache: bool = True,
    **changes: Any,
) -> Iterator[Int[Tensor, " Bn"]]:
    """`generate_ids` as it happens: an iterator over the new ids, one (B,) tensor a step. It may be left at any step.

    Beam search knows its texts at the end; then all steps come at once. What is wrong with the arguments is raised
    here, not at the first step; nothing is read before that step.
    """
    settings = settled(settings, changes)
    return decode(_reader(model, ids, settings, attention_mask, use_cache), settings)


def _reader(
    model: nn.Module, ids: Ids, settings: GenerationSettings, attention_mask: Real | None, use_cache: bool
) -> Reader:
    start = settings.decoder_start
    return Reader(model, ids, attention_mask=attention_mask, use_cache=use_cache, decoder_start=start)


def decode(reader: Reader, settings: GenerationSettings) -> Iterator[Int[Tensor, " Bn"]]:
    """The loop: what `reader` is asked, and what is chosen of its answers. Raises ContextError where it has no room."""
    steps = reader.room(settings)
    model = reader.model
    settings.check_ids(reader.vocab_size)
    tokens = SpecialTokens() if isinstance(model, RecurrentLanguageModel) else model.config.tokens
    ends = tokens.eos if settings.eos is None else settings.ids("eos")
    pad = tokens.pad if settings.pad is None else settings.pad
    # What ended is fed its padding as any other id: no other text reads it, and its own is read by nobody.
    filler = pad if pad is not None and 0 <= pad < reader.vocab_size else ends[0] if ends else 0
    if settings.num_beams > 1 and steps:
        return _late(reader, settings, steps, ends, filler)
    return _steps(reader, settings, steps, ends, filler)


def _late(
    reader: Reader, settings: GenerationSettings, steps: int, ends: tuple[int, ...], filler: int
) -> Iterator[Int[Tensor, " Bn"]]:
    yield from search(reader, settings, steps, ends, filler).unbind(1)


def _steps(
    reader: Reader, settings: GenerationSettings, steps: int, ends: tuple[int, ...], filler: int
) -> Iterator[Int[Tensor, " B"]]:
    generator = None if settings.greedy else _generator(settings.seed)
    ids, real = text, text_real = reader.start, reader.start_real
    ended = torch.zeros_like(ids[:, 0], dtype=torch.bool)
    end_ids = torch.tensor(ends, dtype=ids.dtype, device=ids.device)
    for step in range(steps):
        logits = reader.read(ids, real)
        written = Written(text, text_real, step, step == steps - 1, ends, *reader.source)
        new = choose(adjust(logits, settings, written), generator).to(ids.dtype).masked_fill(ended, filler)
        yield new
        if ends:
            ended = ended | torch.isin(new, end_ids)
            if bool(ended.all()):
                return
        ids, real = new[:, None], torch.ones_like(new[:, None], dtype=torch.bool)
        text, text_real = torch.cat((text, ids), dim=1), torch.cat((text_real, real), dim=1)


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
