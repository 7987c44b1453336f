"""Reading. A text as a model is given it: its tokens, where each stood, and the call that reads them.

In an encoder-decoder there are two texts: the source, and the target, which the decoder reads behind its start token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from clearhead.errors import InputError, OutsideError
from clearhead.lens import texts
from clearhead.lens.counting import times
from clearhead.lens.given import check_readable
from clearhead.lens.texts import Encoded, Readable
from clearhead.model.config import SequenceClassification
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder, Output, check_fits


@dataclass(frozen=True, eq=False)
class Reading:
    """A text, or a source and a target, as one model reads it. `run` reads it; `find` says which tokens are a word.

    source_language, target_language: what `read` was told; other texts that are read beside it are in the same.
    """

    text: str
    encoding: Encoded
    ids: Int[Tensor, "1 T"]
    types: Int[Tensor, "1 T"] | None = None
    target: str | None = None
    begun: Encoded | None = None
    target_ids: Int[Tensor, "1 Tt"] | None = None
    source_language: str | None = None
    target_language: str | None = None

    def run(self, model: nn.Module, rows: int = 1, *, last_only: bool = False) -> Output:
        """What the model makes of it, in so many equal rows. last_only: a decoder's last position's logits only."""
        ids = self.ids.expand(rows, -1)
        if isinstance(model, EncoderDecoder):
            target = self.target_ids.expand(rows, -1) if self.target_ids is not None else None
            output: Output = model(ids, target, last_only=last_only)
        else:
            more = {"last_only": last_only} if isinstance(model, Decoder) else {}
            types = self.types.expand(rows, -1) if self.types is not None else None
            output = model(ids, token_type_ids=types, **more)
        return output

    def find(self, word: str | int, *, target: bool = False) -> list[int]:
        """The tokens of a word: its first occurrence in the text, its n-th as `word#n` from 1, or a token by its index.
        A word counts as it is written; only where the text never has it so, in any case.

        Raises OutsideError, naming the tokens there are, where the text has no such word, or no token that is read has
        any of it: a space between words, the last word of a decoder's target.
        """
        text, offsets, tokens = (
            (self.target or "", self.begun.offsets, self.begun.labels)
            if target and self.begun is not None
            else (self.text, self.encoding.offsets, self.encoding.labels)
        )
        if not isinstance(word, str | int) or isinstance(word, bool):
            raise OutsideError(f"a word is a str, or a token's index, and not of type {type(word).__name__}.")
        if isinstance(word, int):
            if not -len(tokens) <= word < len(tokens):
                raise OutsideError(f"token {word} is outside the text; choose 0…{len(tokens) - 1}.")
            return [word % len(tokens)]
        wanted, _, count = word.partition("#")
        if not count.isdecimal() or not wanted:
            wanted, count = word, "1"
        spans = _occurrences(text, wanted)
        if len(spans) < int(count) or int(count) < 1:
            if word in tokens:  # a special token, or a piece as it is shown
                return [tokens.index(word)]
            if spans and int(count) < 1:
                raise OutsideError(f"{word!r} is no place in the text: occurrences count from 1, {wanted + '#1'!r}.")
            often = f"only {times(len(spans))}" if spans else "not"
            exactly = ", written exactly so" if wanted in text else ""
            raise OutsideError(f"{wanted!r} is {often} in the text{exactly}; its tokens are: {_shown(tokens)}")
        start, end = spans[int(count) - 1]
        found = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
        if not found:
            raise OutsideError(f"no token that is read has any of {wanted!r}; the tokens are: {_shown(tokens)}")
        return found


def _shown(tokens: list[str]) -> str:
    return " ".join(tokens[:40]) + (" …" if len(tokens) > 40 else "")


def _occurrences(text: str, wanted: str) -> list[tuple[int, int]]:
    """Where `wanted` stands in `text`: as whole words if it does anywhere, else as any part; case is ignored last."""
    for haystack, needle in ((text, wanted), (text.lower(), wanted.lower())):
        if len(haystack) != len(text):
            continue
        found, at = [], haystack.find(needle)
        while at >= 0 and needle:
            found.append((at, at + len(needle)))
            at = haystack.find(needle, at + 1)
        whole = [
            (a, b)
            for a, b in found
            if not (a > 0 and text[a - 1].isalnum() and text[a].isalnum())
            and not (b < len(text) and text[b].isalnum() and text[b - 1].isalnum())
        ]
        if whole or found:
            return whole or found
    return []


def takes_target(model: nn.Module) -> bool:
    """Whether it reads a second text that is given: an encoder-decoder but for a classifier, whose decoder reads the
    first again."""
    return isinstance(model, EncoderDecoder) and not isinstance(model.config.head, SequenceClassification)


def read(
    lm: Readable,
    text: str,
    target: str | None = None,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    what: str = "text",
) -> Reading:
    """The text as this model reads it. target: the decoder's, for an encoder-decoder; a classifier's decoder reads the
    source again. source_language, target_language: theirs, for a translator that is told them. what: whose text it is,
    where there are several.

    Raises InputError for an empty text, ContextError for one longer than the model's positions.
    """
    check_readable(lm)
    model = lm.model
    if not isinstance(model, Encoder | Decoder | EncoderDecoder):
        if type(model).__module__.startswith("clearhead."):
            raise InputError(f"{type(model).__name__} has no attention to look at.")
        raise InputError(
            f"{type(model).__name__} is no model of clearhead's; load it with clearhead.load, or watch it while it "
            "reads ids: `with clearhead.watch(model) as seen: model(ids)`."
        )
    encoding = texts.source(lm.tokenizer, text, source_language, target_language, what)
    ids = torch.tensor([encoding.ids], device=model.device)
    check_fits(model.config, ids.shape[1])
    if not isinstance(model, EncoderDecoder):
        if target is not None:
            raise InputError("a target is for encoder-decoders, and this model is not one; leave it out.")
        types = torch.tensor([encoding.type_ids], device=model.device) if model.config.embedding.token_types else None
        return Reading(text, encoding, ids, types)
    if isinstance(model.config.head, SequenceClassification):
        if target is not None:
            raise InputError("a classifier's decoder reads the text itself again; leave the target out.")
        target, begun = text, texts.again(model, model.config.head, encoding, ids)
    elif target is None:
        raise InputError(
            "an encoder-decoder reads two texts; give the target too, target=… (--target on the command line)."
        )
    else:
        begun = texts.target(model, lm.tokenizer, target, target_language)
    check_fits(model.config, len(begun.ids))
    told = torch.tensor([begun.ids], device=model.device)
    return Reading(text, encoding, ids, None, target, begun, told, source_language, target_language)
