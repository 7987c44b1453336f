"""The opening. What the page begins with: a text, and, where we know one, a head and a link worth seeing first."""

from __future__ import annotations

DEFAULT_TEXT = "The animal didn't cross the street because it was too tired"

TEXTS: dict[str, str] = {
    "dates": "Tuesday 3rd of March, 2026",
    "bard": "And God said, Let there be light: and there was light. And God saw the light, that it was good",
}
"""The models that read another sort of text, and one."""

LINKS: dict[tuple[str, str], dict[str, object]] = {
    ("minilm", DEFAULT_TEXT): {"kind": "encoder", "layer": 5, "head": 11, "reads": "it", "read": "animal"},
    ("bard", TEXTS["bard"]): {"kind": "decoder", "layer": 3, "head": 0, "reads": "21", "read": "18"},  # it: light
    ("dates", TEXTS["dates"]): {"kind": "cross", "layer": 1, "head": 2, "reads": "6", "read": "17"},  # 03: March
}
"""By model and text: the head, and the word or the token's number that reads, and that is read."""


def opening(model: str, text: str | None = None, target: str | None = None) -> dict[str, object]:
    """The text, or the model's own, with the link where we know one; elsewhere the page finds a strong one itself."""
    text = text_for(model) if text is None else text
    return {"text": text, **({} if target is None else {"target": target}), **LINKS.get((model, text), {})}


def text_for(model: str) -> str:
    """What a model is shown with where nobody gives a text."""
    return TEXTS.get(model, DEFAULT_TEXT)
