"""How good is what was trained? The measure that papers report for its task, over the rows that were held out: all of
them, but of a language model those that it was evaluated on.

language modelling     perplexity, and bits per byte
sequence labels        accuracy
token labels           F1 of whole entities
translation            BLEU and chrF of what beam search writes, and how many texts are right to the letter
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from clearhead.generate import GenerationSettings, generate_ids
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import EncoderDecoder
from clearhead.train.batch import IGNORED, Batch
from clearhead.train.evaluate import Score, accuracy, bits_per_byte, bleu, chrf, entity_f1, exact_match, perplexity
from clearhead.train.feed import once
from clearhead.train.objectives.causal import CausalLanguageModel
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.translation import SequenceToSequence

if TYPE_CHECKING:
    from clearhead.api.training import Run


def scores(run: Run, *, beams: int = 5, most: int | None = None) -> list[Score]:
    """The task's measures over the held-out rows (or the first `most` batches of them); nothing where there are none.

    Raises MissingDependencyError where a measure's library is not installed.
    """
    recipe, held_out = run.recipe, run.batches.held_out
    if not len(held_out):
        return []
    batches = once(held_out, recipe.objective, run.built.vocabulary, batch=max(recipe.batch, 32), most=most)
    match recipe.objective:
        case SequenceClassification():
            return _labels(run, batches)
        case TokenClassification():
            return _tags(run, batches)
        case SequenceToSequence():
            return _translations(run, batches, beams)
        case CausalLanguageModel():
            return _language(run, run.batches.validation)
    return [Score("loss", run.evaluate(), "nats a label")]


@torch.no_grad()
def _logits(run: Run, batches: Iterable[Batch]) -> Iterator[tuple[Batch, torch.Tensor]]:
    model = run.built.model
    with without_dropout(model):
        for batch in batches:
            here = batch.to(run.trainer.device)
            with run.trainer.precision(run.trainer.device):
                logits = model(**here.inputs).logits
            assert logits is not None
            yield batch, logits.float().cpu()


def _labels(run: Run, batches: Iterable[Batch]) -> list[Score]:
    said: list[object] = []
    right: list[object] = []
    for batch, logits in _logits(run, batches):
        if batch.labels.is_floating_point():
            return [Score("loss", run.evaluate(), "nats a label")]
        said += logits.argmax(-1).tolist()
        right += batch.labels.tolist()
    return [accuracy(said, right)]


def _tags(run: Run, batches: Iterable[Batch]) -> list[Score]:
    names = run.built.model.config.head.labels  # type: ignore[union-attr]
    said, right = [], []
    for batch, logits in _logits(run, batches):
        for labels, chosen in zip(batch.labels.tolist(), logits.argmax(-1).tolist(), strict=True):
            places = [place for place, label in enumerate(labels) if label != IGNORED]
            right.append([names[labels[place]] for place in places])
            said.append([names[chosen[place]] for place in places])
    return [entity_f1(said, right)]


def _language(run: Run, batches: list[Batch]) -> list[Score]:
    loss = run.evaluate(batches)
    texts = (run.built.tokenizer.decode(row[row != IGNORED].tolist()) for batch in batches for row in batch.labels)
    n_bytes = sum(len(text.encode()) for text in texts)
    return [perplexity(loss), bits_per_byte(loss, sum(batch.n_labels for batch in batches), n_bytes)]


def _translations(run: Run, batches: Iterable[Batch], beams: int) -> list[Score]:
    model, tokenizer = run.built.model, run.built.tokenizer.target
    assert isinstance(model, EncoderDecoder)
    eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    pad = run.built.vocabulary.pad
    said: list[str] = []
    right: list[str] = []
    for batch in batches:
        here = batch.to(run.trainer.device)
        ids, mask = here.inputs["input_ids"], here.inputs.get("attention_mask")
        longest = min(model.config.context - 1, 2 * ids.shape[1] + 20)
        settings = GenerationSettings(
            max_new_tokens=longest, num_beams=beams, eos=eos, pad=pad, decoder_start=run.built.vocabulary.start
        )
        found = generate_ids(model, ids, settings, attention_mask=mask)
        said += [tokenizer.decode(row) for row in found[:, 1:].tolist()]
        right += [tokenizer.decode([id for id in row if id != IGNORED]) for row in batch.labels.tolist()]
    return [bleu(said, right), chrf(said, right), exact_match(said, right)]
