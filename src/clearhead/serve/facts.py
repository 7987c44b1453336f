"""Facts. What is said of a look beside its weights: its tokens, the heads there are, and how the numbers came about."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import nn

from clearhead.lens.look import Look
from clearhead.lens.reading import takes_target
from clearhead.lens.seen import Kind


@runtime_checkable
class Readable(Protocol):
    """What the explorer needs of a loaded model (`clearhead.Loaded`)."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> nn.Module: ...
    def look(self, text: str, target: str | None = None, **how: Any) -> Look:
        """What every head reads in this text. how: what else `clearhead.look` takes, by name."""
        ...


def facts_of(lm: Readable, look: Look) -> dict[str, object]:
    """The JSON that stands for a look: everything but the weights.

    `kinds` gives each kind's layers, heads, rows and columns; `sides` says which text the rows and the columns are.
    Where there is a second text, `takes_target` says whether it may be given: a classifier reads the first one again.
    `languages`: those that a translator can be told to write; `source_languages`: those that a text can be said to be
    in, which for Marian are none.
    `offsets` are character spans in the text; tokens with an empty one, in `special`, are the tokenizer's own.
    """
    call = look.seen.call(0, look.kinds[0])
    q = call.tensors[0]
    facts: dict[str, object] = {
        "model": lm.name,
        "kernel": call.kernel,
        "dtype": str(q.dtype).removeprefix("torch."),
        "device": str(q.device),
        "text": look.text,
        "tokens": look.tokens,
        "offsets": look.offsets,
        "special": _special(look.offsets),
        "kinds": {kind: _shape(look, kind) for kind in look.kinds},
    }
    if look.target is not None:
        facts |= {
            "target": look.target,
            "target_tokens": look.target_tokens,
            "target_offsets": look.target_offsets,
            "target_special": _special(look.target_offsets),
            "takes_target": takes_target(lm.model),
        }
    tokenizer = getattr(lm, "tokenizer", None)
    languages = getattr(tokenizer, "languages", ())
    if languages:
        facts["languages"] = list(languages)
        facts["source_languages"] = list(getattr(tokenizer, "source_languages", ()))
    return facts


def _special(offsets: list[tuple[int, int]]) -> list[int]:
    return [i for i, (start, end) in enumerate(offsets) if start == end]


def _shape(look: Look, kind: Kind) -> dict[str, object]:
    rows, cols = look.seen.call(0, kind).shape
    own = "target" if look.target is not None and kind != "encoder" else "text"
    return {
        "layers": look.n_layers(kind),
        "heads": look.n_heads(kind),
        "rows": rows,
        "cols": cols,
        "sides": [own, "text" if kind == "cross" else own],
        "causal": kind == "decoder",
    }
