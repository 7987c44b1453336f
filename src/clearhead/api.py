"""What a user holds: a loaded model that completes, embeds, looks and is written back. The rooms do the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clearhead.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from clearhead.checkpoint.pretrained import Pretrained
    from clearhead.checkpoint.report import Report
    from clearhead.lens.look import Look
    from clearhead.model.config import ModelConfig
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

    @property
    def report(self) -> Report:
        """What became of every key and tensor of the checkpoint."""
        return self.pretrained.report

    def look(self, text: str, target: str | None = None) -> Look:
        """What every head reads in this text; see `clearhead.look`."""
        from clearhead.lens.look import look

        return look(self, text, target)

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 50,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The text that follows the prompt (the prompt itself is not repeated). temperature 0 is greedy.

        Raises InputError for a model that does not write, ContextError where prompt and new tokens do not fit.
        """
        pieces = self.stream(
            prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        return "".join(pieces)

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 50,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """`generate`, piece by piece, as each is written."""
        import torch

        from clearhead.generate.decode import stream_ids

        ids = self._prompt_ids(prompt)
        new = stream_ids(
            self.model,
            torch.tensor([ids], device=self.model.device),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        text = self.tokenizer.decode_stream(before=ids if self.config.encoder is None else [])
        for step in new:
            if int(step[0]) in self.config.tokens.eos:
                break
            piece = text.push(int(step[0]))
            if piece:
                yield piece
        rest = text.finish()
        if rest:
            yield rest

    def _prompt_ids(self, prompt: str) -> list[int]:
        from clearhead.model.config import LanguageModel

        if not isinstance(self.config.head, LanguageModel):
            raise InputError(f"{self.name} does not write text; it is an {self.config.architecture} without that head.")
        ids = self.tokenizer.encode(prompt).ids if prompt else []
        if self.config.encoder is None and ids and ids[-1] in self.config.tokens.eos:
            ids = ids[:-1]  # a tokenizer that closes every text would close the prompt
        if not ids:
            raise InputError("the prompt is empty; give at least one word.")
        return ids

    def embed(self, texts: str | Sequence[str]) -> Float[Tensor, "B C"]:
        """One vector for each text, pooled and normalised as the checkpoint says.

        Raises InputError for an empty text or a model that embeds no sentences.
        """
        import torch

        from clearhead.model.config import SentenceEmbedding
        from clearhead.model.modes import without_dropout
        from clearhead.model.transformer import Encoder, check_fits

        if not isinstance(self.config.head, SentenceEmbedding) or not isinstance(self.model, Encoder):
            raise InputError(f"{self.name} is no sentence embedder; load one, e.g. clearhead.load('minilm').")
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError("embed needs at least one text, and none of them empty.")
        encodings = [self.tokenizer.encode(text) for text in texts]
        length = max(len(encoding.ids) for encoding in encodings)
        check_fits(self.config, length)
        pad = self.config.tokens.pad or 0
        ids = torch.full((len(texts), length), pad, device=self.model.device)
        real = torch.zeros(len(texts), length, dtype=torch.bool, device=self.model.device)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
            real[row, : len(encoding.ids)] = True
        with torch.inference_mode(), without_dropout(self.model):
            vectors = self.model(ids, attention_mask=real).embedding
        assert vectors is not None
        return vectors


def load(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> Loaded:
    """A model by its folder, its hub id, or its embedded name (`minilm`, `alice`): ready to run, in eval mode.

    dtype: what the weights are held in; None keeps the file's. Raises UnknownModelError for a name that is none of
    the three, CheckpointError (or one of its kin) for a checkpoint that cannot be trusted or is not accounted for.
    """
    from clearhead.checkpoint.pretrained import load as read

    return Loaded(read(str(name_or_path), dtype=dtype, device=device, revision=revision))


def export(lm: Loaded, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a Hugging Face folder: config.json, model.safetensors, tokenizer files. All of it or nothing."""
    from clearhead.checkpoint.pretrained import export as write

    return write(lm.pretrained, Path(folder), overwrite=overwrite)
