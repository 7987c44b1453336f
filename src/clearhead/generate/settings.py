"""Settings. How a text is to be continued: how far, how boldly, what is forbidden, and from which seed.

Each is written down once, here; functions that continue texts take a `GenerationSettings`, or its fields as keywords.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from clearhead.errors import ConfigError
from clearhead.model.config.checks import LARGEST, brief, check_counts, check_numbers

COLDEST = 1e-6
"""A temperature above 0 is at least this: logits are divided by it, and must stay finite."""

STEEPEST = 20.0
"""A length penalty is at most this either way: it is a power of the length, and must stay finite."""

WIDEST = 1024
"""Beams: each is a row of its own in the batch and in the cache."""

UNSAID = 50
"""New ids where nothing says how many; fewer where the model's positions end before."""

Ids = int | Sequence[int] | None


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How ids are chosen. What is None is off; the mathematics of each is in `sampling.py` and `beam.py`.

    How far. max_new_tokens: the most ids that are added to each text; they must fit the model's positions. max_length:
    how many ids a text may have in all, counted as the longest of the batch, where max_new_tokens is None; without
    either, default_new_tokens; both end where the positions end. min_new_tokens, min_length: before it, no text ends.

    How boldly. temperature: 0 is greedy, the likeliest id each time, and then nothing that cuts off unlikely ids has a
    say; 1 draws from the model's own distribution. top_k, top_p, min_p: which ids may be drawn. seed: the same seed
    gives the same text; None draws a new one each time.

    What is held down. repetition_penalty: above 1, ids already in the text become less likely. no_repeat_ngram_size:
    no run of so many ids comes twice (0 is off); encoder_no_repeat_ngram_size: none comes that the source (in a
    decoder: the prompt) has. bad_words_ids: runs of ids that are never written. suppress_tokens: ids that never are;
    begin_suppress_tokens: not as the first. renormalize_logits: what is left becomes a distribution again.

    What is forced. forced_bos_token_id: the first id after a single one, such as the language to translate into.
    forced_eos_token_id: the last id, where the text would else be cut off.

    How widely. num_beams: above 1, beam search. length_penalty: a beam's score is divided by its length to this power.
    early_stopping: True stops at num_beams texts that ended; False when the best unfinished one, as long as it is, is
    no better; "never" when it cannot become better. num_return_sequences: how many of the texts found are given.

    Which ids have a meaning. eos: they end a text, () none does; pad: it fills texts that ended; decoder_start: an
    encoder-decoder begins with it. None means those of the model's config.

    Raises ConfigError for a value out of its range, and for two that contradict each other.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    default_new_tokens: int = UNSAID
    min_new_tokens: int | None = None
    min_length: int | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    bad_words_ids: Sequence[Sequence[int]] = ()
    suppress_tokens: Ids = None
    begin_suppress_tokens: Ids = None
    renormalize_logits: bool = False
    forced_bos_token_id: int | None = None
    forced_eos_token_id: Ids = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = 1
    eos: Ids = None
    pad: int | None = None
    decoder_start: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is None and field.default is not None:
                raise ConfigError(f"GenerationSettings.{field.name}=None is no value; leave it out, or give one.")
        check_counts(self, "max_new_tokens", "min_new_tokens", "min_length", at_least=0)
        check_counts(self, "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", at_least=0)
        check_counts(self, "max_length", "default_new_tokens", "top_k")
        check_counts(self, "num_beams", "num_return_sequences", at_most=WIDEST)
        check_counts(self, "forced_bos_token_id", "pad", "decoder_start", at_least=0)
        check_counts(self, "seed", at_least=0, at_most=2**63 - 1)
        check_numbers(self, "temperature", inclusive=True)
        check_numbers(self, "top_p", "min_p", "repetition_penalty")
        check_numbers(self, "length_penalty", above=-STEEPEST, inclusive=True)
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "length_penalty"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))  # torch takes no whole number past 2**64
        for name in ("suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id", "eos"):
            object.__setattr__(self, name, _ids(name, getattr(self, name)))
        object.__setattr__(self, "bad_words_ids", _runs(self.bad_words_ids))
        self._check_sampling()
        self._check_beams()
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            forced = self.ids(name)
            if forced and set(forced) <= set(self.ids("suppress_tokens")):
                raise ConfigError(f"{name}={_shown(forced)} is in suppress_tokens too; choose one of the two.")

    def _check_sampling(self) -> None:
        if 0 < self.temperature < COLDEST:
            raise ConfigError(
                f"GenerationSettings.temperature={self.temperature} is too small to divide by; "
                f"choose 0, which is greedy, or at least {COLDEST}."
            )
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and value > 1:
                raise ConfigError(f"GenerationSettings.{name}={brief(value)} is no probability; choose 0 < {name} ≤ 1.")

    def _check_beams(self) -> None:
        if self.length_penalty > STEEPEST:
            penalty = brief(self.length_penalty)
            raise ConfigError(f"GenerationSettings.length_penalty={penalty} is too large; choose at most {STEEPEST}.")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ConfigError(
                f"GenerationSettings.early_stopping={brief(self.early_stopping)} is not a choice; "
                "choose True, False or 'never'."
            )
        if self.num_beams > 1 and not self.greedy:
            raise ConfigError(
                f"beam search takes the likeliest and draws nothing; leave temperature={brief(self.temperature)} out, "
                f"or num_beams={self.num_beams}."
            )
        if self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_return_sequences={self.num_return_sequences} asks for more texts than num_beams="
                f"{self.num_beams} finds; choose at most {self.num_beams}."
            )

    @property
    def greedy(self) -> bool:
        """True where the likeliest id is taken each time and nothing is drawn."""
        return self.temperature == 0

    def ids(self, name: str) -> tuple[int, ...]:
        """The ids of a field that holds one or several; none where it is None."""
        return _ids(name, getattr(self, name)) or ()

    def check_ids(self, vocab_size: int) -> None:
        """Raise ConfigError for an id that the vocabulary does not have (an eos may lie outside: it never comes)."""
        singles = ("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id")
        named = [(name, self.ids(name)) for name in singles]
        for name, ids in (*named, *(("bad_words_ids", tuple(run)) for run in self.bad_words_ids)):
            if any(not 0 <= one < vocab_size for one in ids):
                raise ConfigError(f"{name}={_shown(ids)} is outside the vocabulary of {vocab_size}; choose other ids.")


def settled(settings: GenerationSettings | None, changes: Mapping[str, Any]) -> GenerationSettings:
    """The settings with the caller's own changes.

    Where a caller's wish meets what was only a default, the wish counts: max_length sets aside max_new_tokens, and a
    temperature above 0 beam search. Raises ConfigError for a name that is no setting.
    """
    known = [field.name for field in fields(GenerationSettings)]
    for name in changes:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "GenerationSettings says which there are."
            raise ConfigError(f"there is no setting {name!r}; {hint}")
    aside: dict[str, Any] = {}
    if changes.get("max_length") is not None:
        aside["max_new_tokens"] = None
    temperature = changes.get("temperature")
    if isinstance(temperature, int | float) and temperature > 0:
        aside |= {"num_beams": 1, "num_return_sequences": 1}
    return replace(settings if settings is not None else GenerationSettings(), **{**aside, **changes})


def _ids(name: str, value: object) -> tuple[int, ...] | None:
    """One id or several, as a tuple."""
    if value is None:
        return None
    ids = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not all(isinstance(one, int) and not isinstance(one, bool) and abs(one) <= LARGEST for one in ids):
        raise ConfigError(f"GenerationSettings.{name}={brief(value)} is no id and no list of ids; give whole numbers.")
    return ids


def _runs(value: object) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"bad_words_ids={brief(value)} is no list of lists of ids; write [[5], [7, 2]].")
    runs = tuple(_ids("bad_words_ids", run) if isinstance(run, Sequence) else None for run in value)
    if not all(runs):
        raise ConfigError("bad_words_ids holds what is no list of ids, or an empty one; write [[5], [7, 2]].")
    return tuple(run for run in runs if run)


def _shown(ids: Sequence[int]) -> str:
    few = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
    return few if len(ids) == 1 else f"[{few}]"
