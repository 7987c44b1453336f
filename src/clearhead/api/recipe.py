"""What a training run is made of: a recipe. Read from TOML by `train.recipe`, written beside the run.

[data]       source, encoder, packing: from files to rows of ids (`train.data`)
[tokenizer]  a new one, learned from the data; a folder's; or the checkpoint's own
[model]      a new one of a known shape, or a checkpoint to go on from
[objective]  what is learned (`train.objectives`)
[loop]       steps, optimiser, schedule, precision (`train.loop`)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clearhead.errors import ConfigError
from clearhead.text.train import Kind
from clearhead.train.adapters import Frozen, Full, LoRA
from clearhead.train.data.encoders import Chat, Labelled, Scored, Tagged, Text, Translation
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

Source = TextFiles | TextLines | JsonLines | Table | Conll | ParallelLines | Parquet | Dataset
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
class Data:
    """Where rows come from. validation: rows that are only evaluated on; without it, the last `held_out` of the data.

    by_length: rows of like length share a batch, for rows that are documents.
    """

    source: Source
    validation: Source | None = None
    encoder: RowEncoder = field(default_factory=Text)
    packing: Packing = field(default_factory=Documents)
    held_out: float = 0.1
    by_length: bool = False

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


@dataclass(frozen=True, kw_only=True)
class Bert:
    """An encoder of BERT's shape (Devlin et al. 2019)."""

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    context: int | None = None
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Vaswani:
    """The encoder-decoder of the paper (Vaswani et al. 2017), in any size."""

    n_layers: int = 3
    n_heads: int = 4
    d_model: int = 128
    d_ff: int | None = None
    context: int | None = None
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """What the Transformer replaced: `rnn`, `lstm` or `gru`."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    n_layers: int = 1
    d_model: int = 128
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained model to go on from: a folder, a hub id or an embedded name, with its own tokenizer.

    scratch: take only its shape and draw its weights anew, to see what pre-training was worth.
    """

    name: str
    scratch: bool = False


Model = GPT2 | Llama | Bert | Vaswani | Recurrent | Checkpoint


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """every: steps between looks at the validation rows (0: only at the end). batches: at most so many a look."""

    every: int = 250
    batches: int = 40


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Texts that the model goes on from while it trains, every so many steps."""

    prompts: tuple[str, ...] = ()
    every: int = 500
    max_new_tokens: int = 60


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. batch: rows of one update, over all parts and processes. parts: how many pieces a process cuts
    its share into, to need less memory; the loss does not change."""

    data: Data
    model: Model
    loop: Loop
    objective: Objective = field(default_factory=CausalLanguageModel)
    tokenizer: NewTokenizer | KnownTokenizer | None = None
    adapters: Full | Frozen | LoRA = field(default_factory=Full)
    evaluation: Evaluation = field(default_factory=Evaluation)
    samples: Samples = field(default_factory=Samples)
    batch: int = 32
    parts: int = 1
    processes: Literal["auto", "alone", "ddp", "fsdp"] = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1 or self.parts < 1:
            raise ConfigError(f"batch={self.batch} and parts={self.parts} should be 1 or more.")
        if isinstance(self.model, Checkpoint) and self.tokenizer is not None:
            raise ConfigError("a checkpoint brings its own tokenizer; leave [tokenizer] out.")
        if not isinstance(self.model, Checkpoint) and self.tokenizer is None:
            raise ConfigError("a new model needs a tokenizer; add [tokenizer] with learn = 'byte-bpe', or a name.")
