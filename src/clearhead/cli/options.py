"""Options that several commands take, and how a model is loaded by them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clearhead.api import Loaded

Pickle = Annotated[bool, typer.Option("--pickle", help="read PyTorch's own files, too, which are pickles")]

SourceLanguage = Annotated[
    str | None,
    typer.Option("--source-language", help="what the text is in, as the tokenizer of a translator names it"),
]

TargetLanguage = Annotated[
    str | None, typer.Option("--target-language", help="what the target is in, likewise, such as fra_Latn")
]

HeadClass = Annotated[
    str | None,
    typer.Option("--head", metavar="CLASS", help="load it as another class of its family, such as BertForMaskedLM"),
]


def loaded(model: str, *, head: str | None, pickle: bool) -> Loaded:
    """The model; of one that is loaded as another class, what came of it is said on stderr: a head may be new."""
    import clearhead

    lm = clearhead.load(model, head=head, pickle=pickle)
    if head is not None:
        for note in lm.pretrained.report.notes:
            print(f"note: {note}", file=sys.stderr)
    return lm


def languages(source: str | None, target: str | None) -> dict[str, str]:
    """The languages that were named, by the words that the rest of the house takes them by."""
    named = {"source_language": source, "target_language": target}
    return {name: language for name, language in named.items() if language is not None}
