"""What is kept of calls with one query: steps of writing, which read a growing text or an encoder's one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead.generate import generate_ids
from clearhead.lens.kept.keep import AsRun, Half, Keep, Spilled
from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from clearhead.model.config import SpecialTokens
from clearhead.model.kernels import attention_weights
from clearhead.model.transformer import build
from tests.lens.foreign import build as foreign
from tests.lens.test_growing import CONFIGS, QUIET, both
from tests.lens.test_keep import read_in_pieces, small_and_long

SOURCE = torch.arange(3, 15)[None]


def written(which: str, **choice: Any) -> Seen:
    """A translation, token by token: of our model, and of one of transformers."""
    torch.manual_seed(3)
    ours = replace(both(), tokens=SpecialTokens(decoder_start=2))
    model: Any = build(ours).eval() if which == "ours" else foreign("bart")
    with torch.inference_mode(), watch(model, **choice) as seen:
        if which == "ours":
            generate_ids(model, SOURCE, max_new_tokens=5, eos=())
        else:
            model.generate(input_ids=SOURCE, max_new_tokens=5, min_new_tokens=5, **QUIET)
    return seen


def mapped() -> list[tuple[int, int]]:
    """Where spill files are mapped."""
    where = Path("/proc/self/maps")
    if not where.exists():
        pytest.skip("this system does not tell what is mapped")
    lines = [line.split(maxsplit=1)[0].split("-") for line in where.read_text().splitlines() if ".spill" in line]
    return [(int(start, 16), int(end, 16)) for start, end in lines]


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_the_encoders_keys_are_kept_as_was_chosen(which: str, tmp_path: Path) -> None:
    """By half, in a file, of some heads: they are the largest part of what a step of writing leaves."""
    plain = written(which)
    steps = plain.n_calls("cross")
    assert steps == 5 and plain.call(0, "cross", 0).shape == (1, 12)
    half, spilled = written(which, keep=Half()), written(which, keep=Spilled(tmp_path), receipts=True)
    few = written(which, heads=[2])
    spans = mapped()
    for layer in (0, 1):
        exact = plain.growing(layer, 2, "cross").dense()
        kept = half.call(layer, "cross", 0).own_tensors[1]
        assert kept.dtype == torch.bfloat16
        grown = half.growing(layer, 2, "cross")
        torch.testing.assert_close(grown.row_sums(), torch.ones(steps))
        torch.testing.assert_close(grown.dense(), exact, atol=2e-2, rtol=0)
        call = spilled.call(layer, "cross", 0)
        for x in (*call.own_tensors[:2], *(call._shown or ())):
            assert any(start <= x.data_ptr() < end for start, end in spans)
        assert torch.equal(spilled.growing(layer, 2, "cross").dense(), exact)
        assert few.call(layer, "cross", 0).own_tensors[1].shape[1] == 1
        assert torch.equal(few.growing(layer, 2, "cross").dense(), exact)
    assert spilled.verify().ok


@pytest.mark.parametrize("keep", [AsRun(), Half()], ids=["as run", "half"])
def test_the_encoders_keys_are_kept_once_though_the_beginning_was_not_watched(keep: Keep) -> None:
    """Each step then stands alone, and all read one text."""
    model: Any = build(both()).eval()
    with torch.inference_mode():
        memory, cache = model.encode(SOURCE), model.new_cache()
        model(None, torch.tensor([[2, 5, 7]]), memory=memory, cache=cache)
        with watch(model, keep=keep) as seen:
            for token in (4, 8, 9):
                model(None, torch.tensor([[token]]), memory=memory, cache=cache)
    calls = [seen.call(1, "cross", step) for step in range(3)]
    assert len({call.own_tensors[1].data_ptr() for call in calls}) == 1
    for call in calls:
        torch.testing.assert_close(call.map(3).row_sums(), torch.ones(1))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spill", [False, True])
def test_half_of_a_text_that_begins_with_one_token(half: torch.dtype, spill: bool, tmp_path: Path) -> None:
    """Every row is the softmax of the q and k that are kept, whichever of them were rounded."""
    ids = torch.randint(60, (1, 14))
    keep = Spilled(tmp_path, half) if spill else Half(half)
    seen = read_in_pieces(small_and_long(), ids, [1, 1, 6, 1, 4, 1], keep=keep)
    for layer in (0, 1):
        for call in range(seen.n_calls(layer=layer)):
            m = seen.map(layer, 2, call=call)
            wanted = attention_weights(m.q.double(), m.k.double(), m.scoring.mask, m.scoring.scale)[0, 0]
            torch.testing.assert_close(m.dense().double(), wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(seen.growing(layer, 2).row_sums(), torch.ones(14))
    assert seen.map(0, 2, call=0).k.dtype == half


@pytest.mark.parametrize("name", ["learned", "grouped"])
def test_some_heads_of_a_text_that_begins_with_one_token(name: str) -> None:
    model: Any = build(CONFIGS[name]).eval()
    ids, sizes = torch.randint(3, 60, (1, 9)), [1, 1, 1, 5, 1]
    full, some = read_in_pieces(model, ids, sizes), read_in_pieces(model, ids, sizes, heads=[2])
    assert [some.call(1, call=call).own_tensors[1].shape[1] for call in range(5)] == [1] * 5
    assert torch.equal(some.growing(1, 2).dense(), full.growing(1, 2).dense())


def test_steps_of_beams_are_kept_as_was_chosen() -> None:
    """Beam search orders its texts anew, so that each step stands alone, with all its keys."""
    model: Any = foreign("gpt2")
    for choice, want in (({"keep": Half()}, (torch.bfloat16, 4)), ({"heads": [2]}, (torch.float32, 1))):
        with torch.inference_mode(), watch(model, **choice) as seen:
            model.generate(input_ids=SOURCE, max_new_tokens=6, num_beams=3, **QUIET)
        alone = [
            k for call in range(1, seen.n_calls()) for k in [seen.call(0, call=call).own_tensors[1]] if k.shape[2] > 1
        ]
        assert alone and {(k.dtype, k.shape[1]) for k in alone} == {want}


@pytest.mark.parametrize("keep", [AsRun(), Half()], ids=["as-run", "half"])
def test_values_that_changed_are_kept_anew_and_what_is_shared_is_counted_once(keep: Keep) -> None:
    """The encoder's keys are the same in both passes, its values are not: the receipts are of what ran."""
    model: Any = foreign("bart")
    given = {"input_ids": SOURCE, "decoder_input_ids": torch.arange(3, 8)[None]}
    values = model.model.decoder.layers[1].encoder_attn.v_proj.weight
    with torch.inference_mode(), watch(model, keep=keep, receipts=True) as seen:
        model(**given)
        once = seen.nbytes
        model(**given)
        assert seen.nbytes < 2 * once
        values.mul_(1.5)
        model(**given)
    assert seen.verify().ok
