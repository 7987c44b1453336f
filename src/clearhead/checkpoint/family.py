"""A family: the two tables of a kind of checkpoint, and what its table of configs says, read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clearhead.checkpoint.common import CODE_BEARING, COMMON, NOT_CODE
from clearhead.checkpoint.config_rules import ConfigRow, Evidence, Foreign, Ignored, shown
from clearhead.checkpoint.heads_rule import Heads
from clearhead.checkpoint.places import NOWHERE, Places, collapse, differences, fill, get, spelled_out
from clearhead.checkpoint.report import Account
from clearhead.checkpoint.rules import Row
from clearhead.errors import CheckpointError, ClearheadError, ConfigError, UnknownKeyError
from clearhead.model.config import Head, ModelConfig, SentenceEmbedding

CODE = "it names code, and a checkpoint's code is never run"
TRAINING_ONLY = ("init", "dropout")
"""Choices that only training looks at: a family may lack them, and is exported without them."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type`: all that differs between its files and our model, as data.

    template: the choices that all of its models share; the rows of `config` fill in the rest. weights: the rows of the
    base model, whose names a model with a head puts `prefix` before, unless the head is one of the kinds in `bare`.
    heads: the rows of the heads, never prefixed.
    old_names: endings of tensor names that older files have, and today's. instead: a key, and the tables that hold in
    place of these where it is true: the same tensors make another kind of model. encoder_alone: an encoder-decoder's
    tables hold for its encoder, too (T5).
    """

    model_type: str
    template: ModelConfig
    config: tuple[ConfigRow, ...]
    weights: tuple[Row, ...]
    heads: tuple[Row, ...] = ()
    prefix: str = ""
    bare: tuple[type[Head], ...] = (SentenceEmbedding,)
    old_names: Mapping[str, str] = field(default_factory=dict)
    instead: tuple[str, Family] | None = None
    encoder_alone: bool = False

    @property
    def base(self) -> str | None:
        """The class of its base model, as `architectures` names it."""
        return next((row.base for row in self.config if isinstance(row, Heads)), None)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of its models, each with another head, as `architectures` in a config.json names them."""
        return tuple(name for row in self.config if isinstance(row, Heads) for name in row.architectures)

    @property
    def architectures(self) -> tuple[str, ...]:
        """Encoder, decoder or both: what its models may be."""
        others = () if self.instead is None else (self.instead[1].template.architecture,)
        return (self.template.architecture, *others, *(("encoder",) if self.encoder_alone else ()))

    def prefixes(self, head: Head | None) -> bool:
        """Whether a model with this head puts `prefix` before the names of the base model's tensors."""
        return head is not None and not isinstance(head, self.bare)

    def row_of(self, key: str) -> ConfigRow | None:
        """The row that accounts for a foreign key. A family's own rows come before those that all share."""
        for row in (*self.config, *COMMON):
            if row.claims(key):
                return row
        return None

    def canonical(self, name: str) -> str:
        """A tensor's name as the table has it: without the prefix, in today's spelling."""
        if self.prefix and name.startswith(self.prefix):
            name = name[len(self.prefix) :]
        for old, new in self.old_names.items():
            if name.endswith(old):
                name = name[: -len(old)] + new
        return name

    def read(
        self, keys: Mapping[str, Any], evidence: Evidence, where: str = "config.json"
    ) -> tuple[ModelConfig | None, tuple[Account, ...], list[str], list[ClearheadError]]:
        """Our config (None where something is refused), what became of each key, notes, and the refusals."""
        if self.instead is not None and keys.get(self.instead[0]) is True:
            return self.instead[1].read(keys, evidence, where)
        foreign = Foreign(keys, evidence, where, ours=evidence.config if isinstance(evidence, _Expected) else None)
        refused: dict[str, str] = {}
        errors: list[ClearheadError] = []
        claims = {key: self.row_of(key) for key in keys if not is_code(key)}
        for key, row in claims.items():
            if row is None:
                refused[key] = f"family {self.model_type} does not know it, and it may change the result"
                message = f"{where}: family {self.model_type} does not know the key {key}={shown(keys[key])}, which may"
                errors.append(UnknownKeyError(f"{message} change the result; remove it if it does not."))
        places: Places = {}
        went: dict[str, str] = {}
        for row in (*COMMON, *self.config):
            try:
                found = row.read(foreign)
                places |= found
                where_to = ", ".join(place.rstrip("?") for place in found) or "the only value that we run"
                went |= {key: where_to for key in keys if claims.get(key) is row}
            except (CheckpointError, ConfigError) as problem:
                error = problem if isinstance(problem, CheckpointError) else CheckpointError(f"{where}: {problem}")
                errors.append(error)
                refused |= {key: str(error) for key in keys if claims.get(key) is row}
        config = None
        if not errors:
            try:
                config = fill(self.template, places)
            except ConfigError as error:
                errors.append(CheckpointError(f"{where}: {error}"))
        accounts = tuple(_account(key, keys[key], claims.get(key), refused, went.get(key, "")) for key in keys)
        return config, accounts, foreign.notes, errors

    def write(self, config: ModelConfig, original: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The config.json that says what `config` says; `original`: the file it came from, whose spelling is kept.

        Raises CheckpointError where the family's files cannot say it, naming the choice that does not fit.
        """
        if self.instead is not None and config.architecture == self.instead[1].template.architecture:
            return self.instead[1].write(config, original)
        if config.architecture not in self.architectures:
            raise CheckpointError(
                f"family {self.model_type} cannot hold this model: its models are {self.template.architecture}s, and "
                f"this one is no {self.template.architecture}; export it as another family."
            )
        config = collapse(config)
        original = {key: value for key, value in (original or {}).items() if not is_code(key)}
        evidence = _Expected(config)
        rows = (*COMMON, *self.config)
        written: dict[str, Any] = {"model_type": self.model_type}
        for row in rows:
            try:
                written |= row.write(config)
            except CheckpointError as error:
                raise CheckpointError(f"family {self.model_type} cannot hold this model: {error}") from None
        for row in rows:
            same = row.respelled(written, original)
            readers = (one for one in rows if one is row or not same.keys().isdisjoint(one.keys))
            if same and row.verbatim and all(_alike(one, written, {**written, **same}, evidence) for one in readers):
                written |= same
        for key, value in original.items():
            claim = self.row_of(key)
            if isinstance(claim, Ignored) and claim.keep:
                written[key] = value
        back, _, _, errors = self.read(written, evidence, f"family {self.model_type}")
        if errors:
            raise CheckpointError(f"family {self.model_type} cannot hold this model: {errors[0]}")
        assert back is not None
        for place, ours, theirs in differences(_exported(config), _exported(back)):
            if place.rsplit(".", 1)[-1] not in TRAINING_ONLY and not place.startswith(TRAINING_ONLY):
                raise CheckpointError(
                    f"family {self.model_type} cannot hold this model: {place} is {shown(ours)}, and its files can "
                    f"only say {shown(theirs)}; export it as another family, or build it with that choice."
                )
        return written


def is_code(key: str) -> bool:
    """Whether a foreign key names code to run."""
    return key not in NOT_CODE and any(mark in key for mark in CODE_BEARING)


def refuse(errors: Iterable[ClearheadError]) -> None:
    """Raise the first of the errors, telling how many more there are."""
    all_errors = list(errors)
    if not all_errors:
        return
    first = all_errors[0]
    if len(all_errors) == 1:
        raise first
    raise type(first)(f"{first} ({len(all_errors) - 1} more keys are refused.)")


def _account(key: str, value: Any, row: ConfigRow | None, refused: Mapping[str, str], where_to: str) -> Account:
    if is_code(key):
        return Account(key, "ignored", CODE, value)
    if key in refused:
        return Account(key, "refused", refused[key], value)
    if isinstance(row, Ignored):
        return Account(key, "ignored", row.reason, value)
    return Account(key, "read", where_to, value)


def _alike(row: ConfigRow, keys: Mapping[str, Any], other: Mapping[str, Any], evidence: _Expected) -> bool:
    """Whether the row reads the same from both; what it says of places that the config lacks is no matter."""
    config = evidence.config
    try:
        one, two = (row.read(Foreign(says, evidence, ours=config)) for says in (keys, other))
        lacks = {place for place in one if place.endswith("?") and get(config, place) is NOWHERE}
        return one.keys() == two.keys() and all(one[place] == two[place] for place in one if place not in lacks)
    except ClearheadError:
        return False


def _exported(config: ModelConfig) -> ModelConfig:
    """The config without what is written beside config.json: a sentence embedding's pooling has files of its own."""
    return spelled_out(replace(config, head=None) if isinstance(config.head, SentenceEmbedding) else config)


@dataclass(frozen=True)
class _Expected:
    """The evidence of weights that are not written yet: a pooler is there if the config has one."""

    config: ModelConfig

    def has(self, name: str) -> bool:
        """Only poolers are asked for."""
        return self.config.pooler is not None

    def same(self, one: str, other: str) -> bool:
        """What is tied is one tensor."""
        return True
