"""The strongest links, tile by tile, are those of the whole map; and what is left out is said."""

from __future__ import annotations

import pytest
import torch

from clearhead.cli import links
from clearhead.cli.links import LeftOut, best_of_layer, strongest
from clearhead.lens.look import Look
from tests.cli.small import MODELS, SENTENCE, load


@pytest.fixture(params=MODELS)
def seen(request: pytest.FixtureRequest) -> Look:
    return load(request.param).look(SENTENCE, "a dog ran" if request.param == "buckets" else None)


@pytest.mark.parametrize("nothing", [True, False])
def test_they_are_the_strongest(seen: Look, nothing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "ROWS", 3)
    monkeypatch.setattr(links, "COLS", 4)
    for kind in seen.kinds:
        out = LeftOut.of(seen, kind, nothing=nothing)
        for head, found in strongest(seen.seen.call(1, kind), range(4), out, 5).items():
            whole = seen.map(1, head, kind).dense().clone()
            whole[out.queries] = 0
            whole[:, out.keys] = 0
            if out.itself:
                whole.fill_diagonal_(0)
            expected = [weight for weight in whole.flatten().sort(descending=True).values[:5].tolist() if weight > 0]
            assert [link.weight for link in found] == pytest.approx(expected, abs=1e-6)
            for link in found:
                assert link.weight == pytest.approx(whole[link.query, link.key].item(), abs=1e-6)


def test_a_layer_s_best_are_the_best_of_its_heads() -> None:
    seen = load("encoder").look(SENTENCE)
    out = LeftOut.of(seen, "encoder")
    best = best_of_layer(seen, "encoder", 0, out, 4)
    every = torch.stack([seen.map(0, head).dense() for head in range(4)])
    every[:, out.queries] = 0
    every[:, :, out.keys] = 0
    every[:, range(12), range(12)] = 0
    assert [link.weight for link in best] == pytest.approx(every.flatten().topk(4).values.tolist(), abs=1e-6)


def test_what_is_left_out_is_said() -> None:
    encoder, decoder = load("encoder").look(SENTENCE), load("decoder").look(SENTENCE)
    both = load("buckets").look(SENTENCE, "a dog ran")
    assert "[CLS] [SEP]; a token's link to itself" in str(LeftOut.of(encoder, "encoder").sentence())
    assert "links to the first token (the)" in str(LeftOut.of(decoder, "decoder").sentence())
    assert LeftOut.of(decoder, "decoder", nothing=True).sentence() is None
    assert "⟨start⟩" in str(LeftOut.of(both, "decoder").sentence())
    assert not LeftOut.of(both, "cross").itself
