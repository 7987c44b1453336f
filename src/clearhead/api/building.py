"""From a recipe to what is trained: the tokenizer and the model. Everything is decided by the recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from clearhead.api import sources
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
from clearhead.api.recipe import (
    RecurrentTranslator as TranslatorShape,
)
from clearhead.checkpoint.finding import find
from clearhead.checkpoint.planned import examine
from clearhead.checkpoint.pretrained import Pretrained
from clearhead.checkpoint.pretrained import load as load_pretrained
from clearhead.errors import ConfigError
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
from clearhead.model.recurrent_translator import RecurrentTranslator, RecurrentTranslatorConfig
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder, build
from clearhead.text.tokenizer import Tokenizer
from clearhead.train.data.encoders import Labelled, Scored, Tagged
from clearhead.train.data.tables import Dataset
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.common import Vocabulary
from clearhead.train.objectives.masked import MaskedLanguageModel

CONTEXT = 512
"""Positions of a new model where neither the recipe nor the packing says."""


@dataclass
class Built:
    """What a recipe describes. pretrained: a model that can be written as a folder; None for recurrent ones."""

    model: Encoder | Decoder | EncoderDecoder | RecurrentLanguageModel | RecurrentTranslator
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
    if isinstance(recipe.model, Recurrent | TranslatorShape):
        return _recurrent(recipe.model, tokenizer, start)
    config = _config(recipe, tokenizer, start)
    config = _pooled(replace(config, head=_head(recipe, config) or config.head))
    transformer = build(config)
    pretrained = Pretrained(transformer, tokenizer, config, name="model")
    return Built(transformer, tokenizer, Vocabulary.of(tokenizer, start=start), pretrained)


def _recurrent(shape: Recurrent | TranslatorShape, tokenizer: Tokenizer, start: int | None) -> Built:
    """What the Transformer replaced; it has no Hugging Face layout, so it is not written as a folder."""
    size = {name: getattr(shape, name) for name in ("cell", "n_layers", "d_model", "dropout")}
    if isinstance(shape, Recurrent):
        model = RecurrentLanguageModel(RecurrentConfig(vocab_size=tokenizer.vocab_size, **size))
        return Built(model, tokenizer, Vocabulary.of(tokenizer), None)
    config = RecurrentTranslatorConfig(
        vocab_size=tokenizer.vocab_size, reads=shape.reads, tokens=_special(tokenizer, start), **size
    )
    return Built(RecurrentTranslator(config), tokenizer, Vocabulary.of(tokenizer, start=start), None)


def _special(tokenizer: Tokenizer, decoder_start: int | None) -> SpecialTokens:
    eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    return SpecialTokens(pad=tokenizer.pad_id, bos=tokenizer.bos_id, eos=eos, decoder_start=decoder_start)


def _from_checkpoint(choice: Checkpoint, recipe: Recipe) -> Built:
    known = examine(choice.name)
    if known.planned is None:
        assert known.refused is not None
        raise known.refused
    pretrained = load_pretrained(choice.name, head=_head(recipe, known.planned.config))
    pretrained.config = pretrained.model.config = _pooled(pretrained.config)
    if pretrained.config.pooler is None:
        pretrained.model.pooler = None
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
        case MaskedLanguageModel(), _:
            return None if isinstance(recipe.model, Checkpoint) else MaskedHead()
    return None


def _pooled(config: ModelConfig) -> ModelConfig:
    """The config without a pooler that no head reads: it would never be trained, and ddp does not stand that."""
    read = isinstance(config.head, SequenceHead) and config.head.pooling == "pooler"
    return config if read else replace(config, pooler=None)


def _tokenizer(choice: NewTokenizer | KnownTokenizer, data: Data) -> Tokenizer:
    if isinstance(choice, KnownTokenizer):
        folder = Path(choice.name).expanduser()
        if folder.exists():
            return Tokenizer.load(folder)
        found = find(choice.name).tokenizer()
        if found is None:
            raise ConfigError(f"{choice.name} has no tokenizer.")
        return found
    if data.streaming is not None and isinstance(data.source, Dataset) and not data.source.files():
        raise ConfigError(
            "a tokenizer is learned from all of the data, and data.stream stores none of it; learn one from a part of "
            "it first, and give tokenizer.kind = 'known-tokenizer' with its name."
        )
    return Tokenizer.train(
        sources.texts(data.source, data.encoder),
        kind=choice.learn,
        vocab_size=choice.vocab_size,
        special_tokens=choice.special or None,
    )


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
    return replace(config, tokens=_special(tokenizer, start if config.architecture == "encoder-decoder" else None))


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
