"""Planned: a source settled on names and shapes, its model built without memory, and no weight read yet.

`load` fills what is planned here; `examine` only tells of it, and tells also what is refused and why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from clearhead.checkpoint.family import Family, refuse
from clearhead.checkpoint.finding import find
from clearhead.checkpoint.report import Account, Report
from clearhead.checkpoint.sizes import check_sizes
from clearhead.checkpoint.source import Source
from clearhead.checkpoint.transfer import NamedEvidence, Plan, plan_reading
from clearhead.errors import ClearheadError, InputError, UnsafeFileError
from clearhead.model.config import Head, ModelConfig
from clearhead.model.config.checks import brief
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder, skeleton


@dataclass(frozen=True)
class Planned:
    """A config, its model on the meta device, how each tensor comes into it, and what is said of keys and besides."""

    config: ModelConfig
    model: Encoder | Decoder | EncoderDecoder
    plan: Plan
    accounts: tuple[Account, ...]
    notes: tuple[str, ...]


def plan_model(source: Source, head: Head | str | None = None) -> Planned:
    """Read the config, check the sizes, and plan for every tensor. Raises what `load` raises, before any is read."""
    family, tensors = source.family, source.tensors
    _check_head(head, family)
    embedder = source.sentence is not None and head is None  # sentence-transformers builds the base model alone
    asked = head if isinstance(head, str) else family.base if embedder else None
    keys = source.keys if asked is None else {**source.keys, "architectures": [asked]}
    config, accounts, notes, errors = family.read(keys, NamedEvidence(family, tensors), source.where)
    refuse(errors)
    assert config is not None
    notes += source.notes
    if head is not None and not isinstance(head, str):
        config = replace(config, head=head)
    elif source.sentence is not None and embedder and config.head is None:
        config = replace(config, head=source.sentence.head)
        notes += source.sentence.notes

    numbers = sum(math.prod(shape) for shape in tensors.shapes.values())
    check_sizes(config, numbers, len(tensors.shapes), source.where)
    model = _empty(config, source.where)
    plan = plan_reading(family, config, dict(model.named_parameters()), tensors, new_head=head is not None or embedder)
    return Planned(config, model, plan, source.accounts or accounts, tuple(notes))


def _check_head(head: Head | str | None, family: Family) -> None:
    """Raise InputError for what is no head, and no class of the family."""
    if isinstance(head, str) and head not in family.classes:
        known = f"one of {', '.join(family.classes)}" if family.classes else "none: its files have one kind of head"
        raise InputError(f"head={brief(head)} is no class of the family {family.model_type}; choose {known}.")
    if head is not None and not isinstance(head, str | Head):
        raise InputError(f"head={brief(head)} is no head; give a class's name, or a head of clearhead.model.config.")


def _empty(config: ModelConfig, where: str) -> Encoder | Decoder | EncoderDecoder:
    """The model without memory."""
    try:
        return skeleton(config)
    except (RuntimeError, OverflowError) as error:
        raise UnsafeFileError(
            f"{where} describes a model that cannot be built: {str(error).splitlines()[0]}."
        ) from None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What a checkpoint says of itself. planned is None where something is refused, and `refused` says what."""

    source: Source
    report: Report
    planned: Planned | None = None
    refused: ClearheadError | None = None


def examine(name_or_path: str | Path, *, revision: str | None = None, pickle: bool = False) -> Examined:
    """Read a checkpoint as `load` does, except its weights; what is refused is told, key by key, and not raised.

    Raises what `load` raises where there is no such checkpoint, or no table for its family.
    """
    source = find(str(name_or_path), revision, pickle=pickle)
    family = source.family
    try:
        planned = plan_model(source)
    except ClearheadError as error:
        _, accounts, notes, _ = family.read(source.keys, NamedEvidence(family, source.tensors), source.where)
        keys = source.accounts or accounts
        report = Report(family=family.model_type, keys=keys, notes=(*notes, *source.notes))
        return Examined(source=source, report=report, refused=error)
    plan = planned.plan
    notes_of_plan = (f"the file lacks {', '.join(plan.fresh)}",) if plan.fresh else ()
    report = Report(
        family=family.model_type,
        keys=planned.accounts,
        tensors=plan.accounts,
        notes=(*planned.notes, *notes_of_plan),
    )
    return Examined(source=source, report=report, planned=planned)
