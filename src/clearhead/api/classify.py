"""Classifying: the labels of a text, or of its tokens, with how sure the model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clearhead.api.texts import one as check_text
from clearhead.errors import InputError
from clearhead.model.config import SequenceClassification, TokenClassification
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import check_fits

if TYPE_CHECKING:
    from clearhead.api import Loaded
    from clearhead.text import Encoding

Aggregation = Literal["none", "simple"]

NO_LABEL = "O"
"""What taggers call a token outside of everything that they look for."""


@dataclass(frozen=True)
class Label:
    """A label, and what it was given to: `text[start:end]` of the text, all of it where a whole text is classified.

    probability: of the label (the bare score, of a regression, and of a cross-encoder whose files say so). text: the
    characters labelled. tokens: the tokens labelled, as the vocabulary spells them; none where a whole text is.
    """

    label: str
    probability: float
    text: str
    start: int
    end: int
    tokens: tuple[str, ...] = ()


def classify(lm: Loaded, text: str, pair: str | None, aggregation: Aggregation) -> list[Label]:
    """All labels of the text, likeliest first; or the labels of its tokens, in the order of the text."""
    head, model = lm.config.head, lm.model
    if not isinstance(head, SequenceClassification | TokenClassification):
        raise InputError(f"{lm.name} gives no labels; load a classifier.")
    if aggregation not in ("none", "simple"):
        raise InputError(f"aggregation={aggregation!r} is not a choice; choose 'none' or 'simple'.")
    check_text(text)
    if pair is not None:
        check_text(pair, "second text")
    if pair is not None and isinstance(head, TokenClassification):
        raise InputError(f"{lm.name} labels the tokens of one text; leave the second one out.")
    encoding = lm.tokenizer.encode(text, pair)
    check_fits(lm.config, len(encoding))
    ids, types = (torch.tensor([each], device=model.device) for each in (encoding.ids, encoding.type_ids))
    more = {"token_type_ids": types} if lm.config.embedding.token_types > 1 and bool(types.any()) else {}
    with torch.inference_mode(), without_dropout(model):
        logits = model(ids, **more).logits
    assert logits is not None
    if isinstance(head, TokenClassification):
        labels = _of_tokens(logits[0].float().softmax(-1), head.labels, text, encoding)
        return [one for one in (_joined(labels, text) if aggregation == "simple" else labels) if one.label != NO_LABEL]
    scores = _scores(logits[0].float(), lm.pretrained.original.config).tolist()
    found = [Label(label, score, text, 0, len(text)) for label, score in zip(head.labels, scores, strict=True)]
    return sorted(found, key=lambda one: -one.probability)


def notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a config asks of its scores that is not done, a sentence each."""
    named = _named(config)
    if named in (None, "Identity", "Sigmoid"):
        return ()
    return (f"config.json asks for {named[:60]!r} on the scores, which is not applied: they are probabilities",)


def _named(config: Mapping[str, Any]) -> str | None:
    """What the files of a cross-encoder (sentence-transformers') say is done to its score: the last word of a class's
    name, by the old key or the new one."""
    says = config.get("sentence_transformers")
    found = says.get("activation_fn") if isinstance(says, dict) else None
    found = config.get("sbert_ce_default_activation_function") if found is None else found
    return found.rpartition(".")[2] if isinstance(found, str) and found else None


def _scores(logits: Float[Tensor, " L"], config: Mapping[str, Any]) -> Float[Tensor, " L"]:
    """Labels that exclude each other share one probability; those that do not, and a single one, have one each. The
    one score of a cross-encoder is as its files say; of several, they speak of what is trained on, not of labels."""
    problem = config.get("problem_type")
    if problem == "regression" or (len(logits) == 1 and _named(config) == "Identity"):
        return logits
    if problem == "multi_label_classification" or len(logits) == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


def _of_tokens(
    probabilities: Float[Tensor, "T L"], labels: tuple[str, ...], text: str, encoding: Encoding
) -> list[Label]:
    """The likeliest label of each token of the text, those around it left out."""
    best = probabilities.max(dim=-1)
    found: list[Label] = []
    for place, (probability, label) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        if encoding.sequences[place] is not None:
            start, end = encoding.offsets[place]
            token = encoding.tokens[place]
            found.append(Label(labels[label], probability, text[start:end], start, end, (token,)))
    return found


def _joined(labels: Sequence[Label], text: str) -> list[Label]:
    """Neighbours of one kind as one: `B-` begins another, `I-` goes on, and a label without either goes on, too."""
    groups: list[list[Label]] = []
    for one in labels:
        if groups and not one.label.startswith("B-") and _kind(one.label) == _kind(groups[-1][-1].label):
            groups[-1].append(one)
        else:
            groups.append([one])
    return [
        Label(
            group[0].label.split("-", 1)[-1],
            sum(one.probability for one in group) / len(group),
            text[group[0].start : group[-1].end],
            group[0].start,
            group[-1].end,
            tuple(token for one in group for token in one.tokens),
        )
        for group in groups
    ]


def _kind(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label
