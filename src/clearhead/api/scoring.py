"""How good is it? The measures that papers report for a task, of a model on batches of rows.

causal language model      perplexity, and bits per byte
masked language model      loss, perplexity and accuracy at the places that were asked about
sequence classification    accuracy and F1; of a number to predict, the squared error and Pearson's r
token classification       F1 of whole entities (of words, where tags are no B- and I-), and accuracy of words
sequence to sequence       BLEU, chrF and ROUGE of what is written, and how many texts are right to the letter; loss,
                           perplexity and bits per byte of what should have been (teacher forced)

Texts are compared with what the data's files say, and bytes are the files', whatever a tokenizer makes of them.
`scores` takes them of a training run, over the rows that were held out: all of them, but of a language model those that
it was evaluated on. `api/evaluate.py` takes them of any model and any data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Shaped

from clearhead.generate import GenerationSettings, generate_ids
from clearhead.model.modes import without_dropout
from clearhead.text import Tokenizer
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.data.as_given import AsGiven
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
    teacher_forced,
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
    from clearhead.api.feeding import Batches
    from clearhead.api.recipe import Recipe
    from clearhead.api.training import Run


_BLOCK = 1 << 22
"""Tokens that are looked at together."""


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


def scores(run: Run) -> list[Score]:
    """A run's measures over its held-out rows; nothing where there are none.

    Raises MissingDependencyError where a measure's library is not installed, TrainingError where a text's files are no
    longer what they were.
    """
    if not len(run.batches.held_out):
        return []
    subject = Subject(
        model=run.built.model,
        tokenizer=run.built.tokenizer,
        vocabulary=run.built.vocabulary,
        objective=run.recipe.objective,
        device=run.trainer.device,
        precision=run.trainer.precision,
    )
    return measures(subject, held_out(run.recipe, run.batches, subject.vocabulary), given=run.batches.given)


def held_out(recipe: Recipe, data: Batches, vocabulary: Vocabulary) -> Iterable[Batch]:
    """What a run is measured on: all rows that were held out, of a language model those that it was evaluated on."""
    if isinstance(recipe.objective, CausalLanguageModel):
        return data.validation
    return once(data.held_out, recipe.objective, vocabulary, batch=max(recipe.batch, 32))


def measures(
    subject: Subject, batches: Iterable[Batch], *, beams: int = 5, given: AsGiven | None = None
) -> list[Score]:
    """The measures of the subject's objective over these batches; its loss where it has no other. given: what their
    rows are in the data's files, for the objectives that are measured by texts.

    Raises MissingDependencyError where a measure's library is not installed; what `given` raises.
    """
    match subject.objective:
        case SequenceClassification():
            return _labels(subject, batches)
        case TokenClassification():
            return _tags(subject, batches)
        case SequenceToSequence():
            assert given is not None
            return _translated(subject, list(batches), beams, given)
        case CausalLanguageModel():
            assert given is not None
            return _language(subject, list(batches), given)
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


def _language(subject: Subject, batches: list[Batch], given: AsGiven) -> list[Score]:
    """A row is a stretch of documents, so its bytes are those of its tokens. Where the tokens are not quite the text,
    each of their bytes stands for as many of the file's as it does in these documents as a whole."""
    loss = _loss(subject, batches)
    labels = np.concatenate([batch.labels[batch.labels != IGNORED].numpy() for batch in batches])
    documents = given.documents([row for batch in batches for row in batch.rows])
    own = _TokenBytes(subject.tokenizer, subject.vocabulary)
    ids = given.cache.columns["ids"]
    spelled = sum(own.of(ids.numbers[ids.offsets[one] : ids.offsets[one + 1]]) for one in documents)
    n_bytes = round(own.of(labels) * sum(given.n_bytes(documents).values()) / max(1, spelled))
    return [perplexity(loss), bits_per_byte(loss, len(labels), max(1, n_bytes))]


class _TokenBytes:
    """How many bytes tokens stand for; special ones for none."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self._tokenizer, self._special = tokenizer, vocabulary.special
        self._known: dict[int, int] = {}

    def of(self, ids: Shaped[np.ndarray, " n"]) -> int:
        """All of these together. They may be mapped from a file of any size."""
        counts: Counter[int] = Counter()
        for begin in range(0, len(ids), _BLOCK):
            which, times = np.unique(ids[begin : begin + _BLOCK], return_counts=True)
            counts.update(dict(zip(which.tolist(), times.tolist(), strict=True)))
        return sum(self._one(id) * times for id, times in counts.items())

    def _one(self, id: int) -> int:
        if id not in self._known:
            self._known[id] = 0 if id in self._special else len(self._tokenizer.bytes_of(id))
        return self._known[id]


def _masked(subject: Subject, batches: Iterable[Batch]) -> list[Score]:
    total, n, hits = 0.0, 0, 0
    for batch, logits, loss in _outputs(subject, batches):
        total, n = total + loss, n + batch.n_labels
        hits += int(((logits.argmax(-1) == batch.labels) & (batch.labels != IGNORED)).sum())
    loss = total / max(1, n)
    told = f"{n:,} tokens asked about"
    return [
        Score("loss", loss, f"nats a token; {told}"),
        Score("perplexity", perplexity(loss).value, told),
        Score("accuracy", hits / max(1, n), f"{hits:,} of {n:,}"),
    ]


def texts_scores(said: list[str], right: list[str], how: str) -> list[Score]:
    """The measures of written texts. how: how they were written, which is told."""
    exact = exact_match(said, right)
    exact = Score(exact.name, exact.value, f"{exact.note}; {how}")
    return [bleu(said, right), chrf(said, right), *rouge(said, right), exact]


def _translated(subject: Subject, batches: list[Batch], beams: int, given: AsGiven) -> list[Score]:
    """What the model writes for each source, by beam search, against what the file says; and what that costs to say."""
    numbers = [given.rows.documents(row)[0] for batch in batches for row in batch.rows]  # a row is a pair
    right = given.last_texts(set(numbers))
    said = [text for batch in batches for text in _written(subject, batch, beams)]
    found = texts_scores(said, [right[number] for number in numbers], how=f"beam {beams}")
    n_tokens = sum(batch.n_labels for batch in batches)
    longest = getattr(given.encoder, "longest", None)
    may_be_cut = longest is not None and any(batch.labels.shape[1] >= longest for batch in batches)
    n_bytes = None if may_be_cut else sum(len(right[number].encode()) for number in numbers)
    return [*found, *teacher_forced(_loss(subject, batches) * n_tokens, n_tokens, n_bytes)]


def _written(subject: Subject, batch: Batch, beams: int) -> list[str]:
    model, tokenizer = subject.model, subject.tokenizer.target
    here = batch.to(subject.device)
    ids, mask = here.inputs["input_ids"], here.inputs.get("attention_mask")
    settings = GenerationSettings(
        max_new_tokens=min(getattr(model.config, "context", 10**9) - 1, 2 * ids.shape[1] + 20),
        num_beams=beams,
        eos=() if tokenizer.eos_id is None else (tokenizer.eos_id,),
        pad=subject.vocabulary.pad,
        decoder_start=subject.vocabulary.start,
    )
    found = generate_ids(model, ids, settings, attention_mask=mask)
    return [tokenizer.decode(row) for row in found[:, 1:].tolist()]
