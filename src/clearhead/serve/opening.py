"""The opening. What the page begins with: a text, and, where we know one, a head and a link worth seeing first."""

from __future__ import annotations

DEFAULT_TEXT = "The animal didn't cross the street because it was too tired"

LINKS: dict[tuple[str, str], dict[str, object]] = {
    ("minilm", DEFAULT_TEXT): {"kind": "encoder", "layer": 5, "head": 11, "reads": "it", "read": "animal"},
}
"""By model and text: the head, and the word that reads and the word it reads."""


def opening(model: str, text: str, target: str | None = None) -> dict[str, object]:
    """The text, with the link where there is one; elsewhere the page finds a strong one by itself."""
    return {"text": text, **({} if target is None else {"target": target}), **LINKS.get((model, text), {})}
