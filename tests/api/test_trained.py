"""The models that we trained ourselves and ship: as good as their cards say, and at home in transformers too."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

import clearhead
from bench.dates import of_family, right
from clearhead.checkpoint.embedded import EMBEDDED, OURS, TRAINED
from clearhead.cli import main
from clearhead.errors import UnknownModelError
from clearhead.serve.opening import text_for
from clearhead.train.data.dates import LAYOUTS
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("as_a_user")

TEXTS = ["Tuesday 3rd of March, 2026", "the twenty-first of july 1969", "3/4/2026", "DEC. 25, '99", "2000-02-29"]
MEANT = ["2026-03-03", "1969-07-21", "2026-04-03", "1999-12-25", "2000-02-29"]


def test_a_name_is_offered_where_its_weights_are() -> None:
    with_weights = {path.parent.name for path in TRAINED.glob("*/model.safetensors")}
    assert with_weights == set(OURS) and set(OURS) <= set(EMBEDDED)
    for name in OURS:
        assert {"README.md", "curve.png", "config.json", "tokenizer.json"} <= {
            path.name for path in (TRAINED / name).iterdir()
        }


def test_dates_is_small() -> None:
    assert sum(path.stat().st_size for path in (TRAINED / "dates").iterdir()) < 2_000_000


@pytest.mark.parametrize("part", ["new-days", "new-styles"])
def test_dates_is_right_about_days_that_it_never_saw(part: str) -> None:
    """A sample of what `python -m bench.dates` measures: 40 dates of each family of styles."""
    lm = clearhead.load("dates")
    examples = [made for family in LAYOUTS for made in islice(of_family(family, part, seed=7), 40)]
    hits = right(lm, examples)
    assert sum(hits) >= 0.99 * len(hits), [made.text for made, hit in zip(examples, hits, strict=True) if not hit]


def test_dates_writes_the_same_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    lm = clearhead.load("dates")
    assert lm.model.dtype == torch.float32 and lm.generate(TEXTS) == MEANT
    for folder in (TRAINED / "dates", clearhead.export(lm, tmp_path / "dates")):
        theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text, meant in zip(TEXTS, MEANT, strict=True):
            ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            assert ids["input_ids"].tolist() == [lm.tokenizer.encode(text).ids]
            written = theirs.generate(**ids, max_new_tokens=20, do_sample=False)
            assert tokenizer.decode(written[0], skip_special_tokens=True) == meant


def test_dates_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", TEXTS[0], "-m", "dates"]) == 0
    assert capsys.readouterr().out == f"{MEANT[0]}\n"
    assert main(["look", TEXTS[0], "-m", "dates", "--target", MEANT[0], "--kind", "cross", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_bard_is_small_and_knows_its_english() -> None:
    """Fewer bits a byte than any that never read such a text, and fewer for it than for another English."""
    assert sum(path.stat().st_size for path in (TRAINED / "bard").iterdir()) < 12_000_000
    lm = clearhead.load("bard")
    old = "And it came to pass, when the king had heard the words of the people, that he went up unto the house."
    new = "The update fixes several bugs in the settings menu, and the app no longer crashes when you log out."
    bits = [clearhead.evaluate(lm, [{"text": text}])["bits per byte"] for text in (old, new)]
    assert bits[0] < 1.5 and bits[0] < bits[1] - 1


def test_what_bards_card_says_of_its_heads() -> None:
    seen = clearhead.load("bard").look(text_for("bard"))
    words = [token.strip() for token in seen.tokens]
    first, second = (at for at, word in enumerate(words) if word == "God")
    light = words.index("light", second)
    assert float(seen.map(3, 0)[words.index("it"), light]) > 0.9
    assert float(seen.map(5, 3)[second, first + 1]) > 0.9


def test_bard_writes_the_same_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = clearhead.load("bard")
    for folder in (TRAINED / "bard", clearhead.export(lm, tmp_path / "bard")):
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text in ("In the beginning", "ROMEO:\n", "My fellow citizens"):
            ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            assert ids["input_ids"].tolist() == [lm.tokenizer.encode(text).ids]
            written = theirs.generate(**ids, max_new_tokens=30, do_sample=False)
            assert tokenizer.decode(written[0], skip_special_tokens=True) == text + lm.generate(text, max_new_tokens=30)


def test_each_number_is_read_where_it_stands() -> None:
    """Cross-attention: as the year, the month and the day are written, one head reads each of them in the text."""
    text = TEXTS[0]
    seen = clearhead.load("dates").look(text, MEANT[0])
    assert set(seen.kinds) == {"encoder", "decoder", "cross"}
    m = seen.map(layer=1, head=2, kind="cross")
    assert m.shape == (len(MEANT[0]), len(text))  # a decoder reads its start, and all but the last of what it writes
    for written, read in ((slice(2, 4), "2026"), (slice(5, 7), "March"), (slice(8, 10), "3")):
        start = text.index(read)
        assert all(float(row[start : start + len(read)].sum()) > 0.9 for row in m[written, :])


def test_ours_have_no_revisions() -> None:
    with pytest.raises(UnknownModelError, match="dates comes with clearhead"):
        clearhead.load("dates", revision="main")


def test_recipes_of_ours_are_read() -> None:
    from clearhead.api.training import read_recipe

    for name in ("dates", "bard"):
        assert read_recipe(ROOT / "recipes" / f"{name}.toml", []).loop.steps > 0
