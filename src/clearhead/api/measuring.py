"""Measuring a loaded model: a text by its windows, what is written by its references, labels and gaps by counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch

from clearhead.api import Loaded, sources
from clearhead.api.perplexity import check_stride, frame, measure
from clearhead.api.recipe import Data
from clearhead.api.scoring import Subject, measures, texts_scores
from clearhead.api.sources import Task
from clearhead.api.write import Languages, settings_of
from clearhead.errors import ClearheadError, ContextError, InputError
from clearhead.generate.settings import settled
from clearhead.lens.counting import counted
from clearhead.model.transformer import Decoder
from clearhead.text import Tokenizer
from clearhead.train.batch import Batch
from clearhead.train.data.cache import dtype_of
from clearhead.train.data.encoders import Encoder, Translation, text_of
from clearhead.train.data.rows import Found, Source
from clearhead.train.evaluate import Score, teacher_forced
from clearhead.train.loop import mean_loss
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.common import Chance, Objective, Row, Vocabulary
from clearhead.train.objectives.masked import MaskedLanguageModel
from clearhead.train.objectives.translation import SequenceToSequence
from clearhead.train.precision import Chosen

TOGETHER = 32
"""Rows that are read at once."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What was measured. `found["perplexity"]` is a figure; `scores` has them all, each with how it was taken.

    read: what of the data, in words, and how the context was used; facts: the same as numbers. notes: what a reader
    should know before quoting a figure.
    """

    model: str
    task: str
    scores: tuple[Score, ...]
    read: str
    facts: Mapping[str, int | float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float:
        for score in self.scores:
            if score.name == name:
                return score.value
        names = [score.name for score in self.scores]
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
        raise InputError(f"{name!r} was not measured; {hint}")

    def __str__(self) -> str:
        return "\n".join([*map(str, self.scores), self.read, *(f"note: {note}" for note in self.notes)])


def causal(lm: Loaded, data: Data, stride: int | None, context: int | None) -> Evaluated:
    """A text's perplexity and bits per byte, by strided windows (`perplexity.py`)."""
    most = lm.config.context
    if context is not None and not 2 <= context <= most:
        raise InputError(f"context={context} should be 2 or more, and at most the {most} tokens that {lm.name} reads.")
    width = context if context is not None else min(most, 4096)
    step = check_stride(stride, width)
    assert isinstance(lm.model, Decoder)
    column = getattr(data.encoder, "column", "text")
    scores, n = measure(lm.model, lm.tokenizer, sources.rows(data.source), column=column, context=width, stride=step)
    read = (
        f"{n.bytes:,} bytes, {n.tokens:,} tokens of {counted(n.documents, 'document')}, in "
        f"{counted(n.windows, 'window')} of {width:,} tokens, a new one every {step:,}: each token is scored once, "
        f"with {width - step:,} or more before it where its document has them"
    )
    notes = []
    if n.short:
        notes.append(f"{counted(n.short, 'document')} of fewer than two tokens left out")
    if n.unknown:
        notes.append(f"{n.unknown:,} tokens are unknown to the tokenizer: they are easier to say than the text is")
    if n.lossy:
        notes.append(
            f"the tokenizer does not give back {n.lossy:,} of {counted(n.documents, 'document')} to the letter; bits "
            "per byte are of the text as it was"
        )
    facts = {
        "documents": n.documents,
        "bytes": n.bytes,
        "tokens": n.tokens,
        "windows": n.windows,
        "context": width,
        "stride": step,
        "unknown": n.unknown,
    }
    return Evaluated(
        model=lm.name, task="causal-language-model", scores=tuple(scores), read=read, facts=facts, notes=tuple(notes)
    )


def written(lm: Loaded, data: Data, num_beams: int | None) -> Evaluated:
    """What the model writes for each source, by its own settings, against the targets as they stand in the data; and
    what these cost to say, teacher forced."""
    encoder = data.encoder
    assert isinstance(encoder, Translation)
    heard, right = [], []
    most = lm.config.context if any(stack.bounded for stack in lm.config.stacks) else None
    for found in sources.rows(data.source):
        with _placed(found):
            source, target = encoder.texts(found.row)
            if most is not None and (size := len(lm.tokenizer.encode_ids(source))) > most:
                raise ContextError(
                    f"the source has {size:,} tokens, and {lm.name} reads {most:,}; shorten it, or leave it out."
                )
        heard.append(source)
        right.append(target)
    changes: dict[str, Any] = {} if num_beams is None else {"num_beams": num_beams}
    own = settled(lm.settings, changes)
    order = sorted(range(len(heard)), key=lambda n: len(heard[n]))
    said = [""] * len(heard)
    for begin in range(0, len(order), TOGETHER):
        part = order[begin : begin + TOGETHER]
        if own.max_new_tokens is None and own.max_length is None:
            longest = max(len(lm.tokenizer.encode(heard[n])) for n in part)
            changes["max_new_tokens"] = min(lm.config.context - 1, 2 * longest + 20)
        texts = lm.generate(
            [heard[n] for n in part],
            source_language=encoder.source_language,
            target_language=encoder.target_language,
            **changes,
        )
        for n, text in zip(part, texts, strict=True):
            said[n] = text
    how = f"beam {own.num_beams}" if own.num_beams > 1 else "greedy"
    costs, notes = _costs(lm, data.source, encoder, sum(len(text.encode()) for text in right))
    return Evaluated(
        model=lm.name,
        task="sequence-to-sequence",
        scores=(*texts_scores(said, right, how), *costs),
        read=f"{counted(len(heard), 'text')}, written {how}, against one reference each",
        facts={"rows": len(heard), "num_beams": own.num_beams},
        notes=tuple(notes),
    )


def _costs(lm: Loaded, source: Source, encoder: Translation, n_bytes: int) -> tuple[list[Score], list[str]]:
    """Loss, perplexity and bits per byte of the targets, of so many bytes in all; and what there is to say of it."""
    config, languages = lm.config, Languages(encoder.source_language, encoder.target_language)
    named = (settings_of(lm, None, languages, {}).decoder_start, config.tokens.decoder_start, config.tokens.bos)
    start = next(id for id in named if id is not None)  # as when it writes, which it has
    if any(stack.bounded for stack in config.stacks):
        encoder = replace(encoder, longest=min(config.context, encoder.longest or config.context))
    cut: Counter[str] = Counter()
    vocabulary = Vocabulary.of(lm.tokenizer, start=start, size=config.vocab_size)
    sizes = max(config.vocab_size, config.target_vocab_size)
    rows = sorted(
        _encoded(source, encoder, lm.tokenizer, sizes, cut), key=lambda row: -len(row["ids"]) - len(row["target"])
    )
    found = list(_batches(rows, SequenceToSequence(), vocabulary))
    n_tokens = sum(batch.n_labels for batch in found)
    nats = mean_loss(lm.model, found, Chosen(torch.float32, "as loaded"), lm.model.device) * n_tokens
    notes = [f"{number:,} {what}: the loss is of what is left of them" for what, number in cut.items()]
    return teacher_forced(nats, n_tokens, None if cut else n_bytes), notes


def batched(lm: Loaded, data: Data, task: Task) -> Evaluated:
    """Labels, tags and masked tokens: rows in batches, each read once."""
    notes: Counter[str] = Counter()
    vocabulary = Vocabulary.of(lm.tokenizer, size=lm.config.vocab_size)
    objective: Objective
    if task == "masked-language-model":
        objective = MaskedLanguageModel()
        column = getattr(data.encoder, "column", "text")
        rows = list(_cut(lm, sources.rows(data.source), column))
        how = f" in stretches of at most {lm.config.context:,} tokens; 15% of them are asked about, drawn with seed 0"
    else:
        objective = SequenceClassification() if task == "sequence-classification" else TokenClassification()
        rows, how = list(_encoded(data.source, data.encoder, lm.tokenizer, lm.config.vocab_size, notes)), ""
    if not rows:
        raise InputError("there is nothing to evaluate on: no row has a text.")
    subject = Subject(
        model=lm.model,
        tokenizer=lm.tokenizer,
        vocabulary=vocabulary,
        objective=objective,
        device=lm.model.device,
        precision=Chosen(torch.float32, "as loaded"),
    )
    order = sorted(range(len(rows)), key=lambda n: -len(rows[n]["ids"]))
    tokens = sum(len(row["ids"]) for row in rows)
    return Evaluated(
        model=lm.name,
        task=task,
        scores=tuple(measures(subject, _batches([rows[n] for n in order], objective, vocabulary))),
        read=f"{counted(len(rows), 'row')}, {tokens:,} tokens{how}",
        facts={"rows": len(rows), "tokens": tokens},
        notes=tuple(f"{number:,} {what}" for what, number in notes.items()),
    )


def _batches(rows: Sequence[Row], objective: Objective, vocabulary: Vocabulary) -> Iterator[Batch]:
    for step, begin in enumerate(range(0, len(rows), TOGETHER)):
        yield objective.batch(rows[begin : begin + TOGETHER], vocabulary, Chance(seed=0, step=step))


def _encoded(
    source: Source, encoder: Encoder, tokenizer: Tokenizer, vocab_size: int, notes: Counter[str]
) -> Iterator[Row]:
    """The rows in numbers, as a cache would hold them."""
    dtypes = {name: dtype_of(kind, vocab_size) for name, kind in encoder.fields.items()}
    for found in sources.rows(source):
        with _placed(found):
            fields = encoder.encode(found.row, tokenizer, notes, first=found.first, last=found.last)
        yield {name: np.asarray(values, dtype=dtypes[name]) for name, values in fields.items()}


def _cut(lm: Loaded, found: Iterator[Found], column: str) -> Iterator[Row]:
    """Texts in stretches that the model can read, each with the tokens that it is used to around it."""
    before, after = frame(lm.tokenizer)
    room = lm.config.context - len(before) - len(after)
    for one in found:
        with _placed(one):
            ids = lm.tokenizer.encode_ids(text_of(one.row, column), special=False)
        for begin in range(0, len(ids), room):
            yield {"ids": np.asarray([*before, *ids[begin : begin + room], *after], dtype=np.int64)}


class _placed:
    """What is wrong with a row, with the place where it is."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, ClearheadError):
            raise self._found.refused(error) from error
