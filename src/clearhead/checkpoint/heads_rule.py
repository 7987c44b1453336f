"""Heads in a config.json: the class in `architectures` says which head there is, and a few keys say the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clearhead.checkpoint.config_rules import ConfigRow, Foreign, shown
from clearhead.checkpoint.places import Places
from clearhead.errors import CheckpointError, UnknownKeyError
from clearhead.model.config import (
    Activation,
    Head,
    LanguageModel,
    MaskedLanguageModel,
    ModelConfig,
    SentenceEmbedding,
    SequenceClassification,
    TokenClassification,
)

UNNAMED = ("LABEL_0", "LABEL_1")
"""What a classifier's labels are where its config names none."""

MOST_LABELS = 2**20


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a class of transformers puts on the base model.

    head: the head, None for the base model alone; its labels, ties and dropout are read from the config. pooler: the
    dense layer over the first token, and `pooler_weight` the tensor that shows that a file has it, where some lack it.
    dropout: whether the class drops anything before its classifier; `own_dropout`: its own key for it,
    which another row writes, and the default.
    bias_weight: the tensor that shows that a file has the bias of its language model head, where some lack it.
    """

    head: Head | None = None
    pooler: Activation | None = None
    pooler_weight: str | None = None
    dropout: bool = True
    own_dropout: tuple[str, float] | None = None
    bias_weight: str | None = None


@dataclass(frozen=True, kw_only=True)
class Heads(ConfigRow):
    """The row of all heads of a family.

    default: the class of a config that names none. tied: what a missing `tie_word_embeddings` means in this family.
    output, table: the tensors that are one where they are tied. dropout_keys: where a classifier's dropout is looked
    for, the first that is not null, else `dropout` holds; the first of them is this row's own. unnamed: how many labels
    there are where the config names none.
    """

    architectures: Mapping[str, Architecture]
    default: str
    tied: bool
    output: str = "lm_head.weight"
    table: str
    dropout_keys: tuple[str, ...] = ("classifier_dropout",)
    dropout: float = 0.1
    unnamed: int = len(UNNAMED)

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        """The class, and what says the rest of its head."""
        return ("architectures", "tie_word_embeddings", "id2label", "num_labels", self.dropout_keys[0])

    @property
    def base(self) -> str | None:
        """The class of the model alone, without a head."""
        return next((name for name, one in self.architectures.items() if one.head is None), None)

    def read(self, foreign: Foreign) -> Places:
        """The head, and the pooler where the class has one."""
        architecture = self.architectures[self._name(foreign)]
        tied = foreign.flag("tie_word_embeddings", self.tied)
        pooler = architecture.pooler
        if architecture.pooler_weight is not None and not foreign.evidence.has(architecture.pooler_weight):
            pooler = None
        head = architecture.head
        match head:
            case LanguageModel() | MaskedLanguageModel():
                head = replace(head, tied=tied and not self._stored_twice(foreign))
                if isinstance(head, LanguageModel) and architecture.bias_weight is not None:
                    head = replace(head, bias=_has_bias(foreign, architecture.bias_weight))
            case SequenceClassification() | TokenClassification():
                dropout = self._dropout(foreign, architecture) if architecture.dropout else 0.0
                head = replace(head, labels=_labels(foreign, self.unnamed), dropout=dropout)
        return {"head": head, "pooler": pooler}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The class and the keys that say what this head is."""
        head, name = config.head, self.name_of(config)
        says: dict[str, Any] = {"architectures": [name], "tie_word_embeddings": self.tied}
        match head:
            case LanguageModel() | MaskedLanguageModel():
                says["tie_word_embeddings"] = head.tied
            case SequenceClassification() | TokenClassification():
                says["id2label"] = {str(index): label for index, label in enumerate(head.labels)}
                says["label2id"] = {label: index for index, label in enumerate(head.labels)}
                if self.architectures[name].own_dropout is None:
                    says[self.dropout_keys[0]] = head.dropout
        return says

    def name_of(self, config: ModelConfig) -> str:
        """The class that has this config's head and pooler. Raises CheckpointError where the family has none."""
        head = None if isinstance(config.head, SentenceEmbedding) else config.head
        alike = {name: one for name, one in self.architectures.items() if type(one.head) is type(head)}
        for name, one in alike.items():
            if one.pooler == config.pooler or (one.pooler_weight is not None and config.pooler is None):
                return name
        if alike:
            return next(iter(alike))
        wanted = "no head" if head is None else f"the head {type(head).__name__}"
        raise CheckpointError(f"the family has no class with {wanted}; it has {', '.join(self.architectures)}.")

    def _name(self, foreign: Foreign) -> str:
        names = foreign.get("architectures")
        if not names:
            return self.default
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise foreign.bad("architectures", "a list of class names")
        for name in names:
            if name in self.architectures:
                return name
        known = ", ".join(self.architectures)
        raise UnknownKeyError(
            f"{foreign.where}: architectures={shown(names)} is not read; load it with head=, one of {known}."
        )

    def _stored_twice(self, foreign: Foreign) -> bool:
        """Whether the file holds two different tensors where the config says that they are tied: then they are not.

        transformers 5 unties them so, with a warning; versions before it dropped the second.
        """
        evidence = foreign.evidence
        if not (evidence.has(self.output) and evidence.has(self.table)) or evidence.same(self.output, self.table):
            return False
        foreign.notes.append(
            f"{foreign.where} ties {self.output} to {self.table}, and the file holds two that differ: they are read "
            "as two, and tie_word_embeddings is exported as false"
        )
        return True

    def _dropout(self, foreign: Foreign, architecture: Architecture) -> float:
        if architecture.own_dropout is not None:
            return foreign.number(*architecture.own_dropout)
        for key in self.dropout_keys:
            value = foreign.optional_number(key)
            if value is not None:
                return value
        return self.dropout


def _has_bias(foreign: Foreign, name: str) -> bool:
    if foreign.ours is not None:
        return isinstance(foreign.ours.head, LanguageModel) and foreign.ours.head.bias
    return foreign.evidence.has(name)


def _labels(foreign: Foreign, unnamed: int) -> tuple[str, ...]:
    """The labels in the order of their ids."""
    names = foreign.get("id2label")
    if names is None:
        count = foreign.whole("num_labels", unnamed, at_most=MOST_LABELS)
        return tuple(f"LABEL_{index}" for index in range(count))
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise foreign.bad("id2label", "an object with a label for each id from 0 on")
    return tuple(str(names[str(index)]) for index in range(len(names)))
