"""From a recipe to what is trained: the tokenizer, the model, and the batches. Everything is decided by the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int

from clearhead.api.recipe import (
    GPT2,
    Bert,
    Checkpoint,
    Data,
    KnownTokenizer,
    Llama,
    NewTokenizer,
    Recipe,
    Recurrent,
    Vaswani,
)
from clearhead.checkpoint.planned import examine
from clearhead.checkpoint.pretrained import Pretrained
from clearhead.checkpoint.pretrained import load as load_pretrained
from clearhead.errors import ConfigError, TrainingError
from clearhead.model import presets
from clearhead.model.config import (
    AttentionConfig,
    Head,
    LanguageModel,
    ModelConfig,
    NormalInit,
    Sinusoidal,
    SpecialTokens,
    StackConfig,
)
from clearhead.model.config import MaskedLanguageModel as MaskedHead
from clearhead.model.config import SequenceClassification as SequenceHead
from clearhead.model.config import TokenClassification as TokenHead
from clearhead.model.recurrent import RecurrentConfig, RecurrentLanguageModel
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder, build
from clearhead.text.tokenizer import Tokenizer
from clearhead.train.batch import Batch
from clearhead.train.data.encoders import Labelled, Scored, Tagged
from clearhead.train.data.order import ByLength, Drawn, Order, Shuffled
from clearhead.train.data.packing import Documents, Fields, Rows, Windows, packed
from clearhead.train.data.prepare import prepared
from clearhead.train.data.rows import Found
from clearhead.train.data.rows import Source as AnySource
from clearhead.train.distributed import Processes
from clearhead.train.feed import Feed, once
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.common import Chance, Vocabulary
from clearhead.train.objectives.masked import MaskedLanguageModel

CONTEXT = 512
"""Positions of a new model where neither the recipe nor the packing says."""


@dataclass
class Built:
    """What a recipe describes. pretrained: a model that can be written as a folder; None for recurrent ones."""

    model: Encoder | Decoder | EncoderDecoder | RecurrentLanguageModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    pretrained: Pretrained | None


def built(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Built:
    """The model and its tokenizer. tokenizer: the run's own, where it was learned before.

    Raises ConfigError for parts that do not go together; what data, tokenizers and checkpoints raise.
    """
    if isinstance(recipe.model, Checkpoint):
        return _from_checkpoint(recipe.model, recipe)
    assert recipe.tokenizer is not None
    tokenizer = tokenizer if tokenizer is not None else _tokenizer(recipe.tokenizer, recipe.data)
    start = _start(tokenizer)
    if isinstance(recipe.model, Recurrent):
        shape = recipe.model
        model = RecurrentLanguageModel(
            RecurrentConfig(
                vocab_size=tokenizer.vocab_size,
                d_model=shape.d_model,
                n_layers=shape.n_layers,
                cell=shape.cell,
                dropout=shape.dropout,
            )
        )
        return Built(model, tokenizer, Vocabulary.of(tokenizer), None)
    config = _config(recipe, tokenizer, start)
    head = _head(recipe, config)
    if head is not None:
        config = replace(config, head=head)
    transformer = build(config)
    pretrained = Pretrained(transformer, tokenizer, config, name="model")
    return Built(transformer, tokenizer, Vocabulary.of(tokenizer, start=start), pretrained)


def _from_checkpoint(choice: Checkpoint, recipe: Recipe) -> Built:
    known = examine(choice.name)
    if known.planned is None:
        assert known.refused is not None
        raise known.refused
    pretrained = load_pretrained(choice.name, head=_head(recipe, known.planned.config))
    if choice.scratch:
        pretrained.model = build(pretrained.config)
    pretrained.model.to(dtype=torch.float32)
    if pretrained.tokenizer is None:
        raise ConfigError(f"{choice.name} has no tokenizer beside it, and training begins with one.")
    start = pretrained.config.tokens.decoder_start
    vocabulary = Vocabulary.of(pretrained.tokenizer, start=start, size=pretrained.config.vocab_size)
    return Built(pretrained.model, pretrained.tokenizer, vocabulary, pretrained)


def _head(recipe: Recipe, config: ModelConfig) -> Head | None:
    """The head that the objective needs where it is not a language model's; None keeps the model's own.

    A text is read where its kind of model has seen all of it: at BERT's pooler, an encoder's first token, a decoder's
    last one, a translator's end token.
    """
    pooling: Literal["pooler", "first", "last", "eos"] = "pooler" if config.pooler is not None else "first"
    if config.architecture != "encoder":
        pooling = "last" if config.architecture == "decoder" else "eos"
    match recipe.objective, recipe.data.encoder:
        case SequenceClassification(), Labelled(labels=labels):
            return SequenceHead(labels=labels, pooling=pooling)
        case SequenceClassification(), Scored():
            return SequenceHead(labels=("score",), pooling=pooling)
        case TokenClassification(), Tagged(labels=labels):
            return TokenHead(labels=labels)
        case ((SequenceClassification() | TokenClassification()), encoder):
            raise ConfigError(
                f"data.encoder of kind {type(encoder).__name__!r} has no labels for this objective; "
                "choose 'labelled', 'scored' or 'tagged'."
            )
        case MaskedLanguageModel(), _:
            return None if isinstance(recipe.model, Checkpoint) else MaskedHead()
    return None


def _tokenizer(choice: NewTokenizer | KnownTokenizer, data: Data) -> Tokenizer:
    if isinstance(choice, KnownTokenizer):
        folder = Path(choice.name).expanduser()
        if folder.exists():
            return Tokenizer.load(folder)
        found = load_pretrained(choice.name).tokenizer
        if found is None:
            raise ConfigError(f"{choice.name} has no tokenizer.")
        return found
    texts = (text for row in _rows_of(data.source) for text in row.values() if isinstance(text, str))
    return Tokenizer.train(
        texts, kind=choice.learn, vocab_size=choice.vocab_size, special_tokens=choice.special or None
    )


def _rows_of(source: AnySource) -> Iterator[Any]:
    reader = source.open()
    for piece in reader.pieces():
        for found in reader.read(piece):
            if isinstance(found, Found):
                yield found.row


def _start(tokenizer: Tokenizer) -> int | None:
    """What a new decoder's text begins with: the padding id, as in Marian and T5, else bos or eos."""
    return next((id for id in (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) if id is not None), None)


def _config(recipe: Recipe, tokenizer: Tokenizer, start: int | None) -> ModelConfig:
    """The shape that the recipe names, with the tokenizer's ids."""
    shape, size = recipe.model, tokenizer.vocab_size
    context = getattr(shape, "context", None) or getattr(recipe.data.packing, "length", None) or CONTEXT
    match shape:
        case GPT2(n_layers=layers, n_heads=heads, d_model=width, dropout=dropout):
            config = presets.gpt2(
                n_layers=layers, n_heads=heads, d_model=width, vocab_size=size, context=context, dropout=dropout
            )
        case Llama(n_layers=layers, n_heads=heads, d_model=width, tied=tied):
            config = presets.llama(
                n_layers=layers,
                n_heads=heads,
                n_kv_heads=shape.n_kv_heads or heads,
                d_model=width,
                d_ff=shape.d_ff or 8 * -(-width // 24) * 8,
                vocab_size=size,
                context=context,
                theta=10_000.0,
                tied=tied,
            )
        case Bert(n_layers=layers, n_heads=heads, d_model=width, dropout=dropout):
            config = presets.bert(
                n_layers=layers, n_heads=heads, d_model=width, vocab_size=size, context=context, dropout=dropout
            )
        case Vaswani():
            config = _vaswani(shape, size, context)
        case _:
            raise ConfigError(f"{type(shape).__name__} is no shape of a new Transformer.")
    eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    decoder_start = start if config.architecture == "encoder-decoder" else None
    tokens = SpecialTokens(pad=tokenizer.pad_id, bos=tokenizer.bos_id, eos=eos, decoder_start=decoder_start)
    return replace(config, tokens=tokens)


def _vaswani(shape: Vaswani, vocab_size: int, context: int) -> ModelConfig:
    """The paper's model as Marian's files can hold it: biases, and all sines before all cosines."""
    config = presets.vaswani(
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        d_model=shape.d_model,
        d_ff=shape.d_ff,
        vocab_size=vocab_size,
        context=context,
        dropout=shape.dropout,
    )
    attention = AttentionConfig(n_heads=shape.n_heads)

    def held(stack: StackConfig | None) -> StackConfig:
        assert stack is not None
        cross = None if stack.cross_attention is None else attention
        return replace(stack, attention=attention, cross_attention=cross, position=Sinusoidal(layout="halves"))

    return replace(
        config,
        encoder=held(config.encoder),
        decoder=held(config.decoder),
        head=LanguageModel(tied=True, bias=True),
        init=NormalInit(std=shape.d_model**-0.5),
    )


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Stretch:
    """Some rows of others, from one number to another."""

    def __init__(self, rows: Rows, start: int, stop: int) -> None:
        self._rows, self._start, self._stop = rows, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, row: int) -> Fields:
        return self._rows[self._start + row]

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """How many ids each has."""
        return self._rows.lengths[self._start : self._stop]


@dataclass
class Batches:
    """The feed of the training rows, and the same validation batches each time."""

    feed: Feed
    validation: list[Batch]
    held_out: Rows
    n_rows: int
    fingerprint: str


def batches(recipe: Recipe, parts: Built, processes: Processes, *, quiet: bool = False) -> Batches:
    """The batches of a recipe; the data is tokenised first, where it was not before."""
    data, objective = recipe.data, recipe.objective
    cache = prepared(data.source, parts.tokenizer, data.encoder, quiet=quiet or not processes.first)
    config = parts.model.config
    cache.check_fits(config.vocab_size, config.target_vocab_size if isinstance(config, ModelConfig) else None)
    rows = packed(cache, data.packing, ahead=objective.ahead)
    if data.validation is not None:
        other = prepared(data.validation, parts.tokenizer, data.encoder, quiet=quiet or not processes.first)
        held_out = packed(other, data.packing, ahead=objective.ahead)
    else:
        rows, held_out = _divided(rows, data)
    seed = recipe.loop.seed
    feed = Feed(
        rows,
        _order(rows, recipe),
        objective,
        parts.vocabulary,
        seed=seed,
        parts=recipe.parts,
        rank=processes.rank,
        world=processes.size,
    )
    validation = _validation(held_out, recipe, parts.vocabulary)
    return Batches(feed, validation, held_out, len(rows), cache.fingerprint)


def _divided(rows: Rows, data: Data) -> tuple[Rows, Rows]:
    """The rows to learn from, and the last ones, which are held out. Windows that reach over the seam are left out."""
    cut = round(len(rows) * (1 - data.held_out))
    gap = data.packing.length if isinstance(data.packing, Windows) else 0
    if cut - gap < 1 or (data.held_out and cut == len(rows)):
        raise TrainingError(
            f"{len(rows)} rows are too few to hold {data.held_out:.0%} of them out; give more data, or held_out = 0."
        )
    return Stretch(rows, 0, cut - gap if data.held_out else cut), Stretch(rows, cut, len(rows))


def _order(rows: Rows, recipe: Recipe) -> Order:
    if recipe.data.by_length and not isinstance(recipe.data.packing, Documents):
        raise ConfigError("data.by_length is for rows that are documents; packed rows are all of one length.")
    if isinstance(recipe.data.packing, Windows):
        return Drawn(n_rows=len(rows), batch=recipe.batch, seed=recipe.loop.seed)
    if recipe.data.by_length:
        return ByLength(rows.lengths, batch=recipe.batch, seed=recipe.loop.seed)
    return Shuffled(n_rows=len(rows), batch=recipe.batch, seed=recipe.loop.seed)


def _validation(rows: Rows, recipe: Recipe, vocabulary: Vocabulary) -> list[Batch]:
    """The batches that are evaluated on: all rows once, or windows drawn once; at most `evaluation.batches`."""
    most, objective = recipe.evaluation.batches, recipe.objective
    if not len(rows) or not most:
        return []
    if isinstance(recipe.data.packing, Windows):
        order = Drawn(n_rows=len(rows), batch=recipe.batch, seed=recipe.loop.seed + 1)
        return [
            objective.batch([rows[int(n)] for n in order.rows(step)], vocabulary, Chance(seed=0, step=step))
            for step in range(most)
        ]
    return list(once(rows, objective, vocabulary, batch=recipe.batch, most=most))
