"""What a user holds: a loaded model that writes, fills in, classifies, embeds, looks and is written back.

`Loaded` is the object, `load` makes one and `export` writes it. The rooms do the work; the files beside this one glue
them to words: `write.py`, `fill.py`, `classify.py`, `embed.py`, and `texts.py`, which they share. A run is
`training.py`, by a recipe (`recipe.py`) or one that is written for you (`finetune.py`); `evaluate.py` measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from clearhead.errors import CheckpointError, ConfigError, InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from clearhead.api.classify import Aggregation, Label
    from clearhead.api.fill import Candidate
    from clearhead.checkpoint.pretrained import Pretrained
    from clearhead.checkpoint.report import Report
    from clearhead.generate.settings import GenerationSettings
    from clearhead.lens.look import Look
    from clearhead.model.config import Head, ModelConfig, Pooling
    from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder
    from clearhead.text import Tokenizer


class Loaded:
    """A model, its tokenizer and its config, as `load` gives them."""

    def __init__(self, pretrained: Pretrained) -> None:
        self.pretrained = pretrained

    def __repr__(self) -> str:
        size = self.model.n_parameters()
        return f"<{self.name}: {self.pretrained.family} {self.config.architecture}, {size:,} parameters>"

    @property
    def model(self) -> Encoder | Decoder | EncoderDecoder:
        """The module; call it on ids."""
        return self.pretrained.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises InputError where the checkpoint has none."""
        if self.pretrained.tokenizer is None:
            raise InputError(f"{self.name} was loaded without a tokenizer; call `.model` on ids instead.")
        return self.pretrained.tokenizer

    @property
    def config(self) -> ModelConfig:
        """What the model is made of."""
        return self.pretrained.config

    @property
    def name(self) -> str:
        """What it was loaded as."""
        return self.pretrained.name

    @cached_property
    def report(self) -> Report:
        """What became of every key and tensor of the checkpoint, and what it asks of its jobs that is not done."""
        from clearhead.api import classify
        from clearhead.generate import defaults
        from clearhead.model.config import LanguageModel, SequenceClassification

        report, original = self.pretrained.report, self.pretrained.original
        more: tuple[str, ...] = ()
        if isinstance(self.config.head, LanguageModel):
            more = defaults.notes(original.generation, original.config)
        elif isinstance(self.config.head, SequenceClassification):
            more = classify.notes(original.config)
        return replace(report, notes=(*report.notes, *more))

    @cached_property
    def settings(self) -> GenerationSettings:
        """What the checkpoint says about writing: lengths, beams, penalties, forbidden and forced ids, special ids.

        Sampling values (do_sample, temperature, top_k, top_p …) are not taken over: writing is greedy, or a beam search
        where the checkpoint says so, until you ask for a temperature. `report.notes` names what was left out. Raises
        CheckpointError for a value that cannot be.
        """
        from clearhead.generate.defaults import read

        settings = read(self.pretrained.original.generation, self.pretrained.original.config)
        try:
            settings.check_ids(self.config.target_vocab_size)
        except ConfigError as error:
            raise CheckpointError(f"what {self.name} says of generation: {error}") from None
        return settings

    def look(self, text: str, target: str | None = None, **how: Any) -> Look:
        """What every head reads in this text. how: what else `clearhead.look` takes, by name."""
        from clearhead.lens.look import look

        return look(self, text, target, **how)

    @overload
    def generate(self, prompt: str, settings: GenerationSettings | None = None, **changes: Any) -> str: ...
    @overload
    def generate(
        self, prompt: Sequence[str], settings: GenerationSettings | None = None, **changes: Any
    ) -> list[str]: ...
    def generate(
        self,
        prompt: str | Sequence[str],
        settings: GenerationSettings | None = None,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
        **changes: Any,
    ) -> str | list[str]:
        """The text that follows the prompt, without the prompt itself; of several prompts a list, written together.

        Of an encoder-decoder the prompt is the source, and nothing is put before it: where a checkpoint was trained
        with a phrase for each task ("translate English to German: "), write it yourself; `report.notes` has those that
        its files name. settings: how to write, instead of the checkpoint's own `self.settings`; changes: single ones by
        name, such as max_new_tokens=20, num_beams=4, temperature=0.8; see `clearhead.generate.GenerationSettings`.
        source_language, target_language: what a multilingual translator reads and is to write, as its tokenizer names
        them ("fra_Latn", "fr"; `tokenizer.languages` has them all). Where a call names none, its files decide.

        Raises InputError for a model that does not write, TokenizerError for a language that it does not have,
        ContextError where prompt and new tokens do not fit, ConfigError for a setting that is none or out of its range.
        """
        from clearhead.api.texts import check_list
        from clearhead.api.write import Languages, settings_of, stream, write

        languages = Languages(source_language, target_language)
        if isinstance(prompt, str):
            return "".join(stream(self, prompt, settings_of(self, settings, languages, changes), languages))
        check_list(prompt)
        if not prompt:
            return []
        return write(self, prompt, settings_of(self, settings, languages, changes), languages)

    def stream(
        self,
        prompt: str,
        settings: GenerationSettings | None = None,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
        **changes: Any,
    ) -> Iterator[str]:
        """`generate`, piece by piece, as each is written; of a beam search all at its end. It raises at the call."""
        from clearhead.api.write import Languages, settings_of, stream

        languages = Languages(source_language, target_language)
        return stream(self, prompt, settings_of(self, settings, languages, changes), languages)

    def fill(self, text: str, *, top_k: int = 5) -> list[Candidate]:
        """What fits where the text has the tokenizer's mask token: candidates, the likeliest first, gap by gap.

        Raises InputError for a model that is no masked language model, and for a text without a gap.
        """
        from clearhead.api.fill import fill

        return fill(self, text, top_k)

    def classify(self, text: str, pair: str | None = None, *, aggregation: Aggregation = "none") -> list[Label]:
        """The labels of a text (or of two that are read as one), likeliest first; or, of a token classifier, those of
        its tokens, in order, without tokens that are outside of everything (label O).

        Probabilities are a softmax over the labels; a sigmoid each where there is one label, or where the config says
        that they do not exclude each other (problem_type). A cross-encoder whose config names Identity gives its bare
        score. aggregation: "simple" joins neighbouring tokens of one kind.
        Raises InputError for a model that gives no labels.
        """
        from clearhead.api.classify import classify

        return classify(self, text, pair, aggregation)

    def embed(
        self, texts: str | Sequence[str], *, pooling: Pooling | None = None, normalise: bool | None = None
    ) -> Float[Tensor, "B C"]:
        """One vector for each text, pooled and normalised as the checkpoint says, or as you do.

        Raises InputError for an empty text, and for a model whose files do not say how, where you do not either.
        """
        from clearhead.api.embed import embed

        return embed(self, texts, pooling, normalise)


def load(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    head: Head | str | None = None,
    pickle: bool = False,
) -> Loaded:
    """A model by its folder or file, its hub id, or its embedded name (`minilm`, `dates`): ready to run, in eval mode.

    dtype: what the weights are held in; None keeps the file's. head: another head than the checkpoint's, or a class of
    its family ("BertModel"); what the file lacks of it is drawn anew, and the report says so. pickle: whether old
    PyTorch files may be read, which are pickles, with `weights_only=True`. Raises UnknownModelError for a name that is
    none of these, CheckpointError (or one of its kin) for a checkpoint that cannot be trusted or is not accounted for.
    """
    from clearhead.checkpoint.pretrained import load as read

    return Loaded(read(name_or_path, dtype=dtype, device=device, revision=revision, head=head, pickle=pickle))


def export(lm: Loaded, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a Hugging Face folder: config.json, model.safetensors, tokenizer files. All of it or nothing.

    Raises CheckpointError for a folder that cannot be written, or that holds what no export wrote.
    """
    from clearhead.checkpoint.pretrained import export as write

    if not isinstance(lm, Loaded):
        raise InputError(
            f"lm is of type {type(lm).__name__}; give what clearhead.load gives, or take clearhead.checkpoint.export, "
            "which writes a bare model."
        )
    return write(lm.pretrained, folder, overwrite=overwrite)
