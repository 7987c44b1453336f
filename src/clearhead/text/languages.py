"""Languages. A multilingual translator reads which language a text is in from a token beside it, and is told which one
to write: by the token that the translation begins with (mBART, M2M-100, NLLB), or by one that the source begins with
(Marian's `>>fra<<`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from clearhead.errors import TokenizerError
from clearhead.text.encoding import Raw

Place = Literal["before", "behind", "told"]
"""Where the token of a text's language stands: first; last, behind the end token; or, of Marian, first in the source,
as the language to translate into."""


@dataclass(frozen=True, kw_only=True)
class Languages:
    """The languages of a tokenizer.

    tokens: by code, such as `fr` → `__fr__`. source, target: the codes that hold where a call names none.
    """

    tokens: Mapping[str, str]
    place: Place
    source: str | None = None
    target: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The languages that a source can be said to be in: none, where a token tells the other side's alone."""
        return () if self.place == "told" else tuple(self.tokens)

    def token(self, code: str | None) -> str:
        """The token of a language, by its code or by the token itself. Raises `TokenizerError` for another."""
        if isinstance(code, str) and code in self.tokens:
            return self.tokens[code]
        if isinstance(code, str) and code in self.tokens.values():
            return code
        if not self.tokens:
            raise TokenizerError(
                f"this tokenizer has no languages, and so no {code!r}; leave source_language and target_language out"
            )
        words = [*self.tokens, *(known.partition("_")[0] for known in self.tokens)]
        near = get_close_matches(str(code), words, n=3, cutoff=0.6)
        likely = [known for known in self.tokens if any(known == word or known.startswith(f"{word}_") for word in near)]
        shown = likely or list(self.tokens)
        raise TokenizerError(
            f"this tokenizer has no language {code!r}; it has {', '.join(shown[:5])}"
            + (" …" if len(shown) > 5 or likely else "")
        )

    def beside(self, source: str | None, target: str | None) -> str | None:
        """The token that stands beside a source text in one language that is to be translated into another, if any.

        Raises `TokenizerError` for a language that is unknown, or that no token tells.
        """
        into = None if target is None else self.token(target)
        if source is not None:
            self.token(source)
        if self.place != "told":
            code = self.source if source is None else source
            return None if code is None else self.token(code)
        if source is not None:
            raise TokenizerError("this tokenizer has no token for the language of a source; leave source_language out")
        return into

    def beside_target(self, language: str | None) -> str | None:
        """The token that stands beside a text that is written. Raises `TokenizerError`."""
        code = self.target if language is None else language
        token = None if code is None else self.token(code)
        return None if self.place == "told" else token

    def put(self, raw: Raw, id: int) -> Raw:
        """The tokens of a text with this language's, `id`, beside it: before the source, where it tells what to write,
        and else in the place of the language that the pipeline put there."""
        if self.place == "told":
            whole = ([id, *raw.ids], [(0, 0), *raw.offsets], [0, *raw.type_ids], [None, *raw.words])
            return Raw(*whole, [None, *raw.sequences])
        last = len(raw.ids) - 1 if self.place == "behind" else 0
        return raw._replace(ids=[id if at == last else known for at, known in enumerate(raw.ids)])


NONE = Languages(tokens={}, place="told")
"""Those of a tokenizer that has none."""
