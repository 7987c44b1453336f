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

    def token(self, code: str | None) -> str:
        """The token of a language, by its code or by the token itself. Raises `TokenizerError` for another."""
        if code in self.tokens:
            return self.tokens[code]
        if code in self.tokens.values():
            return str(code)
        words = [*self.tokens, *(known.partition("_")[0] for known in self.tokens)]
        near = get_close_matches(str(code), words, n=3, cutoff=0.6)
        likely = [known for known in self.tokens if any(known == word or known.startswith(f"{word}_") for word in near)]
        shown = likely or list(self.tokens)
        raise TokenizerError(
            f"this tokenizer has no language {code!r}; it has {', '.join(shown[:5])}"
            + (" …" if len(shown) > 5 or likely else "")
        )


NONE = Languages(tokens={}, place="told")
"""Those of a tokenizer that has none."""
