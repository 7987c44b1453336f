"""Evaluation. The field's own measures, through the field's own libraries, each with the name that papers call it by.

Losses are in nats; `perplexity` is e to the loss of a token, `bits_per_byte` what it costs to write a byte of the text,
which compares models of different vocabularies. BLEU and chrF are sacrebleu's, with its signature, F1 of entities is
seqeval's, ROUGE rouge-score's; `pip install "clearhead[evaluate]"` brings them.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
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


def accuracy(said: Sequence[object], right: Sequence[object]) -> Score:
    """The share that is right."""
    _check(said, right)
    hits = sum(a == b for a, b in zip(said, right, strict=True))
    return Score("accuracy", hits / len(right), f"{hits:,} of {len(right):,}")


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
    value = metrics.f1_score([list(tags) for tags in right], [list(tags) for tags in said], zero_division=0)
    return Score("entity F1", float(value), "seqeval, micro average")


def bleu(said: Sequence[str], right: Sequence[str]) -> Score:
    """Corpus BLEU (Papineni et al. 2002), sacrebleu's, tokenised as 13a (Post 2018), 0 to 100."""
    _check(said, right)
    metric = _library("sacrebleu", "sacrebleu").BLEU()
    value = metric.corpus_score(list(said), [list(right)]).score
    return Score("BLEU", float(value), str(metric.get_signature()))


def chrf(said: Sequence[str], right: Sequence[str]) -> Score:
    """Corpus chrF (Popović 2015), sacrebleu's, 0 to 100."""
    _check(said, right)
    metric = _library("sacrebleu", "sacrebleu").CHRF()
    value = metric.corpus_score(list(said), [list(right)]).score
    return Score("chrF", float(value), str(metric.get_signature()))


def rouge(said: Sequence[str], right: Sequence[str]) -> list[Score]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, F-measures with stemming, mean over texts (Lin 2004)."""
    _check(said, right)
    names = ("rouge1", "rouge2", "rougeL")
    scorer = _library("rouge_score.rouge_scorer", "rouge-score").RougeScorer(list(names), use_stemmer=True)
    scores = [scorer.score(target=b, prediction=a) for a, b in zip(said, right, strict=True)]
    return [
        Score(
            name.replace("rouge", "ROUGE-"), sum(s[name].fmeasure for s in scores) / len(scores), "rouge-score, stems"
        )
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
