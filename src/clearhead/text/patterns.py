"""Patterns by which byte-level tokenizers cut a text before they look for tokens in it: no token crosses a cut."""

from __future__ import annotations

WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's: a word, a number or a run of signs, each with the space before it."""
_LATER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
THREE_DIGITS = _LATER.format(digits="{1,3}")
"""Llama 3's: numbers in threes, and line ends by themselves."""
ONE_DIGIT = _LATER.format(digits="")
"""Qwen 2's: the same, with each digit by itself."""
