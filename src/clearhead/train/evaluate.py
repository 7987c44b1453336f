"""Evaluation. The field's own measures, through the field's own libraries, each with the name that papers call it by.

Losses are in nats; `perplexity` is e to the loss of a token, `bits_per_byte` what it costs to write a byte of the text,
which compares models of different vocabularies. BLEU and chrF are sacrebleu's, with its signature, F1 of entities is
seqeval's, ROUGE rouge-score's; `pip install "clearhead[evaluate]"` brings them.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from clearhead.errors import InputError, MissingDependencyError


@dataclass(frozen=True)
class Score:
    """One figure. value: higher is better, unless it is a loss, a perplexity or bits. note: how it was taken."""

    name: str
    value: float
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g}" + (f" ({self.note})" if self.note else "")


def perplexity(loss: float) -> Score:
    """exp(loss): among how many equally likely tokens the model hesitates."""
    return Score("perplexity", math.exp(min(loss, 700.0)), "a token")


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> Score:
    """loss·tokens / (ln 2·bytes): what the text costs, whatever its tokens are. Raises InputError for no bytes."""
    if n_bytes < 1:
        raise InputError("bits per byte of an empty text are not defined; give some text.")
    return Score("bits per byte", loss * n_tokens / (math.log(2) * n_bytes), f"{n_bytes:,} bytes")


def teacher_forced(nats: float, n_tokens: int, n_bytes: int | None) -> list[Score]:
    """Of targets that are read as they are said: loss and perplexity of a token, its end among them; and bits per byte,
    where the bytes are known that all of them stand for."""
    loss = nats / max(1, n_tokens)
    found = [
        Score("loss", loss, f"nats a token of the target, teacher forced; {n_tokens:,} tokens"),
        Score("perplexity", perplexity(loss).value, "a token of the target"),
    ]
    if n_bytes:
        bits = bits_per_byte(loss, n_tokens, n_bytes)
        found.append(Score(bits.name, bits.value, f"{bits.note} of targets, given their sources"))
    return found


def accuracy(said: Sequence[object], right: Sequence[object]) -> Score:
    """The share that is right."""
    _check(said, right)
    hits = sum(a == b for a, b in zip(said, right, strict=True))
    return Score("accuracy", hits / len(right), f"{hits:,} of {len(right):,}")


def f1(said: Sequence[object], right: Sequence[object]) -> Score:
    """The mean, over the labels that are right somewhere or were said, of 2·hits / (times said + times right)."""
    _check(said, right)
    hits = Counter(a for a, b in zip(said, right, strict=True) if a == b)
    times = Counter(said) + Counter(right)
    return Score(
        "F1", sum(2 * hits[label] / n for label, n in times.items()) / len(times), f"mean of {len(times)} labels"
    )


def micro_f1(said: Sequence[Sequence[bool]], right: Sequence[Sequence[bool]]) -> Score:
    """F1 of labels of which several may hold: 2·hits / (labels said + labels right), over all texts."""
    _check(said, right)
    pairs = [pair for a, b in zip(said, right, strict=True) for pair in zip(a, b, strict=True)]
    hits, named = sum(a and b for a, b in pairs), sum(a + b for a, b in pairs)
    return Score("F1", 2 * hits / named if named else 0.0, "micro average, a label holds from probability 0.5")


def correlation(said: Sequence[float], right: Sequence[float]) -> Score:
    """Pearson's r: how far two series go together, −1 to 1; 0 where one of them does not change."""
    _check(said, right)
    mean_a, mean_b = sum(said) / len(said), sum(right) / len(right)
    a, b = [x - mean_a for x in said], [y - mean_b for y in right]
    spread = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return Score("Pearson r", sum(x * y for x, y in zip(a, b, strict=True)) / spread if spread else 0.0)


def exact_match(said: Sequence[str], right: Sequence[str]) -> Score:
    """The share of texts that are right to the last character, blanks around them aside."""
    _check(said, right)
    hits = sum(a.strip() == b.strip() for a, b in zip(said, right, strict=True))
    return Score("exact match", hits / len(right), f"{hits:,} of {len(right):,}")


def entity_f1(said: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> Score:
    """F1 of whole entities, type and both ends right, over all texts (Tjong Kim Sang & De Meulder 2003; micro average).

    Tags are IOB2: `B-PER I-PER O`. One row a text, one tag a word.
    """
    _check(said, right)
    for number, (a, b) in enumerate(zip(said, right, strict=True)):
        if len(a) != len(b):
            raise InputError(f"text {number} has {len(b)} words and {len(a)} tags were predicted; give one a word.")
    metrics = _library("seqeval.metrics", "seqeval")
    lists = [list(tags) for tags in right], [list(tags) for tags in said]
    precision, recall, value = (
        float(measure(*lists, zero_division=0))
        for measure in (metrics.precision_score, metrics.recall_score, metrics.f1_score)
    )
    told = f"precision {precision:.3f}, recall {recall:.3f}; seqeval {version('seqeval')}, micro average"
    return Score("entity F1", value, told)


def bleu(said: Sequence[str], right: Sequence[str]) -> Score:
    """Corpus BLEU (Papineni et al. 2002), sacrebleu's, tokenised as 13a (Post 2018), 0 to 100."""
    _check(said, right)
    metric = _library("sacrebleu", "sacrebleu").BLEU()
    value = metric.corpus_score(list(said), [list(right)]).score
    return Score("BLEU", float(value), f"sacrebleu {metric.get_signature()}")


def chrf(said: Sequence[str], right: Sequence[str]) -> Score:
    """Corpus chrF (Popović 2015), sacrebleu's, 0 to 100."""
    _check(said, right)
    metric = _library("sacrebleu", "sacrebleu").CHRF()
    value = metric.corpus_score(list(said), [list(right)]).score
    return Score("chrF", float(value), f"sacrebleu {metric.get_signature()}")


def rouge(said: Sequence[str], right: Sequence[str]) -> list[Score]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, F-measures with stemming, mean over texts (Lin 2004)."""
    _check(said, right)
    names = ("rouge1", "rouge2", "rougeL")
    scorer = _library("rouge_score.rouge_scorer", "rouge-score").RougeScorer(list(names), use_stemmer=True)
    scores = [scorer.score(target=b, prediction=a) for a, b in zip(said, right, strict=True)]
    told = f"F-measure; rouge-score {version('rouge-score')}, stems"
    return [
        Score(name.replace("rouge", "ROUGE-"), sum(s[name].fmeasure for s in scores) / len(scores), told)
        for name in names
    ]


def _check(said: Sequence[object], right: Sequence[object]) -> None:
    if len(said) != len(right):
        raise InputError(f"{len(said)} answers were given for {len(right)} right ones; give one for each.")
    if not right:
        raise InputError("there is nothing to evaluate on: the list is empty.")


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(
            f'this measure is taken by {package}, which is not installed; pip install "clearhead[evaluate]" brings it.'
        ) from None
