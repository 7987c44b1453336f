"""Evaluating: transformers' own loss on the same windows, figures by hand, and what cannot be measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead.api import Loaded
from clearhead.api.perplexity import windows
from clearhead.api.scoring import scores
from clearhead.api.training import Run
from clearhead.errors import ClearheadError, InputError
from clearhead.model.config import TokenClassification
from clearhead.text import Tokenizer
from tests.api import small
from tests.api.test_training import recipe
from tests.text.corpus import LINES as CORPUS

pytestmark = pytest.mark.usefixtures("as_a_user")

LINES = [line.strip() for line in CORPUS]
TEXT = "\n".join(LINES)


@given(n=st.integers(0, 60), context=st.integers(2, 20), data=st.data())
def test_windows_score_each_token_once_with_enough_before_it(n: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context - 1))
    ids = list(range(n))
    scored: list[int] = []
    for window in windows(ids, context, stride):
        assert len(window.ids) <= context and window.first >= 1
        for place in range(window.first, len(window.ids)):
            assert place >= min(window.ids[place], context - stride)
        scored += window.ids[window.first :]
    assert scored == ids[1:]


def gpt2(folder: Path) -> Path:
    """A GPT-2 of transformers', its weights drawn, with our tokenizer beside it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    size = small.PIECES.vocab_size
    config = GPT2Config(vocab_size=size, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
    GPT2LMHeadModel(config).save_pretrained(folder)
    small.PIECES.save(folder)
    return folder


@pytest.mark.parametrize("stride", [31, 16, 5])
def test_perplexity_is_the_loss_of_transformers_on_the_same_windows(tmp_path: Path, stride: int) -> None:
    from transformers import GPT2LMHeadModel

    folder = gpt2(tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXT)
    found = clearhead.evaluate(folder, tmp_path / "text.txt", stride=stride)

    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = torch.tensor([small.PIECES.encode_ids(TEXT)])
    nats, tokens, end_before = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):  # as transformers' own page on perplexity does it
        end = min(begin + 32, ids.shape[1])
        labels = ids[:, begin:end].clone()
        labels[:, : -(end - end_before)] = -100
        n = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            nats += model(ids[:, begin:end], labels=labels).loss.item() * n
        tokens, end_before = tokens + n, end
        if end == ids.shape[1]:
            break
    assert found.facts["tokens"] == tokens == ids.shape[1] - 1
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)


def test_bits_per_byte_by_hand(tmp_path: Path) -> None:
    lm = small.writer()
    bare = Tokenizer.train(CORPUS, kind="byte-bpe", vocab_size=330)  # puts nothing before a text
    lm.pretrained = replace(lm.pretrained, tokenizer=bare)
    texts = ["the cat sat", "€ and more", "a"]
    found = clearhead.evaluate(lm, [{"text": text} for text in texts])
    nats, n_tokens, n_bytes = 0.0, 0, 0
    for text in texts[:2]:
        ids = lm.tokenizer.encode_ids(text, special=False)
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids])).logits
            assert logits is not None
            nats -= logits[0, :-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum().item()
        n_tokens += len(ids) - 1
        n_bytes += len(b"".join(lm.tokenizer.bytes_of(id) for id in ids[1:]))
    assert (found.facts["tokens"], found.facts["bytes"]) == (n_tokens, n_bytes)
    assert found["bits per byte"] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    assert found.facts["documents"] == 3 and any("1 document of fewer than two tokens" in note for note in found.notes)


def test_a_tokenizer_that_opens_a_text_has_all_of_it_scored(tmp_path: Path) -> None:
    lm = small.writer()
    lm.pretrained = replace(
        lm.pretrained,
        tokenizer=Tokenizer.train(
            LINES, kind="character", special_tokens={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        ),
    )
    found = clearhead.evaluate(lm, [{"text": "the cat Ж"}])
    assert (found.facts["tokens"], found.facts["bytes"], found.facts["unknown"]) == (9, 10, 1)
    assert any("unknown" in note for note in found.notes) and any("give back" in note for note in found.notes)


def test_labels_by_hand(tmp_path: Path) -> None:
    lm = small.classifier()
    said = [lm.classify(line)[0].label for line in LINES[:12]]
    right = [*said[:9], *("good" if one != "good" else "bad" for one in said[9:])]
    table = tmp_path / "reviews.csv"
    table.write_text("sentence,label\n" + "".join(f'"{a}",{b}\n' for a, b in zip(LINES, right, strict=False)))
    found = clearhead.evaluate(lm, table)
    assert found["accuracy"] == 0.75 and found.facts["rows"] == 12
    f1 = [
        2 * sum(a == b == one for a, b in zip(said, right, strict=True)) / (said.count(one) + right.count(one))
        for one in {*said, *right}
    ]
    assert found["F1"] == pytest.approx(sum(f1) / len(f1))
    assert any("'sentence'" in note for note in found.notes)
    assert clearhead.evaluate(lm, table, changes=["data.encoder.labels=['bad', 'good', 'so so']"])["accuracy"] != 0.75


def test_tags(tmp_path: Path) -> None:
    from seqeval.metrics import f1_score

    lm = small.tagger()
    lines = [line.split() for line in LINES[:8]]
    tags = [[("O", "B-PER", "LOC")[len(word) % 3] for word in line] for line in lines]
    rows = [{"tokens": a, "tags": b} for a, b in zip(lines, tags, strict=True)]
    found = clearhead.evaluate(lm, rows)
    file = tmp_path / "sentences"
    file.write_text("\n".join("".join(f"{w}\t{t}\n" for w, t in zip(*pair, strict=True)) for pair in zip(lines, tags)))  # noqa: B905
    assert clearhead.evaluate(lm, file).scores == found.scores
    assert [score.name for score in found.scores] == ["F1", "accuracy"]  # LOC is neither B- nor I-

    lm = small.encoder(TokenClassification(labels=("O", "B-PER", "I-PER")))
    tags = [["B-PER" if word[0].isupper() else "O" for word in line] for line in lines]
    found = clearhead.evaluate(lm, [{"tokens": a, "tags": b} for a, b in zip(lines, tags, strict=True)])
    said = [[lm.tokenizer.encode(" ".join(line)), lm.classify(" ".join(line), aggregation="none")] for line in lines]
    assert found.scores[0].name == "entity F1" and "seqeval" in found.scores[0].note
    tagged = [
        [
            next((one.label for one in labels if one.start <= at < one.end), "O")
            for at in (sum(len(w) + 1 for w in line[:n]) for n in range(len(line)))
        ]
        for line, (_, labels) in zip(lines, said, strict=True)
    ]
    assert found["entity F1"] == pytest.approx(f1_score(tags, tagged))


def test_masked(tmp_path: Path) -> None:
    lm = small.masked()
    (tmp_path / "text.txt").write_text(TEXT)
    found = clearhead.evaluate(lm, tmp_path / "text.txt")
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"])) and 0 <= found["accuracy"] <= 1
    assert clearhead.evaluate(lm, tmp_path / "text.txt").scores == found.scores  # the same places are asked about
    rows = lm.config.context - 2
    assert found.facts["rows"] == -(-len(lm.tokenizer.encode_ids(TEXT, special=False)) // rows)


def test_what_is_written_is_compared_with_the_texts_themselves(tmp_path: Path) -> None:
    lm = small.writer(translates=True)
    sources = [line[:20] for line in LINES[:4]]
    right = [lm.generate(one, max_new_tokens=5) for one in sources]
    (tmp_path / "a.de").write_text("\n".join(sources))
    (tmp_path / "a.en").write_text("\n".join(one.replace("\n", " ").replace("\r", " ") or "-" for one in right))
    rows = [{"source": a, "target": b} for a, b in zip(sources, right, strict=True)]
    lm.settings = lm.settings.__class__(max_new_tokens=5)
    found = clearhead.evaluate(lm, rows)
    assert found["exact match"] == 1 and found["chrF"] == pytest.approx(100)
    names = ["BLEU", "chrF", "ROUGE-1", "ROUGE-2", "ROUGE-L", "exact match", "loss", "perplexity", "bits per byte"]
    assert [score.name for score in found.scores] == names
    assert "sacrebleu nrefs:1" in found.scores[0].note and "greedy" in found.read
    files = [tmp_path / "a.de", tmp_path / "a.en"]
    assert "beam 2" in clearhead.evaluate(lm, files, num_beams=2).read


def test_what_a_translation_costs_is_the_loss_of_transformers(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(2)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "initializer_factor": 3.0}
    ids = {"vocab_size": small.PIECES.vocab_size, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(**shape, **ids)).save_pretrained(tmp_path / "model")
    small.PIECES.save(tmp_path / "model")
    theirs = T5ForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    pairs = [(line[:25], line[::2] or "-") for line in LINES[:6] if line]
    nats, tokens = 0.0, 0
    for source, target in pairs:
        labels = [*small.PIECES.encode(target).ids, 2]
        with torch.no_grad():
            loss = theirs(torch.tensor([small.PIECES.encode(source).ids]), labels=torch.tensor([labels])).loss
        nats, tokens = nats + loss.item() * len(labels), tokens + len(labels)
    rows = [{"source": source, "target": target} for source, target in pairs]
    found = clearhead.evaluate(tmp_path / "model", rows)
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    n_bytes = sum(len(target.encode()) for _, target in pairs)
    assert found["bits per byte"] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    assert f"{tokens:,} tokens" in next(score.note for score in found.scores if score.name == "loss")

    cut = clearhead.evaluate(tmp_path / "model", rows, changes=["data.encoder.longest=4"])
    assert cut["loss"] != found["loss"] and "bits per byte" not in [score.name for score in cut.scores]
    assert any("cut to 4 tokens: the loss is of what is left of them" in note for note in cut.notes)


def test_a_translator_that_does_not_say_where_it_begins(tmp_path: Path) -> None:
    lm = small.writer(translates=True)
    lm.settings = replace(lm.settings, max_new_tokens=3, decoder_start=2)
    lm.pretrained.config = replace(lm.config, tokens=replace(lm.config.tokens, decoder_start=None))
    rows = [{"source": LINES[0], "target": LINES[1]}]
    assert "loss" in [score.name for score in clearhead.evaluate(lm, rows).scores]  # its settings say it


def test_the_hub_s_way_of_many_languages(tmp_path: Path) -> None:
    from clearhead.api.sources import encoder_table

    def table(row: dict[str, str], **given: str) -> dict[str, object]:
        return encoder_table("sequence-to-sequence", {"translation": row, "id": 3}, given)

    two, three = {"de": "eins", "en": "one"}, {"de": "eins", "en": "one", "fr": "un"}
    assert (table(two)["source"], table(two)["target"]) == ("de", "en")
    assert (table(two, source="en")["source"], table(two, source="en")["target"]) == ("en", "de")
    assert table(three, source="fr", target="de") == {
        "kind": "translation", "nested": "translation", "source": "fr", "target": "de"
    }  # fmt: skip
    for row, named in ((three, {}), (three, {"source": "de"}), (two, {"source": "es"})):
        with pytest.raises(InputError, match=r"the translations are in de, en.*; name two of them with --source"):
            table(row, **named)


def test_a_run_is_measured_on_what_it_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path / "cache"))
    run = Run(recipe(tmp_path), tmp_path / "run")
    events = list(run.go())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    found = clearhead.evaluate(tmp_path / "run")
    assert list(found.scores) == scores(run) and found.facts["step"] == 8
    assert math.log(found["perplexity"]) == pytest.approx(events[-1].validation, rel=1e-5)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before and not found.notes
    newest = max((tmp_path / "run").glob("step-*"))
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    older = clearhead.evaluate(tmp_path / "run")
    assert older.facts["step"] == 4 and older.notes == (
        f"{newest.name} is passed over: model.safetensors is not what was written",
    )
    content[-3] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    with (tmp_path / "verses.txt").open("a") as file:
        file.write("one more line of verse\n" * 10)
    assert any("not what it was" in note for note in clearhead.evaluate(tmp_path / "run").notes)
    with pytest.raises(InputError, match="stride was given, and no data"):
        clearhead.evaluate(tmp_path / "run", stride=3)
    with pytest.raises(InputError, match="is no run's folder"):
        clearhead.evaluate(tmp_path / "cache")


def bad(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content)
    return folder / name


@pytest.mark.parametrize(
    ("lm", "name", "content", "how", "said"),
    [
        (small.embedder(), "a.txt", "a text", {}, "no head whose task can be measured"),
        (small.writer(), "a.txt", "a text", {"task": "sequence-classification"}, "has the head of a causal-language"),
        (small.writer(), "a.txt", "a text", {"task": "causal"}, "did you mean 'causal-language-model'"),
        (small.writer(), "a.txt", "a text", {"stride": 96}, "below the 96 tokens"),
        (small.writer(), "a.txt", "a text", {"context": 97}, "at most the 96 tokens"),
        (small.writer(), "a.txt", "a text", {"num_beams": 2}, "num_beams is of sequence-to-sequence models"),
        (small.writer(), "a.txt", "\n \n", {}, "nothing in it"),
        (small.writer(), "a.txt", "a text", {"kind": "tabel"}, "no kind of data"),
        (small.writer(), "a.txt", "a text", {"columns": ["a"]}, "columns are for tables"),
        (small.writer(), "a.csv", "a,b\nc,d\n", {}, "which column is the text"),
        (small.writer(), "a.csv", "a,b\nc,d\n", {"text": "c"}, "no column 'c' for the text; there are 'a', 'b'"),
        (small.writer(), "a.csv", "a,b\nc,d\n", {"text": "a", "label": "b"}, "has no label; leave"),
        (small.writer(), "a.txt", "a text", {"changes": ["data.encoder.colum=x"]}, "did you mean 'column'"),
        (small.writer(), "a.txt", "a text", {"changes": ["data.held_out=0.5"]}, "has no say here"),
        (small.writer(), "a.txt", "a text", {"changes": ["data.encoder.kind=chat"]}, "data.encoder.kind is 'text' for"),
        (
            small.writer(),
            "a.txt",
            "a text",
            {"tsak": "x"},
            "tsak is no setting of how data is read; did you mean 'task'",
        ),
        (small.classifier(), "a.csv", "text,label\nc,d\n", {}, "a.csv, line 2: the label 'd' in column 'label'"),
        (small.tagger(), "a.conll", "word\n", {}, "no word and tag"),
        (small.writer(translates=True), "a.txt", "a text", {}, "two files, source and target"),
        (
            small.writer(translates=True),
            "a.csv",
            f"source,target\na,b\n{'a b ' * 99},b\n",
            {},
            "a.csv, line 3: the source has",
        ),
    ],
)
def test_what_cannot_be_measured(
    tmp_path: Path, lm: Loaded, name: str, content: str, how: dict[str, object], said: str
) -> None:
    file = bad(tmp_path, name, content)
    with pytest.raises(ClearheadError) as error:
        clearhead.evaluate(lm, file, **how)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_data_of_several_kinds_and_none(tmp_path: Path) -> None:
    lm = small.writer()
    with pytest.raises(InputError, match="several kinds"):
        clearhead.evaluate(lm, [bad(tmp_path, "a.txt", "a"), bad(tmp_path, "b.csv", "text\na")])
    with pytest.raises(ClearheadError, match="no file or folder"):
        clearhead.evaluate(lm, "nowhere.txt")
    with pytest.raises(InputError, match="neither files nor rows"):
        clearhead.evaluate(lm, [3])  # type: ignore[list-item]
    assert "tokens" in clearhead.evaluate(lm, tmp_path, kind="text-files").read
    with pytest.raises(InputError, match="did you mean 'perplexity'"):
        clearhead.evaluate(lm, [{"text": "some text"}])["perplexty"]


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clearhead.cli import main

    folder = gpt2(tmp_path / "model")
    file = bad(tmp_path, "a.jsonl", "".join(json.dumps({"text": line}) + "\n" for line in LINES))
    assert main(["evaluate", str(folder), str(file)]) == 0
    shown = capsys.readouterr().out
    assert "causal-language-model" in shown and "bits per byte" in shown and "windows of 32 tokens" in shown
    assert main(["evaluate", str(folder), str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["scores"]] == ["loss", "perplexity", "bits per byte"]
    assert told["facts"]["documents"] == len(LINES) and told["task"] == "causal-language-model"
    assert main(["evaluate", str(folder), str(tmp_path / "no.txt")]) == 2
    assert main(["evaluate", str(folder)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 2 and "no run's folder" in told
