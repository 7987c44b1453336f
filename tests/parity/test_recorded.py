"""What transformers said on the day is what we say still: the recorded logits of one tiny model a family."""

from __future__ import annotations

import pytest

from clearhead.checkpoint import families
from tests.parity import support
from tests.parity.record import RECORDED, replay


@pytest.mark.parametrize("family", sorted(families.families()))
def test_the_recorded_logits_are_ours(family: str) -> None:
    path = RECORDED / f"{family}.safetensors"
    assert path.exists(), f"record it: python -m tests.parity.record {family}"
    assert path.stat().st_size < 200_000
    got, want, at = replay(path)
    support.close(got[at], want[at], f"{family} as recorded")
