"""Writing: prompts in, the model's words out. A decoder goes on from them, an encoder-decoder translates or sums up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clearhead.api.texts import batch
from clearhead.errors import InputError
from clearhead.generate.decode import generate_ids, stream_ids
from clearhead.generate.settings import GenerationSettings, settled
from clearhead.model.config import LanguageModel

if TYPE_CHECKING:
    from clearhead.api import Loaded


@dataclass(frozen=True)
class Languages:
    """What a multilingual translator reads, and what it is to write, as its tokenizer names them; None is not said."""

    source: str | None = None
    target: str | None = None

    def check(self, lm: Loaded) -> None:
        """Raise InputError where a language was named and the model translates nothing."""
        if lm.config.encoder is None and (self.source, self.target) != (None, None):
            raise InputError(f"{lm.name} goes on from a text and translates none; leave the languages out.")


def settings_of(
    lm: Loaded, settings: GenerationSettings | None, languages: Languages, changes: Mapping[str, Any]
) -> GenerationSettings:
    """What the caller asks for, over what the checkpoint does."""
    languages.check(lm)
    if settings is not None and not isinstance(settings, GenerationSettings):
        raise InputError(
            f"settings is of type {type(settings).__name__}; give a GenerationSettings, or its fields by name."
        )
    own = settings if settings is not None else lm.settings
    found = settled(own, changes)
    if settings is None and own.max_new_tokens is not None and not {"max_new_tokens", "max_length"} & changes.keys():
        found = replace(found, max_new_tokens=None, max_length=None, default_new_tokens=own.max_new_tokens)
    if found.num_return_sequences > 1:
        raise InputError(
            "a prompt gets one text here; leave num_return_sequences out, or take clearhead.generate.generate_ids."
        )
    return found if languages.target is None else _into(lm, languages.target, found)


def write(lm: Loaded, prompts: Sequence[str], settings: GenerationSettings, languages: Languages) -> list[str]:
    """What follows each prompt; all are written side by side."""
    rows = [_prompt_ids(lm, prompt, languages) for prompt in prompts]
    ids, real = batch(lm, rows, left=lm.config.encoder is None)
    out = generate_ids(lm.model, ids, settings, attention_mask=real)
    new = out[:, 1 if lm.config.encoder is not None else ids.shape[1] :].tolist()
    return ["".join(_pieces(lm, row, iter(found), settings)) for row, found in zip(rows, new, strict=True)]


def stream(lm: Loaded, prompt: str, settings: GenerationSettings, languages: Languages) -> Iterator[str]:
    """What follows one prompt, piece by piece. What is wrong is raised here, before the first piece."""
    row = _prompt_ids(lm, prompt, languages)
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


def _prompt_ids(lm: Loaded, prompt: str, languages: Languages) -> list[int]:
    if not isinstance(lm.config.head, LanguageModel):
        raise InputError(f"{lm.name} does not write text; it is an {lm.config.architecture} without that head.")
    ids: list[int] = []
    if prompt != "":
        ids = lm.tokenizer.encode(prompt, source_language=languages.source, target_language=languages.target).ids
    if lm.config.encoder is None and ids and ids[-1] in lm.config.tokens.eos:
        ids = ids[:-1]  # a tokenizer that closes every text would close the prompt
    if not ids:
        raise InputError("the prompt is empty; give at least one word.")
    return ids


def _into(lm: Loaded, language: str, settings: GenerationSettings) -> GenerationSettings:
    """The settings that make a multilingual model write this language: its token is the first one written or, where the
    decoder itself starts from a language (mBART), the one that it starts from. Marian's reads it in the source."""
    tokenizer = lm.tokenizer
    id = tokenizer.first_id(language)
    if id is None:
        return settings
    start = settings.decoder_start if settings.decoder_start is not None else lm.config.tokens.decoder_start
    if start in {tokenizer.language_id(code) for code in tokenizer.languages}:
        return replace(settings, decoder_start=id)
    return replace(settings, forced_bos_token_id=id)
