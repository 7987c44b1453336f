"""What a training run is made of: a recipe. Read from TOML by `train.recipe`, written beside the run.

[data]       source, encoder, packing: from files to rows of ids (`train.data`)
[tokenizer]  a new one, learned from the data; a folder's; or the checkpoint's own
[model]      a new one of a known shape, or a checkpoint to go on from
[objective]  what is learned (`train.objectives`)
[loop]       steps, optimiser, schedule, precision (`train.loop`)
tracker      where its figures are shown, too: "tensorboard" or "wandb" (`train.trackers`)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from clearhead.errors import ConfigError
from clearhead.model.config import AttentionConfig
from clearhead.model.config.checks import brief, check_counts, check_dropout
from clearhead.text.train import Kind
from clearhead.train.adapters import Frozen, Full, LoRA
from clearhead.train.data.dates import Dates
from clearhead.train.data.encoders import Chat, Labelled, Scored, Tagged, Text, Translation
from clearhead.train.data.handbook import Handbook
from clearhead.train.data.packing import Blocks, Documents, Fitted, Windows
from clearhead.train.data.readers import Conll, JsonLines, ParallelLines, Table, TextFiles, TextLines
from clearhead.train.data.tables import Dataset, Parquet
from clearhead.train.loop import Loop
from clearhead.train.objectives.causal import CausalLanguageModel
from clearhead.train.objectives.classification import SequenceClassification, TokenClassification
from clearhead.train.objectives.infilling import TextInfilling
from clearhead.train.objectives.masked import MaskedLanguageModel
from clearhead.train.objectives.spans import SpanCorruption
from clearhead.train.objectives.translation import SequenceToSequence
from clearhead.train.optimiser import AdamW, Muon, usual
from clearhead.train.trackers import TensorBoard, Wandb

Source = TextFiles | TextLines | JsonLines | Table | Conll | ParallelLines | Parquet | Dataset | Dates | Handbook
RowEncoder = Text | Translation | Labelled | Scored | Tagged | Chat
Packing = Documents | Blocks | Fitted | Windows
Objective = (
    CausalLanguageModel
    | MaskedLanguageModel
    | SpanCorruption
    | TextInfilling
    | SequenceToSequence
    | SequenceClassification
    | TokenClassification
)


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """How a stream is read. shuffle: how many rows wait to be drawn from; 0 keeps the order of the data."""

    shuffle: int = 1000

    def __post_init__(self) -> None:
        if self.shuffle < 0:
            raise ConfigError(f"shuffle={self.shuffle} should be a number of rows, 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where rows come from. validation: rows that are only evaluated on; without it, the last `held_out` of the data.

    by_length: rows of like length share a batch, for rows that are documents. stream: read and tokenise the data as it
    comes and store nothing, for what is too large to keep; true, or how (`{ shuffle = 1000 }`).
    """

    source: Source
    validation: Source | None = None
    encoder: RowEncoder = field(default_factory=Text)
    packing: Packing = field(default_factory=Documents)
    held_out: float = 0.1
    by_length: bool = False
    stream: bool | Streaming = False

    @property
    def streaming(self) -> Streaming | None:
        """How the data is streamed; None where it is tokenised once and kept."""
        if isinstance(self.stream, bool):
            return Streaming() if self.stream else None
        return self.stream

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"data.held_out={self.held_out} should be a share, 0 or more and below 1.")


# ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class NewTokenizer:
    """Learn one from the training data. special: `["<pad>", "<eos>"]`, or none."""

    learn: Kind = "byte-bpe"
    vocab_size: int | None = None
    special: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.vocab_size is None and self.learn not in ("byte", "character"):
            raise ConfigError(
                f"vocab_size is missing: a {self.learn} tokenizer learns as many tokens as it is told, such as 8000."
            )
        check_counts(self, "vocab_size", at_most=2**31 - 1)
        for number, token in enumerate(self.special):
            if not token or token in self.special[:number]:
                what = "an empty token" if not token else f"{token!r} twice"
                raise ConfigError(f"special={list(self.special)!r} names {what}; name each once.")


@dataclass(frozen=True, kw_only=True)
class KnownTokenizer:
    """One that lies in a folder, or an embedded model's."""

    name: str


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class GPT2:
    """A decoder of GPT-2's shape (Radford et al. 2019)."""

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    context: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_shape(self)


@dataclass(frozen=True, kw_only=True)
class Llama:
    """A decoder of Llama's shape (Touvron et al. 2023). d_ff: 8/3 of the width unless given."""

    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None
    d_model: int = 128
    d_ff: int | None = None
    context: int | None = None
    tied: bool = True

    def __post_init__(self) -> None:
        _check_shape(self)
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            raise ConfigError(f"n_kv_heads={self.n_kv_heads} does not divide n_heads={self.n_heads} into equal groups.")
        if self.d_model // self.n_heads % 2:
            raise ConfigError(
                f"d_model={self.d_model} gives heads of an odd width, {self.d_model // self.n_heads}, and rotary "
                f"positions turn pairs; choose a multiple of {2 * self.n_heads}."
            )


@dataclass(frozen=True, kw_only=True)
class Bert:
    """An encoder of BERT's shape (Devlin et al. 2019)."""

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    context: int | None = None
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_shape(self)


@dataclass(frozen=True, kw_only=True)
class Vaswani:
    """The encoder-decoder of the paper (Vaswani et al. 2017), in any size."""

    n_layers: int = 3
    n_heads: int = 4
    d_model: int = 128
    d_ff: int | None = None
    context: int | None = None
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_shape(self)
        if self.d_model % 2:
            raise ConfigError(f"d_model={self.d_model} is odd, and positions are pairs of a sine and a cosine.")


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """What the Transformer replaced: `rnn`, `lstm` or `gru`."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    n_layers: int = 1
    d_model: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_shape(self)


@dataclass(frozen=True, kw_only=True)
class RecurrentTranslator:
    """A recurrent encoder-decoder. reads: what its decoder reads of the source, `summary`, its last states, or
    `attention`, all of them (`model/recurrent_translator.py`)."""

    cell: Literal["rnn", "lstm", "gru"] = "gru"
    n_layers: int = 1
    d_model: int = 256
    reads: Literal["summary", "attention"] = "attention"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_shape(self)
        if self.d_model % 2:
            raise ConfigError(f"d_model={self.d_model} is odd, and half of it reads the source in each direction.")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained model to go on from: a folder, a hub id or an embedded name, with its own tokenizer.

    scratch: take only its shape and draw its weights anew, to see what pre-training was worth.
    """

    name: str
    scratch: bool = False


def _check_shape(shape: object) -> None:
    """Raise ConfigError for a size that no model has, as the shape's own settings name it."""
    sizes = [name for name in ("n_heads", "n_kv_heads", "d_model", "d_ff") if hasattr(shape, name)]
    check_counts(shape, *sizes, at_most=2**20)
    check_counts(shape, "n_layers", at_most=256 if isinstance(shape, Recurrent | RecurrentTranslator) else 4096)
    if hasattr(shape, "context"):
        check_counts(shape, "context", at_least=2)
    if hasattr(shape, "dropout"):
        check_dropout(shape, "dropout")
    AttentionConfig(n_heads=getattr(shape, "n_heads", 1)).head_width(getattr(shape, "d_model", 1))


Model = GPT2 | Llama | Bert | Vaswani | Recurrent | RecurrentTranslator | Checkpoint


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """every: steps between looks at the validation rows (0: only at the end). batches: at most so many a look (0: there
    are no looks)."""

    every: int = 250
    batches: int = 40

    def __post_init__(self) -> None:
        check_counts(self, "every", "batches", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Texts that the model goes on from while it trains, every so many steps (0: only at the end)."""

    prompts: tuple[str, ...] = ()
    every: int = 500
    max_new_tokens: int = 60

    def __post_init__(self) -> None:
        check_counts(self, "every", at_least=0)
        check_counts(self, "max_new_tokens", at_most=2**20)
        if not all(prompt.strip() for prompt in self.prompts):
            raise ConfigError(
                f"prompts={list(self.prompts)!r} has an empty text; name what the model is to go on from."
            )


MOST_ROWS = 10**6
"""Rows of a batch: more would not fit into any memory."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. batch: rows of one update, over all parts and processes. batch_tokens: in their place, as many
    rows of like length as make at most so many tokens, padding counted; `batch` is then what is evaluated at a time.
    parts: how many pieces a process cuts its share into, to need less memory; the loss does not change."""

    data: Data
    model: Model
    loop: Loop
    objective: Objective = field(default_factory=CausalLanguageModel)
    tokenizer: NewTokenizer | KnownTokenizer | None = None
    adapters: Full | Frozen | LoRA = field(default_factory=Full)
    evaluation: Evaluation = field(default_factory=Evaluation)
    samples: Samples = field(default_factory=Samples)
    batch: int = 32
    batch_tokens: int | None = None
    parts: int = 1
    processes: Literal["auto", "alone", "ddp", "fsdp"] = "auto"
    tracker: TensorBoard | Wandb | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "parts"):
            if not 1 <= getattr(self, name) <= MOST_ROWS:
                raise ConfigError(
                    f"{name}={brief(getattr(self, name))} should be 1 or more (and {MOST_ROWS:,} at most)."
                )
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens={self.batch_tokens} should be a number of tokens, 1 or more.")
        if isinstance(self.model, Checkpoint) and self.tokenizer is not None:
            raise ConfigError("a checkpoint brings its own tokenizer; leave [tokenizer] out.")
        if not isinstance(self.model, Checkpoint) and self.tokenizer is None:
            raise ConfigError("a new model needs a tokenizer; add [tokenizer] with learn = 'byte-bpe', or a name.")
        if self.loop.optimiser is None:
            object.__setattr__(self, "loop", replace(self.loop, optimiser=self._usual()))

    def _usual(self) -> AdamW | Muon:
        """Where nothing is said: Muon for new weights; trained ones are gone on from gently, and few new ones fast."""
        if not isinstance(self.model, Checkpoint) or self.model.scratch:
            return usual(getattr(self.model, "d_model", 384))
        return AdamW(rate=1e-4 if isinstance(self.adapters, Full) else 1e-3, betas=(0.9, 0.999), weight_decay=0.01)
