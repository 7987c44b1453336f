"""Does it fit together? What the parts of a recipe ask of one another, asked before anything is read or written.

A model learns an objective that is made for its kind; an objective reads rows that an encoder makes; rows must not be
longer than the model reads. Each refusal is in the recipe's own keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from clearhead.api.building import CONTEXT, Built
from clearhead.api.recipe import (
    GPT2,
    Bert,
    Checkpoint,
    Data,
    Llama,
    NewTokenizer,
    Recipe,
    Recurrent,
    RecurrentTranslator,
    Source,
    Vaswani,
)
from clearhead.errors import ConfigError, TrainingError
from clearhead.model.config import LanguageModel, ModelConfig
from clearhead.model.config import MaskedLanguageModel as MaskedHead
from clearhead.text.special import SPELLINGS
from clearhead.text.train import asked_specials
from clearhead.train.data import files
from clearhead.train.data.encoders import Chat, Labelled, Scored, Tagged, Text, Translation
from clearhead.train.data.packing import Blocks, Documents, Fitted
from clearhead.train.data.readers import ParallelLines
from clearhead.train.objectives.causal import CausalLanguageModel
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.infilling import TextInfilling
from clearhead.train.objectives.masked import MaskedLanguageModel
from clearhead.train.objectives.spans import SpanCorruption
from clearhead.train.objectives.translation import SequenceToSequence
from clearhead.train.recipe import spelled


@dataclass(frozen=True)
class Needs:
    """What an objective asks for. models: the new ones that can learn it; architectures, head: a checkpoint's kind, and
    the head that it must have; encoders: who makes its rows; whole: each row is a document; roles: the special tokens
    it cannot do without."""

    models: tuple[type, ...]
    architectures: tuple[str, ...]
    encoders: tuple[type, ...]
    head: type | None = None
    whole: bool = False
    roles: tuple[str, ...] = ()


TRANSFORMERS = ("decoder", "encoder", "encoder-decoder")
NEEDS: dict[type, Needs] = {
    CausalLanguageModel: Needs((GPT2, Llama, Recurrent), ("decoder",), (Text, Chat), LanguageModel),
    MaskedLanguageModel: Needs((Bert,), ("encoder",), (Text,), MaskedHead, roles=("mask",)),
    SpanCorruption: Needs((Vaswani,), ("encoder-decoder",), (Text,), LanguageModel, roles=("eos",)),
    TextInfilling: Needs((Vaswani,), ("encoder-decoder",), (Text,), LanguageModel, roles=("mask", "eos")),
    SequenceToSequence: Needs(
        (Vaswani, RecurrentTranslator), ("encoder-decoder",), (Translation,), LanguageModel, True, ("eos",)
    ),
    SequenceClassification: Needs((Bert, GPT2, Llama, Vaswani), TRANSFORMERS, (Labelled, Scored), whole=True),
    TokenClassification: Needs((Bert, GPT2, Llama), ("decoder", "encoder"), (Tagged,), whole=True),
}


def check(recipe: Recipe) -> None:
    """Raise ConfigError where parts of a recipe do not go together, TrainingError where its data is not there."""
    _check_rows(recipe)
    if not isinstance(recipe.model, Checkpoint):
        _check_new_model(recipe)
    if isinstance(recipe.tokenizer, NewTokenizer):
        roles = asked_specials(recipe.tokenizer.learn, recipe.tokenizer.special or None)[1]
        _check_roles(recipe, set(roles))
        sentinels = [token for token in recipe.tokenizer.special if token.startswith("<extra_id_")]
        if isinstance(recipe.objective, SpanCorruption) and len(sentinels) < 2:
            raise ConfigError(
                f"{_kind(recipe, 'objective')} needs a sentinel for each span and one more; name them in "
                "tokenizer.special: '<extra_id_0>', '<extra_id_1>', … as many as a text has spans."
            )
    _check_feeding(recipe)
    check_files(recipe)


def check_built(recipe: Recipe, built: Built) -> None:
    """The same of a checkpoint, and of a tokenizer that was there, once they are known; nothing is tokenised yet."""
    config, vocabulary = built.model.config, built.vocabulary
    if isinstance(recipe.model, Checkpoint) and isinstance(config, ModelConfig):
        needs, name = NEEDS[type(recipe.objective)], _kind(recipe, "objective")
        if config.architecture not in needs.architectures:
            raise ConfigError(
                f"{name} is learned by {_or(needs.architectures)}, and model.name={recipe.model.name!r} is of the kind "
                f"{config.architecture}; choose another checkpoint or objective."
            )
        if needs.head is not None and not isinstance(config.head, needs.head):
            has_head = "none" if config.head is None else repr(spelled(type(config.head)))
            raise ConfigError(
                f"{name} trains a {spelled(needs.head)!r} head, and model.name={recipe.model.name!r} has {has_head}; "
                "choose another checkpoint or objective."
            )
        if any(stack.bounded for stack in config.stacks):
            reach = f"the {config.context} tokens that model.name={recipe.model.name!r} reads"
            _check_length(recipe, config.context, reach)
    _check_roles(recipe, {role for role in ("mask", "eos") if getattr(vocabulary, role) is not None})


def _kind(recipe: Recipe, part: str) -> str:
    return f"{part}.kind={spelled(type(getattr(recipe, part)))!r}"


def _or(names: tuple[object, ...]) -> str:
    shown = [repr(spelled(name)) if isinstance(name, type) else f"a model of the kind {name}" for name in names]
    return " or ".join(shown)


def _check_rows(recipe: Recipe) -> None:
    needs, name = NEEDS[type(recipe.objective)], _kind(recipe, "objective")
    encoder, packing = recipe.data.encoder, recipe.data.packing
    if not isinstance(encoder, needs.encoders):
        lacks = "has no labels for this objective" if needs.encoders[0] in (Labelled, Tagged) else "makes other rows"
        raise ConfigError(
            f"data.encoder.kind={spelled(type(encoder))!r} {lacks}: {name} reads {_or(needs.encoders)}; choose that."
        )
    if needs.whole and not isinstance(packing, Documents):
        raise ConfigError(
            f"data.packing.kind={spelled(type(packing))!r} joins texts, and {name} learns each by itself; choose "
            "'documents'."
        )
    objective = recipe.objective
    if isinstance(objective, MaskedLanguageModel) and objective.whole_words and not getattr(encoder, "words", True):
        raise ConfigError("objective.whole_words needs to know where words begin; give data.encoder.words = true.")


def _check_new_model(recipe: Recipe) -> None:
    needs = NEEDS[type(recipe.objective)]
    if not isinstance(recipe.model, needs.models):
        others = tuple(other for other, need in NEEDS.items() if isinstance(recipe.model, need.models))
        raise ConfigError(
            f"{_kind(recipe, 'objective')} is not for {_kind(recipe, 'model')}; choose model.kind {_or(needs.models)}, "
            f"or objective.kind {_or(others)}."
        )
    if not isinstance(recipe.model, Recurrent | RecurrentTranslator | Checkpoint):
        length = getattr(recipe.data.packing, "length", None)
        context = recipe.model.context or length or CONTEXT
        _check_length(recipe, context, f"model.context={context}" + ("" if recipe.model.context else " (its default)"))


def _check_feeding(recipe: Recipe) -> None:
    """Raise ConfigError where rows cannot be put into batches, or read as they come, as the data's settings say."""
    data = recipe.data
    if isinstance(recipe.model, Recurrent) and isinstance(data.packing, Blocks | Fitted):
        raise ConfigError(
            f"data.packing of kind {spelled(type(data.packing))!r} keeps texts apart that share a row, and a "
            "recurrent model reads a row as one text; choose 'windows' or 'documents'."
        )
    documents = isinstance(data.packing, Documents)
    if (data.by_length or recipe.batch_tokens is not None) and not documents:
        name = "data.by_length" if data.by_length else "batch_tokens"
        raise ConfigError(f"{name} is for rows that are documents; packed rows are all of one length.")
    if data.streaming is None:
        return
    if not isinstance(data.packing, Documents | Blocks):
        raise ConfigError(
            f"data.packing of kind {spelled(type(data.packing))!r} needs all of the data, and data.stream reads it as "
            "it comes; choose 'blocks' or 'documents'."
        )
    for name, asked in (("data.by_length", data.by_length), ("batch_tokens", recipe.batch_tokens is not None)):
        if asked:
            raise ConfigError(f"{name} needs the lengths of all rows, and data.stream reads them as they come.")
    usual = next(each.default for each in fields(Data) if each.name == "held_out")
    if data.held_out not in (0, usual):
        raise ConfigError("data.held_out is a share of the data, and data.stream has no end; give data.validation.")
    if data.validation is None and recipe.evaluation.batches:
        raise ConfigError(
            "data.stream needs data.validation: a stream has no last rows to hold out. Name some data to evaluate on, "
            "or give evaluation.batches = 0."
        )


def _check_length(recipe: Recipe, context: int, reach: str) -> None:
    """Raise ConfigError for rows that may be longer than the model reads; objectives that shorten texts are let be."""
    if isinstance(recipe.objective, SpanCorruption | TextInfilling):
        return
    length = getattr(recipe.data.packing, "length", None)
    if length is not None and length > context:
        raise ConfigError(f"data.packing.length={length} is more than {reach}; shorten the one or lengthen the other.")
    longest = getattr(recipe.data.encoder, "longest", None)
    if length is None and longest is not None and longest - recipe.objective.ahead > context:
        most = context + recipe.objective.ahead
        raise ConfigError(f"data.encoder.longest={longest} is more than {reach}; give {most} at most.")


def _check_roles(recipe: Recipe, has: set[str]) -> None:
    """Raise ConfigError for an objective whose special tokens the tokenizer has not."""
    for role in NEEDS[type(recipe.objective)].roles:
        if role not in has:
            new = isinstance(recipe.tokenizer, NewTokenizer)
            what = f"name one in tokenizer.special, such as {SPELLINGS[role][0]!r}" if new else "the tokenizer has none"
            raise ConfigError(f"{_kind(recipe, 'objective')} needs a token of the role {role!r}; {what}.")


# ── files and folders ────────────────────────────────────────────────────────────────────────────────────────────────


def check_files(recipe: Recipe) -> None:
    """Raise TrainingError for data that is not there, by the key that names it. Relative paths begin at the current
    folder, as everywhere on the command line; a run's run.json has them in full."""
    for part, source in (("data.source", recipe.data.source), ("data.validation", recipe.data.validation)):
        for key, find in _finders(source):
            try:
                find()
            except TrainingError as error:
                if not key:
                    raise TrainingError(f"{part}: {error}") from None
                raise TrainingError(
                    f"{part}.{key}: {str(error).rstrip('.')}; paths begin at the current folder, {Path.cwd()}. "
                    f"Say where it is: {part}.{key}=FILE"
                ) from None


def _finders(source: Source | None) -> Iterator[tuple[str, Callable[[], object]]]:
    """The settings that name files, each with what looks for them."""
    if isinstance(source, ParallelLines):
        for key in ("source", "target"):
            yield key, partial(files.find, (getattr(source, key),), (".txt",))
    elif source is not None:
        yield "paths" if hasattr(source, "paths") else "", source.files


def check_folder(folder: Path) -> None:
    """Raise TrainingError for a run's folder that cannot be one."""
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file, and a run needs a folder; name another with --out.")
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "may not be written in" if there.is_dir() else "is a file"
        raise TrainingError(f"{folder} cannot be made: {there} {what}; name another with --out.")
    if folder.is_dir() and not (folder / "run.json").exists():
        held = [name for name in ("model", "tokenizer", "metrics.jsonl") if (folder / name).exists()]
        if held:
            raise TrainingError(f"{folder} holds a {held[0]} that no run wrote; name another folder with --out.")
