"""Rotary positions in a config.json, both spellings read and both written.

transformers 5 writes `rope_parameters`, with `rope_theta` inside; 4 wrote `rope_theta` and `rope_scaling` side by side.
A file of the one spelling alone is read by the other version as θ = 10,000 without scaling, and not a word is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from clearhead.checkpoint.config_rules import ConfigRow, Foreign, shown
from clearhead.checkpoint.places import Places, get
from clearhead.errors import CheckpointError, UnknownKeyError
from clearhead.model.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ModelConfig,
    Rotary,
    RotaryScaling,
    YarnScaling,
)
from clearhead.model.positions import longrope_growth

ORIGINAL = "original_max_position_embeddings"
"""transformers 4 reads LongRoPE's from beside the rest, and its factor from the two contexts alone."""

_KNOWN = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
    "longrope": ("short_factor", "long_factor", "factor", "original_max_position_embeddings", "attention_factor"),
}
_UNUSED = ("original_max_position_embeddings", "finetuned")
"""What some files say although their scaling does not look at it."""
_DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
"""What YaRN is everywhere left to be."""


@dataclass(frozen=True)
class Rope(ConfigRow):
    """The row of rotary positions at one place. fraction: the default of `partial_rotary_factor`, None if not read.

    old: what the family's files called `rope_theta` and `partial_rotary_factor` before `rope_parameters`.
    kind: what `rope_scaling` calls the kind of scaling; transformers 4.57 reads OLMo 2's under the oldest name alone.
    """

    place: str
    theta: float = 10_000.0
    fraction: float | None = None
    layout: Literal["halves", "interleaved"] = "halves"
    context: str = "max_position_embeddings"
    kind: Literal["rope_type", "type"] = "rope_type"
    old: Mapping[str, str] = field(default_factory=dict)
    verbatim: bool = False

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        """Both spellings."""
        partial = ("partial_rotary_factor",) if self.fraction is not None else ()
        return ("rope_parameters", "rope_theta", "rope_scaling", *partial, *self.old.values())

    def claims(self, key: str) -> bool:
        """Whether it is one of the keys, or the original context, that some files write beside them."""
        return key in self.keys or key == ORIGINAL

    def read(self, foreign: Foreign) -> Places:
        """A Rotary. Raises CheckpointError where the two spellings disagree."""
        foreign = self._renamed(foreign)
        spellings = {key: self._object(foreign, key) for key in ("rope_parameters", "rope_scaling")}
        found = {key: self._rotary(foreign, key, value) for key, value in spellings.items() if value}
        if not found:
            return {self.place: self._rotary(foreign, "rope_parameters", {})}
        first = next(iter(found.values()))
        theta = foreign.optional_number("rope_theta")
        if any(_said(other) != _said(first) for other in found.values()) or theta not in (None, first.theta):
            names = ", ".join(key for key in ("rope_parameters", "rope_scaling", "rope_theta") if foreign.get(key))
            raise CheckpointError(f"{foreign.where}: {names} disagree; keep the one that the model was trained with.")
        return {self.place: first}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Both spellings."""
        rotary = get(config, self.place)
        if not isinstance(rotary, Rotary):
            return {}
        scaling = _written(rotary.scaling)
        partial = {"partial_rotary_factor": rotary.fraction} if self.fraction is not None else {}
        new = {"rope_theta": rotary.theta, **(scaling or {"rope_type": "default"}), **partial}
        flat = {"rope_theta": rotary.theta, **partial}
        older = None if scaling is None else {self.kind if key == "rope_type" else key: scaling[key] for key in scaling}
        says = {"rope_parameters": new, "rope_scaling": older} | {
            self.old.get(key, key): value for key, value in flat.items()
        }
        if older is not None and isinstance(rotary.scaling, LongRopeScaling):
            says[ORIGINAL] = rotary.scaling.original_context
            if rotary.scaling.factor != config.context / rotary.scaling.original_context:
                older["attention_factor"] = longrope_growth(rotary.scaling)
        return says

    def _renamed(self, foreign: Foreign) -> Foreign:
        """The same with today's names of what the family's older files called otherwise."""
        keys = dict(foreign.keys)
        for today, old in self.old.items():
            if old in keys and keys.setdefault(today, keys[old]) != keys[old]:
                raise CheckpointError(f"{foreign.where}: {today} and {old} disagree; remove the wrong one.")
        return replace(foreign, keys=keys)

    def _object(self, foreign: Foreign, key: str) -> Mapping[str, Any]:
        value = foreign.get(key)
        if value is not None and not isinstance(value, dict):
            raise foreign.bad(key, "an object of rotary parameters")
        return value or {}

    def _rotary(self, foreign: Foreign, key: str, says: Mapping[str, Any]) -> Rotary:
        inner = Foreign(says, foreign.evidence, f"{foreign.where}: {key}", foreign.notes)
        new = replace(inner, keys=self._object(foreign, "rope_parameters"))
        thetas = [where.optional_number("rope_theta") for where in (inner, foreign, new)]
        fraction = 1.0
        if self.fraction is not None:
            fraction = inner.number("partial_rotary_factor", foreign.number("partial_rotary_factor", self.fraction))
        return Rotary(
            theta=next((theta for theta in thetas if theta is not None), self.theta),
            fraction=fraction,
            layout=self.layout,
            scaling=self._scaling(foreign, inner),
        )

    def _scaling(self, foreign: Foreign, inner: Foreign) -> RotaryScaling | None:
        kind = inner.text("rope_type", inner.text("type", "default"))
        kind = {"su": "longrope"}.get(kind, kind)
        if kind not in _KNOWN:
            known = ", ".join(_KNOWN)
            raise UnknownKeyError(f"{inner.where}: rope_type={shown(kind)} is not a scaling that we have ({known}).")
        partial = () if self.fraction is None else ("partial_rotary_factor",)
        for key in inner.keys:
            if key in _UNUSED and key not in _KNOWN[kind]:
                foreign.notes.append(f"{inner.where}: {key} is not used by rope_type={kind}")
            elif key not in ("rope_type", "type", "rope_theta", *partial, *_KNOWN[kind]):
                raise UnknownKeyError(f"{inner.where}: rope_type={kind} does not know the key {key!r}; remove it.")
        context = foreign.whole(self.context, 2048)
        beside = foreign.optional_whole(ORIGINAL)
        original = inner.whole(ORIGINAL, context if beside is None else beside)
        if beside not in (None, original) and ORIGINAL in _KNOWN[kind]:
            raise CheckpointError(f"{foreign.where}: {ORIGINAL} is {beside} and {original}; remove the wrong one.")
        match kind:
            case "linear":
                return LinearScaling(factor=inner.number("factor"))
            case "dynamic":
                return DynamicScaling(factor=inner.number("factor"), original_context=context)
            case "llama3":
                return Llama3Scaling(
                    factor=inner.number("factor"),
                    low_freq_factor=inner.number("low_freq_factor"),
                    high_freq_factor=inner.number("high_freq_factor"),
                    original_context=original,
                )
            case "yarn":
                return YarnScaling(
                    factor=inner.number("factor"),
                    original_context=original,
                    beta_fast=inner.optional_number("beta_fast") or _DEFAULTS["beta_fast"],
                    beta_slow=inner.optional_number("beta_slow") or _DEFAULTS["beta_slow"],
                    attention_factor=inner.optional_number("attention_factor"),
                    mscale=inner.optional_number("mscale"),
                    mscale_all_dim=inner.optional_number("mscale_all_dim"),
                    truncate=inner.flag("truncate", True),
                )
            case "longrope":
                return LongRopeScaling(
                    short_factor=_numbers(inner, "short_factor"),
                    long_factor=_numbers(inner, "long_factor"),
                    original_context=original,
                    factor=inner.optional_number("factor") or context / max(original, 1),
                    attention_factor=inner.optional_number("attention_factor"),
                )
        return None


def _numbers(inner: Foreign, key: str) -> tuple[float, ...]:
    values = inner.get(key)
    if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise inner.bad(key, "a list of numbers")
    return tuple(values)


def _said(rotary: Rotary) -> Rotary:
    """The same, with the attention factor that LongRoPE may leave to be derived."""
    scaling = rotary.scaling
    if not isinstance(scaling, LongRopeScaling):
        return rotary
    return replace(rotary, scaling=replace(scaling, attention_factor=longrope_growth(scaling)))


def _written(scaling: RotaryScaling | None) -> dict[str, Any] | None:
    """The scaling as an object of rotary parameters, without what is None."""
    match scaling:
        case None:
            return None
        case LinearScaling():
            return {"rope_type": "linear", "factor": float(scaling.factor)}
        case DynamicScaling():
            return {"rope_type": "dynamic", "factor": float(scaling.factor)}
        case Llama3Scaling():
            kind = "llama3"
        case YarnScaling():
            kind = "yarn"
        case LongRopeScaling():
            kind = "longrope"
    says: dict[str, Any] = {"rope_type": kind}
    for key in _KNOWN[kind]:
        value = getattr(scaling, "original_context" if key.startswith("original") else key)
        if value is not None and _DEFAULTS.get(key) != value:
            says[key] = list(value) if isinstance(value, tuple) else value
    return says
