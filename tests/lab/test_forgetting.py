"""The example and what it is made of: the task, the equal models, the sentences that follow the figures."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clearhead.lab.forgetting import (
    DISTANCES,
    LETTERS,
    QUESTION,
    Memory,
    Texts,
    accuracy,
    marked,
    models,
    reach_of,
    told,
    train,
)
from clearhead.lab.forgetting_picture import draw, spread
from clearhead.train.batch import IGNORED
from tests.conftest import ROOT


def test_the_answer_stands_where_it_should() -> None:
    ids, answers = marked(5, 20, torch.Generator().manual_seed(0), distance=6)
    assert ids.shape == (5, 21) and (ids[:, -1] == QUESTION).all()
    for row, answer in zip(ids[:, :20], answers, strict=True):
        assert (row >= LETTERS).nonzero().flatten().tolist() == [14]
        assert int(row[14]) == LETTERS + int(answer)


def test_texts_are_a_function_of_the_step_and_of_all_lengths() -> None:
    texts, lengths, far = Texts(longest=64, batch=8), set(), set()
    assert torch.equal(texts.at(3)[0].inputs["input_ids"], texts.at(3)[0].inputs["input_ids"])
    for step in range(200):
        batch = texts.at(step)[0]
        ids = batch.inputs["input_ids"][:, :-1]
        assert (batch.labels[:, :-1] == IGNORED).all() and batch.n_labels == 8
        lengths.add(ids.shape[1])
        far |= set((ids.shape[1] - (ids >= LETTERS).nonzero()[:, 1]).tolist())
    assert min(lengths) == 4 and max(lengths) == 64 and {1, 2, 4} <= far and max(far) > 48


def test_the_models_are_of_one_size() -> None:
    sizes = [model.n_parameters() for model in models().values()]  # type: ignore[operator]
    assert list(models()) == ["RNN", "LSTM", "GRU", "Transformer"]
    assert max(sizes) / min(sizes) < 1.05


def test_a_transformer_learns_it_at_short_distances() -> None:
    torch.manual_seed(0)
    model = models(32)["Transformer"]
    before = accuracy(model, 8, 16, n=128)
    loss = train(model, Texts(longest=16), 1e-2, 150)
    assert before < 0.2 and loss < 0.5 and accuracy(model, 8, 16, n=128) > 0.95


def memory(name: str, *shares: float) -> Memory:
    accuracy = dict(zip(DISTANCES, map(float, shares), strict=True))
    return Memory(name=name, n_parameters=1, rate=0.1, accuracy=accuracy, seconds=dict.fromkeys(DISTANCES, 0.01))


def test_what_is_said_follows_the_figures() -> None:
    forgets, knows = memory("RNN", 1, 1, 0.5, *[0.06] * 5), memory("Transformer", *[1] * 8)
    assert (reach_of(forgets), reach_of(knows), reach_of(memory("GRU", *[0.5] * 8))) == (8, 512, 0)
    said = told([forgets, knows])
    assert "RNN: 6% at distance 128, as good as guessing (6%); it is sure (99%) up to 8." in said
    assert any("the Transformer knows: so it is" in line for line in said)
    otherwise = told([memory("RNN", *[1] * 8), knows])
    assert any("knows: here the RNN is right 100% of the time, and guessing 6%." in line for line in otherwise)
    assert any(
        "knows: here the Transformer is right 50%" in line
        for line in told([forgets, memory("Transformer", *[0.5] * 8)])
    )
    assert "RNN: 100% at distance 128, sure; it is sure (99%) up to 512." in otherwise


def test_names_at_the_ends_of_lines_do_not_lie_on_one_another() -> None:
    assert spread([0.0, 50.0], 10.0) == [0.0, 50.0]
    assert spread([10.0, 10.0, 10.0], 10.0) == [0.0, 10.0, 20.0]
    apart = spread([0.0, 1.0, 15.0, 60.0], 10.0)
    assert all(b - a >= 10 - 1e-9 for a, b in itertools.pairwise(apart))


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    path = draw([memory("RNN", *[0.06] * 8), memory("Transformer", *[1] * 8)], "a title", tmp_path / "picture.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, "examples/forgetting.py", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"the largest is [0-4]\.\d% above the smallest", done.stdout)
    assert all(re.search(rf"^{name}: \d+% at distance 16", done.stdout, re.M) for name in ("RNN", "LSTM", "GRU"))
    assert "seconds in all" in done.stdout
