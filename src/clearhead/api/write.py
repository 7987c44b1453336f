"""Writing: prompts in, the model's words out. A decoder goes on from them, an encoder-decoder translates or sums up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clearhead.api.texts import batch
from clearhead.errors import InputError
from clearhead.generate.decode import generate_ids, stream_ids
from clearhead.generate.settings import GenerationSettings, settled
from clearhead.model.config import LanguageModel

if TYPE_CHECKING:
    from clearhead.api import Loaded


def settings_of(
    lm: Loaded, settings: GenerationSettings | None, target_language: str | None, changes: Mapping[str, Any]
) -> GenerationSettings:
    """What the caller asks for, over what the checkpoint does."""
    own = settings if settings is not None else lm.settings
    found = settled(own, changes)
    if settings is None and own.max_new_tokens is not None and not {"max_new_tokens", "max_length"} & changes.keys():
        found = replace(found, max_new_tokens=None, max_length=None, default_new_tokens=own.max_new_tokens)
    if found.num_return_sequences > 1:
        raise InputError(
            "a prompt gets one text here; leave num_return_sequences out, or take clearhead.generate.generate_ids."
        )
    return found if target_language is None else _into(lm, target_language, found)


def write(lm: Loaded, prompts: Sequence[str], settings: GenerationSettings) -> list[str]:
    """What follows each prompt; all are written side by side."""
    rows = [_prompt_ids(lm, prompt) for prompt in prompts]
    ids, real = batch(lm, rows, left=lm.config.encoder is None)
    out = generate_ids(lm.model, ids, settings, attention_mask=real)
    new = out[:, 1 if lm.config.encoder is not None else ids.shape[1] :].tolist()
    return ["".join(_pieces(lm, row, iter(found), settings)) for row, found in zip(rows, new, strict=True)]


def stream(lm: Loaded, prompt: str, settings: GenerationSettings) -> Iterator[str]:
    """What follows one prompt, piece by piece. What is wrong is raised here, before the first piece."""
    row = _prompt_ids(lm, prompt)
    ids, _ = batch(lm, [row])
    new = stream_ids(lm.model, ids, settings)
    return _pieces(lm, row, (int(step[0]) for step in new), settings)


def _pieces(lm: Loaded, prompt: list[int], new: Iterator[int], settings: GenerationSettings) -> Iterator[str]:
    ends = lm.config.tokens.eos if settings.eos is None else settings.ids("eos")
    text = lm.tokenizer.decode_stream(before=prompt if lm.config.encoder is None else [])
    for id in new:
        if id in ends:
            break
        piece = text.push(id)
        if piece:
            yield piece
    rest = text.finish()
    if rest:
        yield rest


def _prompt_ids(lm: Loaded, prompt: str) -> list[int]:
    if not isinstance(lm.config.head, LanguageModel):
        raise InputError(f"{lm.name} does not write text; it is an {lm.config.architecture} without that head.")
    ids = lm.tokenizer.encode(prompt).ids if prompt else []
    if lm.config.encoder is None and ids and ids[-1] in lm.config.tokens.eos:
        ids = ids[:-1]  # a tokenizer that closes every text would close the prompt
    if not ids:
        raise InputError("the prompt is empty; give at least one word.")
    return ids


def _into(lm: Loaded, language: str, settings: GenerationSettings) -> GenerationSettings:
    """The settings that make a multilingual model write this language: its code is the first token that it writes, or,
    where the decoder itself starts from a language (mBART), that token."""
    codes = _languages(lm)
    id = next((codes[token] for token in (language, f"__{language}__") if token in codes), None)
    if lm.config.encoder is None or id is None:
        few = f"it has {', '.join(list(codes)[:3])} …" if codes else "it has none"
        raise InputError(f"{lm.name} has no token for the language {language!r}; {few}; leave target_language out.")
    start = settings.decoder_start if settings.decoder_start is not None else lm.config.tokens.decoder_start
    if start in codes.values():
        return replace(settings, decoder_start=id)
    return replace(settings, forced_bos_token_id=id)


def _languages(lm: Loaded) -> dict[str, int]:
    """Special tokens without a role, by name: those of a translator are its languages."""
    tokenizer = lm.tokenizer
    tokens = {tokenizer.id_to_token(id): id for id in range(tokenizer.vocab_size) if tokenizer.is_special(id)}
    roles = set(tokenizer.special_tokens.values())
    return {token: id for token, id in tokens.items() if token is not None and token not in roles}
