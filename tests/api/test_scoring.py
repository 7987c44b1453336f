"""What ends a run: measured against the data's own texts and bytes, and not against tokens that are decoded again."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import clearhead
from clearhead.api import scoring
from clearhead.api.recipe import Recipe
from clearhead.api.training import Run
from clearhead.cli import main
from clearhead.errors import TrainingError
from clearhead.train.batch import IGNORED
from clearhead.train.flops import cost_of
from clearhead.train.recipe import filled, told, with_changes

pytestmark = pytest.mark.usefixtures("as_a_user")

SAID = [f"Ein {w} hört Nr. {n}" + " immer" * (n % 4) for n in range(20) for w in ("Mann", "Kind")]
MEANT = [f"A {w} NAÏVELY hears no. {n}" + " Again" * (n % 4) for n in range(20) for w in ("Man", "Child")]

BASE: dict[str, Any] = {
    "batch": 8,
    "tokenizer": {"kind": "new-tokenizer", "learn": "wordpiece", "vocab_size": 200, "special": ["<pad>", "<eos>"]},
    "loop": {"steps": 2, "precision": "float32"},
    "data": {"held_out": 0.25},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.de").write_text("\n".join(SAID))
    (tmp_path / "a.en").write_text("\n".join(MEANT))


def translator(folder: Path, *changes: str) -> Recipe:
    source = {"kind": "parallel-lines", "source": str(folder / "a.de"), "target": str(folder / "a.en")}
    tables = {
        **BASE,
        "data": {**BASE["data"], "source": source, "encoder": {"kind": "translation"}},
        "model": {"kind": "vaswani", "n_layers": 1, "n_heads": 2, "d_model": 16, "context": 64},
        "objective": {"kind": "sequence-to-sequence"},
    }
    return filled(Recipe, with_changes(tables, changes))


def writer(folder: Path, *changes: str) -> Recipe:
    tables = {
        **BASE,
        "data": {**BASE["data"], "source": {"kind": "text-lines", "paths": [str(folder / "a.en")]}},
        "model": {"kind": "gpt2", "n_layers": 1, "n_heads": 2, "d_model": 16, "context": 64},
    }
    return filled(Recipe, with_changes(tables, changes))


def test_what_is_written_is_compared_with_the_files_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer lower-cases: tokens decoded again are not what the file says."""
    run = Run(translator(tmp_path), tmp_path / "run")
    list(run.go())
    assert run.built.tokenizer.decode(run.built.tokenizer.encode(MEANT[-1]).ids) != MEANT[-1]
    right = MEANT[30:]
    monkeypatch.setattr(scoring, "_written", lambda subject, batch, beams: [right[row] for row in batch.rows])
    found = {score.name: score.value for score in scoring.scores(run)}
    assert found["exact match"] == 1 and found["BLEU"] == pytest.approx(100) and found["chrF"] == pytest.approx(100)
    assert list(clearhead.evaluate(tmp_path / "run").scores) == scoring.scores(run)

    n = sum(batch.n_labels for batch in run.batches.validation)
    assert len(run.batches.validation) == 2 and found["loss"] == pytest.approx(run.evaluate(), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    n_bytes = sum(len(text.encode()) for text in right)
    assert found["bits per byte"] == pytest.approx(found["loss"] * n / math.log(2) / n_bytes, rel=1e-6)

    cut = Run(translator(tmp_path, "data.encoder.longest=8"), tmp_path / "cut")
    assert "bits per byte" not in [score.name for score in scoring.scores(cut)]  # not all of these bytes are said


def bytes_told(scores: list[scoring.Score]) -> int:
    note = next(score.note for score in scores if score.name == "bits per byte")
    found = re.match(r"([\d,]+) bytes", note)
    assert found is not None
    return int(found[1].replace(",", ""))


PACKINGS = {
    "documents": 'data.packing={ kind = "documents" }',
    "blocks": 'data.packing={ kind = "blocks", length = 24 }',
    "windows": 'data.packing={ kind = "windows", length = 24 }',
    "fitted": 'data.packing={ kind = "fitted", length = 24, too_long = "cut" }',
}


@pytest.mark.parametrize("kind", PACKINGS)
def test_bytes_are_those_of_the_file(tmp_path: Path, kind: str) -> None:
    """Of tokens that give back the text, their own, a part of a character too; of others, in proportion."""
    learn = "tokenizer={ kind = 'new-tokenizer', learn = 'byte', special = ['<eos>'] }"
    run = Run(writer(tmp_path, PACKINGS[kind], learn, "model.context=200"), tmp_path / "byte")
    labels = torch.cat([batch.labels[batch.labels != IGNORED] for batch in run.batches.validation])
    assert bytes_told(scoring.scores(run)) == int((labels < 256).sum())

    run = Run(writer(tmp_path, PACKINGS[kind]), tmp_path / "pieces")
    tokenizer, validation = run.built.tokenizer, run.batches.validation
    assert run.batches.given is not None
    documents = run.batches.given.documents([row for batch in validation for row in batch.rows])

    def own(ids: list[int]) -> int:
        return sum(len(tokenizer.bytes_of(id)) for id in ids if not tokenizer.is_special(id) or id == tokenizer.unk_id)

    inside = own([id for batch in validation for id in batch.labels[batch.labels != IGNORED].tolist()])
    whole = own([id for number in documents for id in tokenizer.encode_ids(MEANT[number], special=False)])
    raw = sum(len(MEANT[number].encode()) for number in documents)
    assert raw != whole and bytes_told(scoring.scores(run)) == round(inside * raw / whole)


def test_a_file_that_has_changed_is_said_and_the_model_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(translator(tmp_path), tmp_path / "run")
    (tmp_path / "a.en").write_text("\n".join(["Other", *MEANT[1:]]))
    with pytest.raises(TrainingError, match="the data is not what it was when it was tokenised"):
        scoring.scores(run)

    def changed(*_: object) -> None:
        raise TrainingError("the data is not what it was")

    monkeypatch.setattr(scoring, "scores", changed)
    path = tmp_path / "recipe" / "run.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"recipe": told(translator(tmp_path))}))
    assert main(["train", str(path), "--out", str(tmp_path / "other")]) == 0
    shown = capsys.readouterr()
    assert "the data is not what it was\n" in shown.err and shown.out.strip() == str(tmp_path / "other" / "model")


@pytest.mark.parametrize("changes", [[], ["batch_tokens=90"], ["data.by_length=true"]])
@pytest.mark.parametrize("of", [translator, writer])
def test_the_share_of_the_peak_is_of_texts_as_long_as_they_are(tmp_path: Path, of: Any, changes: list[str]) -> None:
    run = Run(of(tmp_path, *changes), tmp_path / "run")
    lengths: list[int] = []
    for batch in run.batches.feed.at(0):
        for side in ("", "decoder_"):
            if f"{side}input_ids" in batch.inputs:
                ids = batch.inputs[f"{side}input_ids"]
                lengths += batch.inputs.get(f"{side}attention_mask", torch.ones_like(ids)).sum(1).tolist()
    event = next(run.go())
    cost = cost_of(run.built.model)
    assert cost is not None and event.mfu is not None and event.step.n_tokens == sum(lengths)
    flops = cost.of(sum(lengths) / len(lengths)) * sum(lengths)
    assert event.mfu == pytest.approx(flops / event.step.seconds / run.peak.flops)


def test_held_out_rows_without_a_label_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("\n".join([*MEANT, "x", "y", "z"]))  # a single token has nothing after it
    changes = ["data.held_out=0.07", "data.encoder.end=false", "tokenizer.learn=character", "tokenizer.vocab_size=none"]
    with pytest.raises(TrainingError, match="none of the rows held out has a label"):
        Run(writer(tmp_path, *changes), tmp_path / "run")
    Run(writer(tmp_path, *changes, "evaluation.batches=0"), tmp_path / "run")
