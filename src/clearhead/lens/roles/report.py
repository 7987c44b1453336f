"""The report. What was found: each head's roles, each role's scores, and what was left out on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from clearhead.errors import OutsideError
from clearhead.lens.roles.coreference import Coreference
from clearhead.lens.roles.names import FirstToken, Role
from clearhead.lens.roles.relations import Relation
from clearhead.lens.seen import Kind


@dataclass(frozen=True)
class Finding:
    """A head that has a role. score: the weight, or the accuracy, that shows it; beside: what chance, or the baseline,
    would reach. detail: the distance of a positional head, the relation of a syntactic one."""

    role: Role
    layer: int
    head: int
    score: float
    beside: float
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Scores:
    """One role over all heads. `found` are those that have it; `details` tells more of each, by (layer, head).

    queries: how many the scores are means of; 0 where the texts, or the direction of reading, gave none.
    """

    role: Role
    values: Float[Tensor, "L H"]
    chance: float
    needs: float
    queries: int
    found: Bool[Tensor, "L H"]
    details: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def best(self) -> tuple[int, int]:
        """The head that scores highest."""
        return divmod(int(self.values.argmax()), self.values.shape[1])


@dataclass(frozen=True, eq=False)
class Roles:
    """What `find` found. `print` shows it as tables; `findings` are the heads with a role, `of` one head's roles.

    texts, tokens: how much was read for the habits; notes: what was left out, and why.
    sentences: those of the treebank; from_treebank: whether habits were seen on them, too.
    """

    kind: Kind
    layers: int
    heads: int
    first_token: FirstToken
    texts: int
    tokens: int
    scores: tuple[Scores, ...]
    relations: tuple[Relation, ...] = ()
    coreference: Coreference | None = None
    notes: tuple[str, ...] = ()
    sentences: int = 0
    from_treebank: bool = False

    def __getitem__(self, role: Role | str) -> Scores:
        """The scores of one role, by its name: `roles["induction"]`."""
        for scores in self.scores:
            if scores.role == role:
                return scores
        raise OutsideError(
            f"{role!r} has no scores here; choose one of {', '.join(s.role.value for s in self.scores)}."
        )

    @property
    def findings(self) -> list[Finding]:
        """Every head with a role, role by role, the strongest first. A relation names the head that is best at it."""
        found = []
        for scores in self.scores:
            own = [
                Finding(scores.role, layer, head, float(scores.values[layer, head]), scores.chance, detail)
                for layer, head in scores.found.nonzero().tolist()
                for detail in (scores.details.get((layer, head), ""),)
            ]
            found += sorted(own, key=lambda one: -one.score)
        for relation in self.relations:
            layer, head = relation.best
            if bool(relation.found[layer, head]):
                what = f"{relation.name} {relation.direction}"
                score = float(relation.accuracy[layer, head])
                found.append(Finding(Role.SYNTAX, layer, head, score, relation.baseline, what))
        if self.coreference is not None:
            beside = max(self.coreference.nearest, self.coreference.chance)
            own = [
                Finding(Role.COREFERENCE, layer, head, float(self.coreference.accuracy[layer, head]), beside)
                for layer, head in self.coreference.found.nonzero().tolist()
            ]
            found += sorted(own, key=lambda one: -one.score)
        order = list(Role)
        return sorted(found, key=lambda one: order.index(one.role))

    def of(self, layer: int, head: int) -> list[Finding]:
        """The roles of one head, the most telling first."""
        if not (0 <= layer < self.layers and 0 <= head < self.heads):
            raise OutsideError(f"head {layer}.{head} is outside {self.layers} layers × {self.heads} heads.")
        return [one for one in self.findings if (one.layer, one.head) == (layer, head)]

    def summary(self) -> list[list[str]]:
        """A line for each role: its best head, that one's score, chance or baseline, and every head that has it."""
        lines = []
        for scores in self.scores:
            layer, head = scores.best
            named = [f"{a}.{b}" for a, b in _ranked(scores.values, scores.found)]
            if not scores.queries:
                lines.append([scores.role.value, "–", "–", "–", "nothing to read that way"])
                continue
            score = f"{float(scores.values[layer, head]):.2f}"
            lines.append([scores.role.value, f"{layer}.{head}", score, f"{scores.chance:.2f}", some(named)])
        if self.coreference is not None and self.coreference.pairs:
            both = self.coreference
            layer, head = both.best
            named = [f"{a}.{b}" for a, b in _ranked(both.accuracy, both.found)]
            score, beside = f"{float(both.accuracy[layer, head]):.2f}", f"{max(both.nearest, both.chance):.2f}"
            lines.append([Role.COREFERENCE.value, f"{layer}.{head}", score, beside, some(named)])
        return lines

    def relation_lines(self) -> list[list[str]]:
        """A line for each relation: its pairs, its best head, how often that is right, and the best fixed distance."""
        lines = []
        for one in self.relations:
            layer, head = one.best
            best = float(one.accuracy[layer, head])
            mark = "yes" if bool(one.found[layer, head]) else "no"
            where = f"{one.distance:+d}"
            lines.append(
                [
                    f"{one.name} {one.direction}",
                    str(one.pairs),
                    f"{layer}.{head}",
                    _percent(best),
                    _percent(one.baseline),
                    where,
                    mark,
                ]
            )
        return lines

    def heading(self) -> str:
        """What was read, and how the first token was treated."""
        read = f"{self.texts:,} texts of {self.tokens:,} tokens"
        if self.sentences:
            trees = f"{self.sentences:,} sentences of the treebank"
            read = trees + f", {self.tokens:,} tokens" if self.from_treebank else f"{read} · {trees}"
        return f"{self.kind} {self.layers} layers × {self.heads} heads · {read} · first token {self.first_token.value}"

    def __str__(self) -> str:
        parts = [self.heading(), "", table([SUMMARY, *self.summary()])]
        if self.relations:
            parts += ["", table([RELATIONS, *self.relation_lines()])]
        return "\n".join([*parts, *(("", *self.notes) if self.notes else ())])

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain lists and numbers: what `clearhead roles --json` writes."""
        both = self.coreference
        return {
            "kind": self.kind,
            "layers": self.layers,
            "heads": self.heads,
            "first_token": self.first_token.value,
            "texts": self.texts,
            "tokens": self.tokens,
            "sentences": self.sentences,
            "findings": [{**vars(one), "role": one.role.value} for one in self.findings],
            "roles": [
                {
                    "role": one.role.value,
                    "queries": one.queries,
                    "chance": one.chance,
                    "needs": one.needs,
                    "scores": one.values.tolist(),
                    "found": one.found.tolist(),
                }
                for one in self.scores
            ],
            "relations": [
                {
                    "relation": one.name,
                    "direction": one.direction,
                    "pairs": one.pairs,
                    "distance": one.distance,
                    "baseline": one.baseline,
                    "needs": one.needs,
                    "accuracy": one.accuracy.tolist(),
                    "weight": one.weight.tolist(),
                    "alike": one.alike,
                }
                for one in self.relations
            ],
            "coreference": None
            if both is None
            else {
                "pairs": both.pairs,
                "out_of_reach": both.out_of_reach,
                "nearest": both.nearest,
                "chance": both.chance,
                "needs": both.needs,
                "accuracy": both.accuracy.tolist(),
                "weight": both.weight.tolist(),
                "alike": both.alike,
            },
            "notes": list(self.notes),
        }


SUMMARY = ["role", "best", "score", "beside", "heads that have it"]
RELATIONS = ["relation", "pairs", "best", "right", "fixed", "at", "found"]


def some(words: Sequence[str], most: int = 12) -> str:
    """The first of these words, and how many more there are."""
    if not words:
        return "none"
    return " ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def table(lines: Iterable[Sequence[str]]) -> str:
    """Lines of words in columns."""
    rows = [list(line) for line in lines]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  ".join(word.ljust(w) for word, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _ranked(values: Float[Tensor, "L H"], found: Bool[Tensor, "L H"]) -> list[tuple[int, int]]:
    return sorted(((a, b) for a, b in found.nonzero().tolist()), key=lambda at: -float(values[at]))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
