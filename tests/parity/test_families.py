"""Every family against transformers, over its grid: forward, padded, packed, cached, exported, and accounted for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from clearhead.checkpoint import families, load
from clearhead.errors import UnknownKeyError
from clearhead.model import EncoderDecoder
from tests.parity import support
from tests.parity.grids import Grid, grids

GRIDS = grids()
FEW = 7
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""The configs are tiny as they are, and smaller ones of a failing one would take minutes."""


def test_every_family_has_a_grid() -> None:
    assert set(families.families()) == set(GRIDS)


def _check(grid: Grid, config: Any, kind: str) -> None:
    options = grid.options.get(kind, {})
    theirs = support.tiny(grid.classes[kind], config, **options)
    vocab_size, alone = config.vocab_size, grid.alone(config)
    with support.folder() as path:
        ours = support.loaded(theirs, path)
        if isinstance(ours.model, EncoderDecoder):
            support.same_pair(ours.model, theirs, vocab_size, pads=grid.pads(kind), alone=alone)
            if kind == grid.writes and grid.cached(config):
                support.same_cached_pair(ours.model, theirs, vocab_size)
        else:
            support.same_forward(ours.model, theirs, vocab_size, pads=grid.pads(kind), alone=alone, inputs=grid.inputs)
            support.same_packed(ours.model, theirs, vocab_size, inputs=grid.inputs)
            if kind == grid.writes and grid.cached(config):
                support.same_cached(ours.model, theirs, vocab_size, inputs=grid.inputs)
        support.same_both_ways(ours, theirs, path, spare=grid.spare(config, kind), **options)


@pytest.mark.parametrize("family", sorted(GRIDS))
@pytest.mark.parametrize("sweep", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "all"])
def test_the_same_numbers_and_both_ways(family: str, sweep: bool) -> None:
    """A few configs of each family's grid in `make test`, all of `grid.examples` (20 or more) in `make test-all`."""
    grid = GRIDS[family]

    @settings(max_examples=grid.examples if sweep else FEW, phases=NO_SHRINKING)
    @given(grid.configs, st.sampled_from(sorted(grid.classes)))
    def drawn(config: Any, kind: str) -> None:
        _check(grid, config, kind)

    drawn()


@pytest.mark.parametrize("family", sorted(GRIDS))
def test_every_key_and_tensor_is_accounted_for_and_one_more_is_refused_by_name(family: str) -> None:
    grid = GRIDS[family]
    kind = next(iter(grid.classes))
    theirs = support.tiny(grid.classes[kind], grid.small())
    with support.folder() as path:
        ours = support.loaded(theirs, path)
        keys, tensors = json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")
        assert {account.name for account in ours.report.keys} == set(keys)
        assert {account.name for account in ours.report.tensors} == set(tensors)
        (path / "config.json").write_text(json.dumps(keys | {"surprising_flag": True}))
        with pytest.raises(UnknownKeyError, match="surprising_flag"):
            load(path)
        (path / "config.json").write_text(json.dumps(keys))
        name = next(iter(tensors))
        save_file(tensors | {"surprising.weight": tensors[name].clone()}, path / "model.safetensors")
        with pytest.raises(UnknownKeyError, match=r"surprising\.weight"):
            load(path)
