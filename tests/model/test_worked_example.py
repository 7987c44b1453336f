"""Cat eats fish: attention small enough to follow by hand, through each of our own functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clearhead.model import attention_weights
from clearhead.model.kernels import Scoring, blockwise, equation, fused, fused_with_lse

CAT = torch.tensor([[[[0.8, 0.2]]]])  # what cat asks; (B, H, Tq, D)
KEYS = torch.tensor([[[[0.9, 0.1], [0.4, 0.3], [0.55, 0.3]]]])  # what cat, eats, fish answer to
VALUES = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]]])  # what they say
ROOT_D = math.sqrt(2)


def rounded(x: Tensor) -> list[float]:
    return [round(float(number), 2) for number in x.flatten()]


def scores(scale: float) -> Tensor:
    return Scoring(scale).scores(CAT, KEYS, torch.arange(1), torch.arange(3))


def test_cat_scores_each_word() -> None:
    assert rounded(scores(1.0)) == [0.74, 0.38, 0.50]


def test_the_scores_are_divided_by_the_root_of_the_width() -> None:
    assert rounded(scores(1 / ROOT_D)) == [0.52, 0.27, 0.35]


def test_the_softmax_makes_weights_that_sum_to_one() -> None:
    weights = attention_weights(CAT, KEYS)
    assert rounded(weights) == [0.38, 0.30, 0.32]
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kernel", [equation, fused])
def test_cat_reads_the_weighted_mean_of_the_values(kernel) -> None:
    assert rounded(kernel(CAT, KEYS, VALUES, Scoring(1 / ROOT_D))) == [0.54, 0.46]


@pytest.mark.parametrize("kernel", [blockwise, fused_with_lse])
def test_the_log_sum_exp_gives_the_weights_back(kernel) -> None:
    out, lse = kernel(CAT, KEYS, VALUES, Scoring(1 / ROOT_D))
    assert rounded(out) == [0.54, 0.46]
    torch.testing.assert_close((scores(1 / ROOT_D) - lse[..., None]).exp(), attention_weights(CAT, KEYS))
