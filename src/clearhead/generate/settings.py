"""Settings. How a text is to be continued: how far, how boldly, and from which seed. They check themselves."""

from __future__ import annotations

from dataclasses import dataclass

from clearhead.errors import ConfigError
from clearhead.model.config.checks import check_counts, check_numbers

COLDEST = 1e-6
"""A temperature above 0 is at least this: logits are divided by it, and must stay finite."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How ids are chosen. What is None is off; the mathematics of each is in `sampling.py`.

    max_new_tokens: the most ids that are added to each text. temperature: 0 is greedy, the likeliest id each time, and
    then nothing that cuts off unlikely ids has a say; 1 draws from the model's own distribution. top_k, top_p, min_p:
    which ids may be drawn. repetition_penalty: above 1, ids already in the text become less likely. seed: the same
    seed gives the same text; None draws a new one each time.

    Raises ConfigError for a value out of its range.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "max_new_tokens", at_least=0)
        check_counts(self, "top_k")
        check_counts(self, "seed", at_least=0, at_most=2**63 - 1)
        check_numbers(self, "temperature", inclusive=True)
        check_numbers(self, "top_p", "min_p", "repetition_penalty")
        if 0 < self.temperature < COLDEST:
            raise ConfigError(
                f"GenerationSettings.temperature={self.temperature} is too small to divide by; "
                f"choose 0, which is greedy, or at least {COLDEST}."
            )
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and value > 1:
                raise ConfigError(f"GenerationSettings.{name}={value} is no probability; choose 0 < {name} ≤ 1.")

    @property
    def greedy(self) -> bool:
        """True where the likeliest id is taken each time and nothing is drawn."""
        return self.temperature == 0
