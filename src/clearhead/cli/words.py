"""Words. What a mistake says in Python's words, and how the command line says it."""

from __future__ import annotations

import re
from collections.abc import Callable

SAID: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"GenerationSettings\.(\w+)=", lambda found: f"--{found[1].replace('_', '-')} "),
    (r"\b(source|target)_language\b", r"--\1-language"),
    (r"what is to be patched from what: at=\[\(to, from\), …\]", "words: --at HERE=THERE"),
    (r"several kinds of attention; say which:", "several kinds of attention; say which with --kind:"),
    (r"(?<![.\w])(kind|how)='(\w+)'", r"--\1 \2"),  # but model.kind='gpt2' is a recipe's
    (r", target=… \(--target on the command line\)", ": --target TEXT"),
    (r", or a token's id\.", "."),
    (r"(?<![.\w])vocab_size=(\d+)", r"--vocab-size \1"),
    (r"give vocab_size\b", "give --vocab-size"),
    (r"^(stride|context|epochs)=(\S+)", r"--\1 \2"),
    (r"^num_beams is of", "--num-beams is of"),
    (r"^(stride|context) is of", r"--\1 is of"),
    (r"\btask='([\w-]+)'", r"--task \1"),
    (r"\b(such as|give) (encoding|too_long|quotes) = '?(latin-1|skip|false)'?", r"\1 data.source.\2=\3"),
)
"""Patterns, and what stands in their place."""


def in_options(message: str) -> str:
    """The message, speaking of options where it speaks of arguments."""
    for pattern, said in SAID:
        message = re.sub(pattern, said, message)
    return message
