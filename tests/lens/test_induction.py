"""The induction head of a small trained model is found, and without it the model cannot repeat what it read.

The weights beside this file are those that `examples/induction.py` trains, in half precision; the slow test trains them
anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clearhead.lens.roles import Role, habits, induction
from clearhead.lens.roles.probes import repeats
from clearhead.lens.whatif import silence
from clearhead.model.transformer import Decoder
from examples.induction import VOCABULARY, accuracy, model

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained() -> Decoder:
    lm = model()
    lm.load_state_dict({name: weights.float() for name, weights in load_file(HERE / "induction.safetensors").items()})
    return lm.eval()


def test_its_removal_destroys_repetition(trained: Decoder, capsys: pytest.CaptureFixture[str]) -> None:
    scores = induction(trained)
    layer, head = scores.best
    assert scores.found.nonzero().tolist() == [[layer, head]]  # one head, and no other
    assert layer == 1 and float(scores.values[layer, head]) > 0.75 and scores.chance < 0.05
    before = accuracy(trained)
    with silence(trained, [(layer, head)]):
        after = accuracy(trained)
    with capsys.disabled():
        print(f" [repeated text foretold: {before:.2f}, without head {layer}.{head}: {after:.2f}] ", end="")
    assert before > 0.95 and after < 0.3
    assert accuracy(trained) > 0.95  # and the head is back
    for other in range(3):
        if other != head:
            with silence(trained, [(layer, other)]):
                assert accuracy(trained) > 0.9


def test_it_leans_on_the_token_before(trained: Decoder) -> None:
    """Two steps make the circuit: a head of layer 0 that reads the token before, and the head that matches it."""
    found = habits(trained, repeats(range(VOCABULARY)), [], "decoder")
    before = next(one for one in found if one.role is Role.PREVIOUS)
    layer, head = before.best
    assert layer == 0 and float(before.values[layer, head]) > 2 * before.chance
    with silence(trained, [(layer, head)]):
        assert accuracy(trained) < 0.1
        assert not bool(induction(trained).found.any())


def test_an_untrained_model_has_no_induction_head() -> None:
    scores = induction(model().eval())
    assert not bool(scores.found.any()) and accuracy(model().eval()) < 0.15


@pytest.mark.slow
def test_the_example_trains_it() -> None:
    root = HERE.parents[1]
    done = subprocess.run(
        [sys.executable, "examples/induction.py"], cwd=root, capture_output=True, text=True, check=True, timeout=600
    )
    found = re.fullmatch(
        r"head 1\.\d reads what came next the first time: (0\.\d+)\n"
        r"right in the second half: ([01]\.\d+)\nwithout that head: (0\.\d+)\n",
        done.stdout,
    )
    assert found, done.stdout
    score, before, after = map(float, found.groups())
    assert score > 0.5 and before > 0.9 and after < before / 2
    assert torch.isfinite(torch.tensor([score, before, after])).all()
