"""How good is it? The measures that papers report for a task, of a model on batches of rows.

causal language model      perplexity, and bits per byte
masked language model      loss, perplexity and accuracy at the places that were asked about
sequence classification    accuracy and F1; of a number to predict, the squared error and Pearson's r
token classification       F1 of whole entities (of words, where tags are no B- and I-), and accuracy of words
sequence to sequence       BLEU, chrF and ROUGE of what is written, and how many texts are right to the letter

`scores` takes them of a training run, over the rows that were held out: all of them, but of a language model those that
it was evaluated on. `api/evaluate.py` takes them of any model and any data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clearhead.generate import GenerationSettings, generate_ids
from clearhead.model.modes import without_dropout
from clearhead.text import Tokenizer
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.evaluate import (
    Score,
    accuracy,
    bits_per_byte,
    bleu,
    chrf,
    correlation,
    entity_f1,
    exact_match,
    f1,
    micro_f1,
    perplexity,
    rouge,
)
from clearhead.train.feed import once
from clearhead.train.loop import mean_loss
from clearhead.train.loss import total_loss
from clearhead.train.objectives.causal import CausalLanguageModel
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.common import Objective, Vocabulary
from clearhead.train.objectives.masked import MaskedLanguageModel
from clearhead.train.objectives.translation import SequenceToSequence
from clearhead.train.precision import Chosen

if TYPE_CHECKING:
    from clearhead.api.training import Run


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured: a model, and how it is read."""

    model: Any
    """A Transformer or a recurrent model: called on a batch's inputs, it gives logits."""
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    objective: Objective
    device: torch.device
    precision: Chosen


def scores(run: Run, *, beams: int = 5, most: int | None = None) -> list[Score]:
    """A run's measures over its held-out rows (or the first `most` batches of them); nothing where there are none.

    Raises MissingDependencyError where a measure's library is not installed.
    """
    recipe, held_out = run.recipe, run.batches.held_out
    if not len(held_out):
        return []
    subject = Subject(
        model=run.built.model,
        tokenizer=run.built.tokenizer,
        vocabulary=run.built.vocabulary,
        objective=recipe.objective,
        device=run.trainer.device,
        precision=run.trainer.precision,
    )
    if isinstance(recipe.objective, CausalLanguageModel):
        return measures(subject, run.batches.validation)
    rows = once(held_out, recipe.objective, run.built.vocabulary, batch=max(recipe.batch, 32), most=most)
    return measures(subject, rows, beams=beams)


def measures(subject: Subject, batches: Iterable[Batch], *, beams: int = 5) -> list[Score]:
    """The measures of the subject's objective over these batches; its loss where it has no other.

    Raises MissingDependencyError where a measure's library is not installed.
    """
    match subject.objective:
        case SequenceClassification():
            return _labels(subject, batches)
        case TokenClassification():
            return _tags(subject, batches)
        case SequenceToSequence():
            return texts_scores(*_written(subject, batches, beams), how=f"beam {beams}")
        case CausalLanguageModel():
            return _language(subject, list(batches))
        case MaskedLanguageModel():
            return _masked(subject, batches)
    return [Score("loss", _loss(subject, list(batches)), "nats a label")]


def _loss(subject: Subject, batches: list[Batch]) -> float:
    return mean_loss(subject.model, batches, subject.precision, subject.device)


def _outputs(subject: Subject, batches: Iterable[Batch]) -> Iterator[tuple[Batch, torch.Tensor, float]]:
    """Of each batch its logits, and the sum of its labels' losses."""
    for batch in batches:
        yield batch, *_output(subject, batch)


@torch.no_grad()
def _output(subject: Subject, batch: Batch) -> tuple[torch.Tensor, float]:
    here, model = batch.to(subject.device), subject.model
    with without_dropout(model), subject.precision(subject.device):
        output = model(**here.inputs)
    assert output.logits is not None
    return output.logits.float().cpu(), float(total_loss(output, here))


def _labels(subject: Subject, batches: Iterable[Batch]) -> list[Score]:
    said: list[Any] = []
    right: list[Any] = []
    total = 0.0
    kind = "classes"
    for batch, logits, loss in _outputs(subject, batches):
        total += loss
        if not batch.labels.is_floating_point():
            said += logits.argmax(-1).tolist()
        elif batch.labels.ndim == 1:
            kind, said = "number", said + logits.squeeze(-1).tolist()
        else:
            kind, said = "several", said + (logits > 0).tolist()
        right += (batch.labels > 0.5 if kind == "several" else batch.labels).tolist()
    loss = total / max(1, len(right))
    if kind == "number":
        return [Score("squared error", loss, "mean"), correlation(said, right)]
    if kind == "several":
        return [micro_f1(said, right), Score("loss", loss, "nats a label")]
    return [accuracy(said, right), f1(said, right), Score("loss", loss, "nats a text")]


def _tags(subject: Subject, batches: Iterable[Batch]) -> list[Score]:
    names = subject.model.config.head.labels
    said: list[list[str]] = []
    right: list[list[str]] = []
    for batch, logits, _ in _outputs(subject, batches):
        for labels, chosen in zip(batch.labels.tolist(), logits.argmax(-1).tolist(), strict=True):
            places = [place for place, label in enumerate(labels) if label != IGNORED]
            right.append([names[labels[place]] for place in places])
            said.append([names[chosen[place]] for place in places])
    words = [tag for tags in said for tag in tags], [tag for tags in right for tag in tags]
    share = accuracy(*words)
    entities = all(name == "O" or name[:2] in ("B-", "I-") for name in names)
    return [entity_f1(said, right) if entities else f1(*words), Score("accuracy", share.value, f"{share.note} words")]


def _language(subject: Subject, batches: list[Batch]) -> list[Score]:
    loss = _loss(subject, batches)
    texts = (subject.tokenizer.decode(row[row != IGNORED].tolist()) for batch in batches for row in batch.labels)
    n_bytes = sum(len(text.encode()) for text in texts)
    return [perplexity(loss), bits_per_byte(loss, sum(batch.n_labels for batch in batches), n_bytes)]


def _masked(subject: Subject, batches: Iterable[Batch]) -> list[Score]:
    total, n, hits = 0.0, 0, 0
    for batch, logits, loss in _outputs(subject, batches):
        total, n = total + loss, n + batch.n_labels
        hits += int(((logits.argmax(-1) == batch.labels) & (batch.labels != IGNORED)).sum())
    loss = total / max(1, n)
    told = f"{n:,} tokens asked about"
    return [
        Score("loss", loss, f"nats a token; {told}"),
        Score("perplexity", math.exp(min(loss, 700.0)), told),
        Score("accuracy", hits / max(1, n), f"{hits:,} of {n:,}"),
    ]


def texts_scores(said: list[str], right: list[str], how: str) -> list[Score]:
    """The measures of written texts. how: how they were written, which is told."""
    exact = exact_match(said, right)
    exact = Score(exact.name, exact.value, f"{exact.note}; {how}")
    return [bleu(said, right), chrf(said, right), *rouge(said, right), exact]


def _written(subject: Subject, batches: Iterable[Batch], beams: int) -> tuple[list[str], list[str]]:
    """What the model writes for each source, by beam search, and what it should have written."""
    model, tokenizer = subject.model, subject.tokenizer.target
    eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    said: list[str] = []
    right: list[str] = []
    for batch in batches:
        here = batch.to(subject.device)
        ids, mask = here.inputs["input_ids"], here.inputs.get("attention_mask")
        room = getattr(model.config, "context", 10**9) - 1
        settings = GenerationSettings(
            max_new_tokens=min(room, 2 * ids.shape[1] + 20),
            num_beams=beams,
            eos=eos,
            pad=subject.vocabulary.pad,
            decoder_start=subject.vocabulary.start,
        )
        found = generate_ids(model, ids, settings, attention_mask=mask)
        said += [tokenizer.decode(row) for row in found[:, 1:].tolist()]
        right += [tokenizer.decode([id for id in row if id != IGNORED]) for row in batch.labels.tolist()]
    return said, right
