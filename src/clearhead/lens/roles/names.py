"""Names. The roles there are, what each means, and how the first token is treated."""

from __future__ import annotations

from enum import Enum


class Role(str, Enum):  # noqa: UP042 — str() of it is never shown; the value is
    """What a head can be there for. The order is that in which a head with several roles is coloured."""

    INDUCTION = "induction"
    DUPLICATE = "duplicate token"
    COREFERENCE = "coreference"
    SYNTAX = "syntactic relation"
    RARE = "rare words"
    PREVIOUS = "previous token"
    NEXT = "next token"
    POSITIONAL = "positional"
    SEPARATOR = "separator"
    FIRST = "first-token sink"


MEANING: dict[Role, str] = {
    Role.INDUCTION: "reads what came after the same token before",
    Role.DUPLICATE: "reads the same token elsewhere",
    Role.COREFERENCE: "reads, at a pronoun, the name it stands for",
    Role.SYNTAX: "reads the word that grammar ties to this one",
    Role.RARE: "reads the rarest tokens of the text",
    Role.PREVIOUS: "reads the token before",
    Role.NEXT: "reads the token after",
    Role.POSITIONAL: "reads at one distance, 0.9 and more",
    Role.SEPARATOR: "rests on separators",
    Role.FIRST: "rests on the first token",
}


class FirstToken(str, Enum):  # noqa: UP042
    """What is done with the first token, on which many heads rest. The choice changes scores, and is shown with them.

    KEPT            weights as they are; what published figures mostly do
    DROPPED         it counts neither as what reads nor as what is read: its weight is gone from every row
    RENORMALISED    as dropped, and what is left of each row sums to 1; rows with less than `LEAST_LEFT` are left out

    First-token sinks themselves are always found by the weights as they are.
    """

    KEPT = "kept"
    DROPPED = "dropped"
    RENORMALISED = "renormalised"


LEAST_LEFT = 1e-3
"""Where less of a row is left than this, what it would say of the rest is rounding."""
