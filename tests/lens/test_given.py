"""What is handed over by mistake (a name, a bare model, nothing, an empty list) is told in one line, at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import clearhead
from clearhead.errors import InputError, LensError, NotWatchableError, OutsideError
from clearhead.lens import Spilled, read_npz, write_npz, write_parquet
from clearhead.lens.look import Look, look
from clearhead.lens.measures.families import families
from clearhead.lens.measures.heads import measure, read
from clearhead.lens.measures.rollout import rollout
from clearhead.lens.roles.finding import find, habits, induction
from clearhead.lens.seen import Seen
from clearhead.lens.watch import watch
from clearhead.lens.whatif import (
    AtTemperature,
    Cut,
    Delete,
    Divergence,
    LogProbability,
    Means,
    Outputs,
    Patch,
    Rescore,
    Silence,
    cut,
    patch,
    rescore,
    silence,
    sweep,
    whatif,
    without_keys,
)
from clearhead.serve import still
from clearhead.serve.still import Opening
from tests.cli.small import SENTENCE, load

ONE = Silence([(0, 1)])


class Entered:
    """Enters a block, as a function."""

    def __init__(self, block: Callable[[], Any]) -> None:
        self.block = block

    def __call__(self) -> None:
        with self.block():
            raise AssertionError("entered")


lm: Any = load("decoder")
model: Any = lm.model
seen: Any = lm.look(SENTENCE)
m: Any = seen.map(0, 1)
table = measure(seen)
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # a name, a bare model, or nothing, where a model with its tokenizer is wanted
    "look name": (lambda: look("minilm", "a"), InputError, r"load the model first: clearhead\.load\('minilm'\)"),
    "look path": (lambda: look(Path("m"), "a"), InputError, "is a name; load"),
    "look model": (lambda: look(model, "a"), InputError, "bare model, without a tokenizer"),
    "look none": (lambda: look(None, "a"), InputError, "None is no model that reads texts"),
    "find name": (lambda: find("minilm"), InputError, "is a name"),
    "find model": (lambda: find(model), InputError, "bare model"),
    "whatif name": (lambda: whatif("minilm", "a", ONE), InputError, "is a name"),
    "whatif model": (lambda: whatif(model, "a", ONE), InputError, "bare model"),
    "sweep model": (lambda: sweep(model, "a"), InputError, "bare model"),
    "a pipeline": (lambda: look(Piped(), "a"), InputError, "no model of clearhead's"),
    # the same where the model alone is wanted
    "silence loaded": (Entered(lambda: silence(lm, [(0, 1)])), InputError, r"give the model alone, its `\.model`"),
    "silence name": (Entered(lambda: silence("minilm", [(0, 1)])), InputError, r"clearhead\.load\('minilm'\)\.model"),
    "silence none": (Entered(lambda: silence(None, [(0, 1)])), InputError, "None is no model"),
    "cut loaded": (Entered(lambda: cut(lm, None, [1])), InputError, "the model alone"),
    "rescore loaded": (Entered(lambda: rescore(lm, AtTemperature(2.0))), InputError, "the model alone"),
    "means loaded": (lambda: Means.over(lm, [lambda: None]), InputError, "the model alone"),
    "outputs loaded": (lambda: Outputs.of(lm, lambda: None), InputError, "the model alone"),
    "habits loaded": (lambda: habits(lm, [], [], "decoder"), InputError, "the model alone"),
    "induction name": (lambda: induction("minilm"), InputError, "is a name"),
    "watch loaded": (Entered(lambda: watch(lm)), NotWatchableError, r"watch its \.model"),
    # measures and ways to score
    "measure word": (lambda: whatif(lm, SENTENCE, ONE, measure="kl"), InputError, "'kl' is no measure; give D"),
    "measure class": (lambda: whatif(lm, SENTENCE, ONE, measure=Divergence), InputError, "Divergence is no measure"),
    "measure in a sweep": (lambda: sweep(lm, SENTENCE, measure="kl"), InputError, "is no measure"),
    "no position": (lambda: whatif(lm, SENTENCE, ONE, measure=Divergence(at=["a"])), OutsideError, "a whole number"),
    "no word": (lambda: whatif(lm, SENTENCE, ONE, measure=LogProbability(None)), InputError, "a word is a str"),
    "rescore word": (lambda: Rescore("hot"), InputError, r"'hot' is no way from q and k to scores; give AtTemp"),
    "rescore class": (lambda: Rescore(AtTemperature), InputError, "class AtTemperature is no way"),
    "rescore block": (Entered(lambda: rescore(model, "hot")), InputError, "is no way"),
    "experiment class": (lambda: whatif(lm, SENTENCE, Silence), InputError, "class Silence is no experiment"),
    # heads
    "silence nothing": (lambda: Silence([]), InputError, "no head was named"),
    "silence block": (Entered(lambda: silence(model, [])), InputError, "no head was named"),
    "silence number": (lambda: Silence(5), InputError, "5 is no list of heads"),
    "silence word": (lambda: Silence("5.11"), InputError, "is no list of heads"),
    "silence pair": (lambda: Silence((5, 11)), InputError, "5 is no head"),
    "cut nothing": (lambda: Cut("it", "cat", []), InputError, "no head was named"),
    "delete nothing": (lambda: Delete("cat", []), InputError, "no head was named"),
    "rescore nothing": (lambda: Rescore(AtTemperature(2.0), []), InputError, "no head was named"),
    "patch nothing": (lambda: Patch("a dog", []), InputError, "no head was named"),
    "patch at": (lambda: Patch("a dog", [(0, 1)], at=["cat"]), InputError, r"pairs of words, \(here, there\)"),
    "patch from": (Entered(lambda: patch(model, [(0, 1)], None)), InputError, r"give Outputs\.of"),
    "means of nothing": (lambda: Means.over(model, [None]), InputError, "functions without arguments"),
    "references": (lambda: Silence([(0, 1)], "mean", [3]), InputError, "is no reference text"),
    "empty reference": (lambda: whatif(lm, SENTENCE, Silence([(0, 1)], "mean", [""])), InputError, "reference text is"),
    "empty patch": (lambda: whatif(lm, SENTENCE, Patch(" ", [(0, 1)])), InputError, "text to patch from is empty"),
    # what has been looked at
    "measure map": (lambda: measure(m), InputError, "one head's map; give the look"),
    "measure loaded": (lambda: measure(lm), InputError, r"not been looked at yet: clearhead\.look"),
    "measure model": (lambda: measure(model), InputError, "not been watched yet"),
    "families map": (lambda: families(m), InputError, "families takes all that was seen"),
    "families none": (lambda: families(None), InputError, "None is none"),
    "rollout map": (lambda: rollout(m), InputError, "rollout takes all"),
    "read look": (lambda: read(seen), InputError, r"one head's map is measured here"),
    "separators": (lambda: read(m, separators=["."]), OutsideError, "a key goes by a whole number"),
    "without_keys look": (lambda: without_keys(seen, [1]), InputError, r"asked of one head's map, seen\.map"),
    "without_keys none": (lambda: without_keys(m, None), InputError, "no list of keys"),
    "best": (lambda: table.best("banana"), InputError, "'banana' is no measure; choose one of entropy, distance"),
    "best kind": (lambda: table.best("kind"), InputError, "is no measure"),
    "best none": (lambda: table.best("entropy", 0), InputError, "1 or more"),
    "best less": (lambda: table.best("entropy", -1), InputError, "1 or more"),
    "mean": (lambda: read(m).mean("received"), InputError, "choose one of entropy"),
    "nearest": (lambda: families(seen).nearest(0, 1, 0), InputError, "1 or more"),
    "strongest": (lambda: sweep(lm, SENTENCE).strongest(0), InputError, "1 or more"),
    # what is kept, and read
    "spilled none": (lambda: Spilled(None), LensError, "names no folder"),
    "no layers": (lambda: lm.look(SENTENCE, layers=[]), LensError, r"layers=\[\] would keep nothing"),
    "no heads": (lambda: lm.look(SENTENCE, heads=[]), LensError, r"heads=\[\] would keep nothing"),
    "true layer": (lambda: lm.look(SENTENCE, layers=[True]), OutsideError, "not by True or False"),
    "true row": (lambda: m[True], OutsideError, "not by True or False"),
    "true rows": (lambda: m[torch.tensor(True)], OutsideError, "not by True or False"),
    "true head": (lambda: seen.map(0, True), OutsideError, "not by True or False"),
    "kind": (lambda: seen.map(0, 0, 1), OutsideError, "a kind is a name, one of decoder"),
    "no rows": (lambda: m.pool(0, 4), InputError, "0 rows cannot be had"),
    "no columns": (lambda: m.pool(4, 0), InputError, "0 columns cannot be had"),
    "no keys": (lambda: m.top(1, k=0), InputError, "0 keys cannot be had"),
    "limit": (lambda: find(lm, limit=0), InputError, "limit=0 reads no sentence"),
    "empty text": (lambda: find(lm, texts=["a cat", ""]), InputError, "text 1 is empty"),
    "no text": (lambda: find(lm, texts=[3]), InputError, "text 0 is of type int"),
    # a page
    "page of nothing": (lambda: still.render(lm, None, Opening("decoder", 0, 0)), InputError, "a page shows a"),
    "page of nobody": (lambda: still.render(None, seen, Opening("decoder", 0, 0)), InputError, "which model"),
    "no opening": (lambda: still.render(lm, seen, None), InputError, "None is no opening"),
    "opening kind": (lambda: still.render(lm, seen, Opening("cross", 0, 0)), OutsideError, "no 'cross'"),
    "opening layer": (lambda: still.render(lm, seen, Opening("decoder", 7, 0)), OutsideError, "layer 7"),
    "opening head": (lambda: still.render(lm, seen, Opening("decoder", 0, 9)), OutsideError, "head 9"),
    "opening query": (lambda: still.render(lm, seen, Opening("decoder", 0, 0, 10)), OutsideError, "query 10"),
    "opening key": (lambda: still.render(lm, seen, Opening("decoder", 0, 0, 1, "a")), OutsideError, "a key goes"),
    "page of a part": (
        lambda: still.render(lm, lm.look(SENTENCE, layers=[1]), Opening("decoder", 1, 0)), LensError, "all layers"),
}  # fmt: skip


class Piped:
    """What transformers' pipelines look like."""

    def __init__(self) -> None:
        config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=9)
        self.model, self.tokenizer = transformers.GPT2LMHeadModel(config), lm.tokenizer


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line(name: str) -> None:
    wrong, error, words = WRONG[name]
    with pytest.raises(error, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("source", [None, "look", lm, model])
def test_nothing_to_write(source: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("pyarrow")
    for write, name in ((write_npz, "a.npz"), (write_parquet, "a.parquet"), (clearhead.lens.write_picture, "a.png")):
        with pytest.raises(InputError, match="is written; "):
            write(tmp_path / name, source)
        with pytest.raises(LensError, match="is no name for a file"):
            write(None, seen)
    assert list(tmp_path.iterdir()) == []


# ── what is there is said ────────────────────────────────────────────────────────────────────────────────────────


def test_a_look_at_a_part_says_which_part(tmp_path: Path) -> None:
    assert repr(seen) == "<Look at 10 tokens; decoder: 2 layers × 4 heads>"
    part = lm.look(SENTENCE, layers=[1], heads=[0, 2])
    assert repr(part) == "<Look at 10 tokens; decoder: layer 1 × 2 of 4 heads>"
    assert part.seen.layers() == (1,) and part.n_layers() == 2
    assert repr(lm.look("cat", layers=[0])) == "<Look at 1 token; decoder: 1 layer × 4 heads>"
    write_npz(tmp_path / "a.npz", part)
    back = read_npz(tmp_path / "a.npz")
    assert isinstance(back, Look) and repr(back) == repr(part)


def test_what_was_seen_says_so() -> None:
    assert repr(Seen()) == "<Seen: nothing yet>"
    with torch.inference_mode(), watch(model) as kept:
        model(torch.tensor([[3, 4, 5]]))
    assert repr(kept) == f"<Seen 2 calls; decoder: 2 layers × 4 heads; {kept.nbytes:,} bytes>"
    kept.release()
    assert repr(kept) == "<Seen 2 calls; decoder: 2 layers × 4 heads; released>"


@pytest.mark.usefixtures("as_a_user")
def test_once_is_once() -> None:
    with pytest.raises(OutsideError, match="layer 0 ran once; call=3 is outside"):
        seen.seen.call(0, call=3)
    with pytest.raises(OutsideError, match="read 1 text; run=4"):
        seen.seen.growing(0, 0, run=4)
    with pytest.raises(OutsideError, match="'cat' is only once in the text"):
        seen.find("cat#2")
    assert Silence([(0, 1)], "mean", ["a cat"]).words.endswith("their mean over 1 text)")
    with pytest.raises(InputError, match="10 and 1 token long"):
        whatif(lm_that_writes(), SENTENCE, Patch("dog", [(0, 1)]))


def lm_that_writes() -> Any:
    from dataclasses import replace

    from clearhead.model.config import LanguageModel
    from clearhead.model.transformer import build
    from tests.lens.test_whatif_effect import Speaking

    return Speaking(build(replace(load("decoder").config, head=LanguageModel())).eval())


def test_a_word_of_several_tokens_is_measured_by_its_first_and_says_so() -> None:
    writer = lm_that_writes()
    one = whatif(writer, SENTENCE, ONE, measure=LogProbability("dog"))
    two = whatif(writer, SENTENCE, ONE, measure=LogProbability("dog sat"))
    assert two.value == one.value
    assert one.measure.words == "change of log p('dog')"
    assert two.measure.words == "change of log p('dog sat'), of its 2 tokens the first alone"


def test_a_module_without_attention_is_told_as_before() -> None:
    with pytest.raises(LensError, match="no attention of clearhead's"), silence(nn.Linear(2, 2), [(0, 0)]):
        pass


def test_a_star_brings_every_name() -> None:
    names: dict[str, Any] = {}
    exec("from clearhead.lens import *", names)
    assert names["Seen"] is Seen and names["write_npz"] is write_npz
