"""Decoding: read the text, choose what comes next, add it, and read on.

`decode` is the loop; `generate_ids` gives whole texts and `stream_ids` one id at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from clearhead.errors import InputError
from clearhead.generate.reader import Reader
from clearhead.generate.sampling import adjust, choose
from clearhead.generate.settings import GenerationSettings
from clearhead.model.config import SpecialTokens
from clearhead.model.recurrent import RecurrentLanguageModel

Ids = Int[Tensor, "B T"]
Real = Bool[Tensor, "B T"] | Int[Tensor, "B T"]


def generate_ids(
    model: nn.Module,
    ids: Ids,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    eos: int | Sequence[int] | None = None,
    attention_mask: Real | None = None,
    use_cache: bool = True,
) -> Int[Tensor, "B Tn"]:
    """The texts with what the model adds to them, at most `max_new_tokens` ids: (B, T + n).

    model: a Decoder, a RecurrentLanguageModel, or an EncoderDecoder, whose `ids` are the source; what comes back is
    then the target, from the token that the decoder starts with. ids: one row a text, shorter ones padded on the left,
    where `attention_mask` is 0. A padded text gets what it would get alone. temperature … seed: see
    `GenerationSettings`. eos: ids that end a text; None means those of the config, () none. Texts that ended are
    filled with the padding id until all have. use_cache: False reads the whole text again for each id: the slow twin.

    The draws have a generator of their own: torch's global one is neither read nor moved. No gradients, no dropout.

    Raises ContextError, before anything is read, where the new tokens do not fit the model's positions; InputError for
    a model that does not write or ids that do not fit it; ConfigError for a setting out of its range.
    """
    settings = GenerationSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    reader = Reader(model, ids, attention_mask=attention_mask, use_cache=use_cache)
    new = [step[:, None] for step in decode(reader, settings, eos=eos)]
    return torch.cat((reader.start, *new), dim=1)


def stream_ids(
    model: nn.Module,
    ids: Ids,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    eos: int | Sequence[int] | None = None,
    attention_mask: Real | None = None,
    use_cache: bool = True,
) -> Iterator[Int[Tensor, " B"]]:
    """`generate_ids` as it happens: an iterator over the new ids, one (B,) tensor a step. It may be left at any step.

    What is wrong with the arguments is raised here, not at the first step; nothing is read before that step.
    """
    settings = GenerationSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    return decode(Reader(model, ids, attention_mask=attention_mask, use_cache=use_cache), settings, eos=eos)


def decode(
    reader: Reader, settings: GenerationSettings, *, eos: int | Sequence[int] | None = None
) -> Iterator[Int[Tensor, " B"]]:
    """The loop: what `reader` is asked, and what is chosen of its answers. Raises ContextError where it has no room."""
    reader.check_room(settings.max_new_tokens)
    model = reader.model
    tokens = SpecialTokens() if isinstance(model, RecurrentLanguageModel) else model.config.tokens
    return _steps(reader, settings, _end_ids(tokens, eos), tokens.pad)


def _end_ids(tokens: SpecialTokens, eos: int | Sequence[int] | None) -> tuple[int, ...]:
    ends = tokens.eos if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)
    if not all(isinstance(end, int) for end in ends):
        raise InputError(f"eos={eos!r} is no id and no list of ids; give whole numbers.")
    return ends


def _steps(
    reader: Reader, settings: GenerationSettings, ends: tuple[int, ...], pad: int | None
) -> Iterator[Int[Tensor, " B"]]:
    generator = None if settings.greedy else _generator(settings.seed)
    ids, real = reader.start, reader.start_real
    ended = torch.zeros_like(ids[:, 0], dtype=torch.bool)
    end_ids = torch.tensor(ends, dtype=ids.dtype, device=ids.device)
    counts: Tensor | None = None  # how often each id stands in each text
    for _ in range(settings.max_new_tokens):
        logits = reader.read(ids, real)
        if settings.repetition_penalty is not None:
            counts = torch.zeros_like(logits, dtype=torch.long) if counts is None else counts
            counts.scatter_add_(1, ids.long(), real.long())
        chosen = choose(adjust(logits, settings, counts > 0 if counts is not None else None), generator)
        # What ended is fed its padding as any other id: no other text reads it, and its own is read by nobody.
        filler = pad if pad is not None and 0 <= pad < logits.shape[-1] else ends[0] if ends else 0
        new = chosen.to(ids.dtype).masked_fill(ended, filler)
        yield new
        if ends:
            ended = ended | torch.isin(new, end_ids)
            if bool(ended.all()):
                return
        ids, real = new[:, None], torch.ones_like(new[:, None], dtype=torch.bool)


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
