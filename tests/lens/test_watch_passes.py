"""Passes that began before, ran beside or were cut short, and what is no number: what is seen is whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead.errors import InputError, LensError, OutsideError
from clearhead.lens.measures.rollout import rollout, rollout_row
from clearhead.lens.watch import watch
from tests.lens.foreign import build
from tests.lens.test_watch_refusals import BOTH, IDS, one_line, slowed, small, untouched
from tests.model import tiny


@pytest.mark.parametrize("which", BOTH)
def test_a_pass_under_way_before_the_model_was_watched_is_not_seen(which: str) -> None:
    """It ends as it began, and disturbs no pass that is watched; the thread's next pass is watched."""
    model = BOTH[which]()
    long = torch.arange(3, 23)[None]
    with torch.inference_mode():
        plain = model(long)[0] if which == "theirs" else model(long).logits
    slow = slowed(model)
    outputs: list[Any] = []

    def run() -> None:
        with torch.inference_mode():
            for _ in range(2):
                outputs.append(model(long)[0] if which == "theirs" else model(long).logits)

    thread = threading.Thread(target=run)
    thread.start()
    assert slow.inside.wait(20)
    with watch(model) as seen:
        inner, place = slow.inner, (model.decoder.blocks[0] if which == "ours" else model.transformer.h[0])
        setattr(place, "feedforward" if which == "ours" else "mlp", inner)  # this thread need not wait
        with torch.inference_mode():
            model(IDS)
        slow.go.set()
        thread.join(20)
    assert [seen.n_calls(layer=layer) for layer in (0, 1)] == [2, 2]
    assert [seen.call(layer, call=call).shape for layer in (0, 1) for call in (0, 1)] == [(9, 9), (20, 20)] * 2
    assert len(outputs) == 2 and all(torch.equal(output, plain) for output in outputs)
    assert untouched(model)


@pytest.mark.parametrize("which", BOTH)
def test_only_a_pass_from_before_ran(which: str) -> None:
    model = BOTH[which]()
    slow = slowed(model)
    thread = threading.Thread(target=lambda: model(IDS))
    thread.start()
    assert slow.inside.wait(20)
    with watch(model) as seen:
        slow.go.set()
        thread.join(20)
    assert seen.kinds == () and untouched(model)


def test_the_encoder_alone_is_watched() -> None:
    """`encode` does not call the model as a whole, and transformers' generate runs its encoder so, too."""
    model: Any = tiny.translator()
    with torch.inference_mode(), watch(model) as seen:
        model.encode(IDS % 8)
    assert seen.kinds == ("encoder",) and seen.n_calls() == 1
    theirs = build("t5")
    with torch.inference_mode(), watch(theirs) as seen:
        theirs.generate(input_ids=IDS, max_new_tokens=2, do_sample=False)
    assert seen.n_calls("encoder") == 1 and seen.n_calls("decoder") >= 1


class Stopped(nn.Module):
    """A part at which Ctrl-C is pressed."""

    def forward(self, *_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt


@pytest.mark.parametrize("which", BOTH)
def test_after_ctrl_c_inside_a_pass_another_thread_may_call(which: str) -> None:
    """torch runs no hook then; but the thread is not inside any more, and the block is left at once by any thread."""
    model = BOTH[which]()
    block, name = (model.decoder.blocks[1], "feedforward") if which == "ours" else (model.transformer.h[1], "mlp")
    part = getattr(block, name)
    ends: list[object] = []

    def run() -> None:
        try:
            with torch.inference_mode():
                ends.append(model(IDS))
        except LensError as error:
            ends.append(error)

    with watch(model) as seen:
        setattr(block, name, Stopped())
        with pytest.raises(KeyboardInterrupt), torch.inference_mode():
            model(IDS)
        setattr(block, name, part)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(20)
    assert len(ends) == 1 and not isinstance(ends[0], LensError)
    assert seen.map(1, 1).shape == (9, 9) and untouched(model)


@pytest.mark.parametrize("which", BOTH)
def test_a_thread_that_ctrl_c_took_out_does_not_hold_the_block(which: str) -> None:
    model = BOTH[which]()
    block, name = (model.decoder.blocks[1], "feedforward") if which == "ours" else (model.transformer.h[1], "mlp")
    out, done = threading.Event(), threading.Event()

    def run() -> None:
        with pytest.raises(KeyboardInterrupt):
            model(IDS)
        out.set()
        done.wait(20)  # lives on

    with watch(model):
        setattr(block, name, Stopped())
        thread = threading.Thread(target=run)
        thread.start()
        assert out.wait(20)
    assert thread.is_alive() and untouched(model)
    done.set()
    thread.join(20)


@pytest.mark.usefixtures("as_a_user")
def test_what_is_no_number() -> None:
    """Layers and heads are checked before anything is changed; texts, calls and rows when they are asked for."""
    model = small()
    for asked in ({"layers": ["0"]}, {"heads": ["0"]}, {"layers": "01"}, {"heads": [0.5]}, {"layers": [None]}):
        with pytest.raises(OutsideError, match="whole number") as caught, watch(model, **asked):
            raise AssertionError("entered")
        one_line(caught.value)
        assert untouched(model)
    with torch.inference_mode(), watch(model, layers=torch.tensor([0, 1]), receipts=True) as seen:
        model(IDS)
    m, wrong = seen.map(0, 0), seen
    asks: list[Callable[[], object]] = [
        lambda: wrong.map(0, 0, batch="x"),  # type: ignore[arg-type]
        lambda: wrong.map(0, 0, call="x"),  # type: ignore[arg-type]
        lambda: wrong.growing(0, 0, run="x"),  # type: ignore[arg-type]
        lambda: wrong.growing(0, 0, batch="x"),  # type: ignore[arg-type]
        lambda: wrong.verify(call="x"),  # type: ignore[arg-type]
        lambda: wrong.verify(rows=3),  # type: ignore[arg-type]
        lambda: wrong.links(["a"], [0]),  # type: ignore[list-item]
        lambda: wrong.links(3, [0]),  # type: ignore[arg-type]
        lambda: m[torch.tensor([1, 2])],
        lambda: m[np.array([1, 2])],
        lambda: m[0, torch.tensor([1, 2])],
        lambda: m["a"],
        lambda: m.verify(rows=3),  # type: ignore[arg-type]
        lambda: m.verify(rows=["a"]),  # type: ignore[list-item]
        lambda: m.top_rows(3, rows=[1, 2]),  # type: ignore[arg-type]
        lambda: m.at(torch.tensor([99]), torch.tensor([0])),
        lambda: m.at(torch.tensor([0]), torch.tensor([-1])),
        lambda: m.at(torch.tensor([0.5]), torch.tensor([0])),
        lambda: m.at(3, torch.tensor([0])),  # type: ignore[arg-type]
        lambda: m.histogram(["a", "b"]),  # type: ignore[list-item]
    ]
    for number, ask in enumerate(asks):
        with pytest.raises((OutsideError, InputError)) as said:
            ask()
        assert one_line(said.value), number
    assert torch.equal(m[torch.tensor(1)], m.row(1)) and torch.equal(m[np.int64(1)], m.row(1))
    assert m.verify(rows=torch.tensor([0, 1])).ok  # type: ignore[arg-type]


@pytest.mark.usefixtures("as_a_user")
def test_rollout_of_a_step_of_writing() -> None:
    """One query against many keys is no text; the call that began it is, and so are tokens and layers by number."""
    model = build("gpt2")
    with torch.inference_mode(), watch(model) as seen:
        model.generate(input_ids=IDS, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0)
    asks: list[Callable[[], object]] = [
        lambda: rollout(seen),
        lambda: rollout_row(seen, 0),
        lambda: rollout(seen, call=0, layer="a"),  # type: ignore[arg-type]
        lambda: rollout_row(seen, "a", call=0),  # type: ignore[arg-type]
    ]
    for ask in asks:
        with pytest.raises((InputError, OutsideError), match=r"call=0|whole number") as caught:
            ask()
        one_line(caught.value)
    torch.testing.assert_close(rollout(seen, call=0)[4], rollout_row(seen, 4, call=0))
