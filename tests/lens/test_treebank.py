"""Treebanks and pairs: read as they are written, refused by the line; words read what their pieces read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.errors import InputError
from clearhead.lens.roles.coreference import tokens_of
from clearhead.lens.roles.pairs import read_pairs
from clearhead.lens.roles.probes import Probe, read_texts
from clearhead.lens.roles.relations import add_words, answer, needed, word_of_token
from clearhead.lens.roles.treebank import read_treebank

SENTENCE = """\
# sent_id = 1
# text = He didn't go to "Rome".
1\tHe\the\tPRON\t_\t_\t4\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdid\tdo\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
4\tgo\tgo\tVERB\t_\t_\t0\troot\t_\t_
4.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_
5\tto\tto\tADP\t_\t_\t7\tcase\t_\t_
6\t"\t"\tPUNCT\t_\t_\t7\tpunct\t_\tSpaceAfter=No
7\tRome\tRome\tPROPN\t_\t_\t4\tobl\t_\tSpaceAfter=No|Gloss=x
8\t"\t"\tPUNCT\t_\t_\t7\tpunct\t_\tSpaceAfter=No
9\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_
"""
FRENCH = "1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_\n1\tde\tde\t_\t_\t_\t3\tcase\t_\t_\n2\tle\tle\t_\t_\t_\t3\tdet\t_\t_\n"
FRENCH += "3\tpain\tpain\t_\t_\t_\t0\troot\t_\t_\n"


def written(tmp_path: Path, text: str | bytes, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ── CoNLL-U ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sentence_is_put_together_again(tmp_path: Path) -> None:
    first, second = read_treebank(written(tmp_path, SENTENCE + "\n" + FRENCH))
    assert first.text == 'He didn\'t go to "Rome".'
    words = [first.text[a:b] for a, b in first.spans]
    assert words == ["He", "did", "n't", "go", "to", '"', "Rome", '"', "."]
    assert first.heads == [3, 3, 3, -1, 6, 6, 3, 6, 3] and first.relations[6] == "obl"
    assert second.text == "du pain" and second.spans == [(0, 2), (0, 2), (3, 7)]  # de and le share what is written


def test_only_so_many_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, (SENTENCE + "\n") * 5)
    assert len(read_treebank(path)) == 5 and len(read_treebank(path, 2)) == 2


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf" + SENTENCE.replace("\n", "\r\n").encode())
    assert read_treebank(path)[0].text.startswith("He didn't")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no sentence"),
        ("# only a comment\n", "has no sentence"),
        ("The animal was tired.\n", "line 1: 1 columns where CoNLL-U has 10"),
        (SENTENCE.replace("4\tgo", "four\tgo"), "'four' stands where"),
        (SENTENCE.replace("\t4\tnsubj", "\tfour\tnsubj"), "line 3: 'four' stands where"),
        (SENTENCE.replace("\t4\tnsubj", "\t99\tnsubj"), "line 3: depends on word 99, and the sentence has 9"),
        (SENTENCE.replace("9\t.", "7\t."), "word 7 follows word 8"),
        (b"1\t\xff\t_\n", "is not UTF-8"),
    ],
)
def test_what_is_no_treebank(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_treebank(written(tmp_path, text))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for read in (read_treebank, read_pairs, read_texts):
        with pytest.raises(InputError, match="there is no file"):
            read(tmp_path / "none")
        with pytest.raises(InputError, match="is a folder"):
            read(tmp_path)


def test_the_whole_of_ewt(shared: Path) -> None:
    sentences = read_treebank(shared / "data/ud-ewt/en_ewt-ud-dev.conllu")
    lines = (shared / "data/ud-ewt/en_ewt-ud-dev.conllu").read_text(encoding="utf-8").splitlines()
    texts = [line.removeprefix("# text = ").rstrip() for line in lines if line.startswith("# text = ")]
    assert len(sentences) == len(texts) == 2001
    same = sum(one.text == text for one, text in zip(sentences, texts, strict=True))
    assert same / len(texts) > 0.99  # the rest has blanks that CoNLL-U does not note


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────

GAP = (
    "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL\n"
    "1\tAnn saw Eve and she left\tshe\t16\tAnn\t0\tFALSE\tEve\t8\tTRUE\thttp\n"
    "2\tAnn saw Eve and she left\tshe\t16\tAnn\t0\tFALSE\tEve\t8\tFALSE\thttp\n"
)
OWN = "Text\tMention\tMention-offset\tName\tName-offset\tOthers\nAnn, Eve, Sue: she\tshe\t15\tEve\t5\tAnn@0; Sue@10\n"


def test_gap_and_a_table_of_ones_own(tmp_path: Path) -> None:
    gap = read_pairs(written(tmp_path, GAP))
    assert gap.without_name == 1 and len(gap.pairs) == 1
    one = gap.pairs[0]
    assert [one.text[a:b] for a, b in (one.mention, one.name, *one.others)] == ["she", "Eve", "Ann"]
    own = read_pairs(written(tmp_path, OWN)).pairs[0]
    assert [own.text[a:b] for a, b in (own.mention, own.name, *own.others)] == ["she", "Eve", "Ann", "Sue"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no header"),
        ("Text\tWord\n", "has no header"),
        (GAP.splitlines()[0] + "\n", "has no pair"),
        (GAP.replace("\thttp", "", 1), "line 2: 10 columns where the header has 11"),
        (GAP.replace("\t16\t", "\t17\t", 1), "line 2: 'she' does not stand at character 17"),
        (GAP.replace("\t16\t", "\t-1\t", 1), "line 2: '-1' is no offset"),
        (GAP.replace("TRUE", "maybe"), "line 2: 'maybe' stands where TRUE or FALSE belongs"),
        (OWN.replace("Ann@0; Sue@10", "Ann"), "write word@offset"),
        (OWN.replace("Ann@0; Sue@10", ""), "write word@offset"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_what_is_no_table_of_pairs(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_pairs(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["development", "test", "validation"])
def test_the_whole_of_gap(shared: Path, name: str) -> None:
    found = read_pairs(shared / f"data/gap/gap-{name}.tsv")
    assert len(found.pairs) + found.without_name == (454 if name == "validation" else 2000)


# ── words and their pieces ───────────────────────────────────────────────────────────────────────────────────────


def test_tokens_belong_to_the_word_they_share_most_with() -> None:
    spans = [(0, 2), (3, 6), (6, 9), (10, 12)]  # He did n't go
    offsets = [(0, 0), (0, 2), (2, 6), (3, 7), (7, 9), (9, 12), (12, 13), (0, 0)]
    assert word_of_token(offsets, spans).tolist() == [-1, 0, 1, 1, 2, 3, -1, -1]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_words_read_what_their_pieces_read(seed: int, block: int) -> None:
    """Summed over the pieces of what is read, averaged over those of what reads: cell by cell, and in blocks."""
    draw = torch.Generator().manual_seed(seed)
    tokens, n = int(torch.randint(3, 12, (1,), generator=draw)), int(torch.randint(1, 5, (1,), generator=draw))
    of = torch.randint(-1, n, (tokens,), generator=draw)
    weights = torch.rand(2, tokens, tokens, generator=draw)
    words = torch.zeros(2, n, n)
    for low in range(0, tokens, block):
        rows = range(low, min(tokens, low + block))
        add_words(words, weights[:, rows.start : rows.stop], rows, of)
    for a in range(n):
        queries = [i for i in range(tokens) if of[i] == a]
        for b in range(n):
            keys = [j for j in range(tokens) if of[j] == b]
            sums = [weights[:, i, keys].sum(-1) for i in queries]
            expected = torch.stack(sums).mean(0) if sums else torch.zeros(2)
            torch.testing.assert_close(words[:, a, b], expected, atol=1e-5, rtol=0)
    found = answer(words)
    for head in range(2):
        for a in range(n):
            others = {b: float(words[head, a, b]) for b in range(n) if b != a and words[head, a, b] > 0}
            assert int(found[head, a]) == (max(others, key=others.__getitem__) if others else -1)


def test_the_tokens_of_a_name() -> None:
    one = Probe(
        [1, 5, 6, 7, 2],
        [True, False, False, False, True],
        [False] * 5,
        [0] * 5,
        [(0, 0), (0, 3), (3, 5), (6, 9), (0, 0)],
    )
    assert tokens_of(one, (0, 5)) == [1, 2] and tokens_of(one, (6, 9)) == [3]


def test_what_it_takes() -> None:
    assert needed(0.2, 1000) == 0.5  # half at least
    assert needed(0.6, 10_000) == pytest.approx(0.7)  # ten points
    assert needed(0.5, 50) == pytest.approx(0.5 + 4 * (0.25 / 50) ** 0.5)  # four standard errors
