"""The embedding: from ids to vectors. What a token is, plus where it stands, plus which text it belongs to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearhead.errors import InputError
from clearhead.model.config import Learned, ModelConfig, Sinusoidal, StackConfig
from clearhead.model.norms import Norm
from clearhead.model.positions import LearnedPositions, check_context, sinusoids


class Embedding(nn.Module):
    """E[id]·scale + position + token type, then the norm and, where the table is narrower than C, a projection.

    Where it is projected `around`, the projection comes first: W E[id]·scale + position + token type, and the norm.
    """

    def __init__(self, config: ModelConfig, stack: StackConfig, tokens: nn.Embedding | None = None) -> None:
        super().__init__()
        self.config = config.embedding
        self.context = config.context
        table, width = config.table_width, config.sum_width
        vocab_size = config.target_vocab_size if stack is config.decoder else config.vocab_size
        self.tokens = tokens if tokens is not None else nn.Embedding(vocab_size, table)
        self.types = nn.Embedding(self.config.token_types, width) if self.config.token_types else None
        learned = stack.position if isinstance(stack.position, Learned) else None
        self.positions = LearnedPositions(learned, config.context, width) if learned is not None else None
        self.sinusoidal = stack.position if isinstance(stack.position, Sinusoidal) else None
        self.norm = Norm(self.config.norm, width) if self.config.norm is not None else None
        self.around = self.config.projected == "around"
        projects = self.config.project or table != config.d_model
        self.project = nn.Linear(table, config.d_model, bias=not self.around) if projects else None

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """The first state of the residual stream.

        Raises InputError for ids outside the vocabulary and token types that the model has not, ContextError past the
        learned positions.
        """
        self.check_ids(input_ids)
        self.check_types(token_type_ids, input_ids.shape)
        x: Tensor = self.tokens(input_ids)
        if self.config.scale is not None:
            x = x * torch.tensor(self.config.scale, dtype=x.dtype, device=x.device)
        if self.project is not None and self.around:
            x = self.project(x)
        if self.types is not None:
            x = x + self.types(token_type_ids if token_type_ids is not None else torch.zeros_like(input_ids))
        if self.positions is not None:
            if positions.numel() and positions.device.type == "cpu":
                check_context(int(positions.max()), self.context)
            x = x + self.positions(positions)
        if self.sinusoidal is not None:
            x = x + sinusoids(positions, x.shape[-1], self.sinusoidal, x.dtype)
        if self.norm is not None:
            x = self.norm(x)
        if self.training and self.config.dropout:
            x = F.dropout(x, self.config.dropout)
        return x if self.project is None or self.around else self.project(x)

    def check_ids(self, input_ids: Int[Tensor, "B T"]) -> None:
        """Raise InputError unless the ids are a non-empty batch of known tokens (looked at on the CPU only)."""
        check_batch(input_ids)
        check_vocabulary(input_ids, self.tokens.num_embeddings)

    def check_types(self, token_type_ids: Int[Tensor, "B T"] | None, shape: torch.Size) -> None:
        """Raise InputError unless these are token types of the model, one for each id (looked at on the CPU only)."""
        if token_type_ids is None:
            return
        if self.types is None:
            raise InputError("this model has no token types (EmbeddingConfig.token_types=0); leave token_type_ids out.")
        check_shape("token_type_ids", token_type_ids, shape, whole=True)
        if token_type_ids.device.type != "cpu":
            return
        low, high = int(token_type_ids.min()), int(token_type_ids.max())
        if low < 0 or high >= self.types.num_embeddings:
            raise InputError(
                f"token type {low if low < 0 else high} is not one of the model's {self.types.num_embeddings}; "
                f"give 0 to {self.types.num_embeddings - 1}."
            )


def check_shape(name: str, given: Tensor | None, shape: torch.Size, *, whole: bool = False) -> None:
    """Raise InputError unless there is one value for each id; `whole`: and each is a whole number."""
    if given is None:
        return
    if not isinstance(given, Tensor):
        raise InputError(f"{name} is a {type(given).__name__}; give a tensor, one value for each id.")
    if given.shape != shape:
        raise InputError(
            f"{name} has shape {tuple(given.shape)} and the ids {tuple(shape)}; give one value for each id."
        )
    if whole and (given.is_floating_point() or given.dtype == torch.bool):
        raise InputError(f"{name} holds {given.dtype}, which are no whole numbers; give torch.long.")


def check_batch(input_ids: Tensor) -> None:
    """Raise InputError unless these are ids (whole numbers) of a batch of texts, with at least one token."""
    if not isinstance(input_ids, Tensor):
        raise InputError(f"ids are given as {type(input_ids).__name__}; give a tensor of ids, torch.tensor([[1, 2]]).")
    if input_ids.ndim != 2 or input_ids.numel() == 0:
        shape = tuple(input_ids.shape)
        raise InputError(f"ids of shape {shape} are not a batch of texts; give (batch, tokens), at least one token.")
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise InputError(f"ids are whole numbers, and these are {input_ids.dtype}; give torch.long.")


def check_vocabulary(input_ids: Int[Tensor, "B T"], vocab_size: int) -> None:
    """Raise InputError for ids outside the vocabulary; ids on an accelerator are not fetched to be looked at."""
    if input_ids.device.type != "cpu":
        return
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"id {low if low < 0 else high} is outside the vocabulary of {vocab_size}; "
            "use the tokenizer that belongs to this model."
        )
