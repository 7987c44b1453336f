"""The loss: how surprised the model is by what it should have said.

Always a sum over labels and their number, never a mean: means of unequal parts do not add up, sums do. So a step's loss
is the same whether its rows come in one batch, in several that are accumulated, or from several processes.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clearhead.errors import InputError
from clearhead.model.transformer import Output
from clearhead.train.batch import IGNORED, Batch


def total_loss(output: Output, batch: Batch, *, smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Σ over labels of −log p(label), in nats; divide by `batch.n_labels` (of all parts of a step) for the mean.

    logits (B, T, V) or (B, L) against labels of the same leading shape. Float labels are probabilities of classes that
    do not exclude one another (a sigmoid each, averaged over classes), or, with one output, the number itself
    (squared error). smoothing ε: a share ε of each target is spread over all classes (Szegedy et al. 2016, §7).
    Raises InputError where logits and labels do not fit.
    """
    logits, labels = output.logits, batch.labels
    if logits is None:
        raise InputError("this model has no head, so there is nothing to learn from; choose a model with one.")
    if labels.is_floating_point():
        return _numbers(logits, labels)
    if logits.shape[:-1] != labels.shape:
        raise InputError(f"logits are {tuple(logits.shape)}, labels {tuple(labels.shape)}; they should be aligned.")
    logits, flat = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    learned = flat != IGNORED
    if not bool(learned.all()):  # what nothing is learned from is not widened to float32
        logits, flat = logits[learned], flat[learned]
    return F.cross_entropy(logits.float(), flat, reduction="sum", label_smoothing=smoothing)


def _numbers(logits: Float[Tensor, "B L"], labels: Float[Tensor, " B *L"]) -> Float[Tensor, ""]:
    wide = logits.float()
    if labels.ndim == 1:
        return F.mse_loss(wide.squeeze(-1), labels, reduction="sum")
    if labels.shape != wide.shape:
        raise InputError(f"logits are {tuple(wide.shape)}, labels {tuple(labels.shape)}; they should be aligned.")
    return F.binary_cross_entropy_with_logits(wide, labels, reduction="none").mean(-1).sum()
