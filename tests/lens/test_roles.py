"""Heads that were given a role by hand are found; random models have none; the scores are what they are defined as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clearhead.errors import InputError, OutsideError
from clearhead.lens.roles import FirstToken, Role, Roles, find, habits, induction
from clearhead.lens.roles.detectors import DETECTORS, TIMES_CHANCE
from clearhead.lens.roles.probes import Probe, frame, probe, repeats, with_rare
from clearhead.lens.roles.reading import Batch, blocks, read, without_first
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.config import ALiBi, AttentionConfig, NoPosition, Rotary, T5Bias
from clearhead.model.transformer import build
from tests.cli import small
from tests.lens import by_hand
from tests.model import tiny

FEW = settings(max_examples=4, phases=(Phase.explicit, Phase.generate))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("roles")
    return {
        "treebank": by_hand.treebank(folder / "tiny.conllu"),
        "coreference": by_hand.pairs(folder / "pairs.tsv"),
    }


@pytest.fixture(scope="module", params=[True, False], ids=["one way", "both ways"])
def found(request: pytest.FixtureRequest, files: dict[str, Path]) -> tuple[bool, Roles]:
    return request.param, find(by_hand.by_hand(request.param), texts=by_hand.sentences(), **files)


# ── every role, by hand ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_a_head_made_for_a_role_is_found(found: tuple[bool, Roles], role: Role) -> None:
    causal, roles = found
    own = {(one.layer, one.head) for one in roles.findings if one.role is role}
    if role is Role.NEXT and causal:
        assert own == set()  # nobody reads ahead
        assert ["next token", "–", "–", "–", "nothing to read that way"] in roles.summary()
        return
    expected = {by_hand.WHERE[role.value]}
    if role is Role.POSITIONAL:  # so are those of the token before and the one after
        expected |= {by_hand.WHERE["previous token"]} | (set() if causal else {by_hand.WHERE["next token"]})
    assert own == expected


def test_heads_without_a_role_have_none(found: tuple[bool, Roles]) -> None:
    _, roles = found
    for name in ("nothing", "everything"):
        assert roles.of(*by_hand.WHERE[name]) == []


def test_what_is_said_of_them(found: tuple[bool, Roles]) -> None:
    _, roles = found
    distances = {(one.layer, one.head): one.detail for one in roles.findings if one.role is Role.POSITIONAL}
    assert distances[by_hand.WHERE["positional"]] == "-3" and distances[by_hand.WHERE["previous token"]] == "-1"
    (syntax,) = roles.of(*by_hand.WHERE["syntactic relation"])
    assert syntax.detail == "obj to head" and syntax.score == 1.0 and syntax.beside < 0.5
    (coreference,) = roles.of(*by_hand.WHERE["coreference"])
    assert coreference.score == 1.0 and coreference.beside == pytest.approx(0.5, abs=0.15)
    assert roles["induction"].best == by_hand.WHERE["induction"]
    assert roles.kind == "decoder" and roles.sentences == 70
    with pytest.raises(OutsideError, match="choose one of"):
        roles["plumber"]
    with pytest.raises(OutsideError, match="2 layers × 6 heads"):
        roles.of(2, 0)
    text = str(roles)
    assert "first token kept" in text and "obj to head" in text


def test_a_fixed_distance_is_no_copy() -> None:
    """A head that reads 49 tokens back scores on a period of 50 alone; the periods differ."""
    model = by_hand.ByHand(True)
    with torch.no_grad():
        wide = by_hand.V + by_hand.P
        head = by_hand.WHERE["induction"][1]
        question = torch.cat((torch.zeros(by_hand.V, by_hand.WIDTH), by_hand._place(-49)))
        model.layers[1].q_proj.weight[head * wide : (head + 1) * wide] = by_hand.SHARP * question
        keys = torch.cat((torch.zeros(by_hand.V, by_hand.WIDTH), by_hand._place()))
        model.layers[1].k_proj.weight[head * wide : (head + 1) * wide] = keys
    scores = induction(model)
    assert float(scores.values[1, head]) < 0.5 and not bool(scores.found.any())


# ── random models have none ──────────────────────────────────────────────────────────────────────────────────────

RANDOM: dict[str, Callable[[], nn.Module]] = {
    "encoder": tiny.encoder,
    "decoder": tiny.decoder,
    "rotary": lambda: tiny.decoder(Rotary()),
    "ALiBi": lambda: tiny.decoder(ALiBi()),
    "ALiBi both ways": lambda: tiny.encoder(ALiBi()),
    "T5": lambda: tiny.encoder(T5Bias(buckets=8, max_distance=20)),
    "no positions": lambda: tiny.encoder(NoPosition()),
    "sinks": lambda: tiny.decoder(attention=AttentionConfig(n_heads=4, sinks=True)),
    "fresh GPT-2": lambda: build(presets.gpt2(n_layers=3, n_heads=4, d_model=64, vocab_size=100, context=128)),
    "fresh BERT": lambda: build(presets.bert(n_layers=3, n_heads=4, d_model=64, vocab_size=100, context=128)),
}


class Plain(by_hand.Words):
    """The words, within the vocabulary of a tiny model."""

    def __init__(self, framed: bool, size: int) -> None:
        super().__init__(framed)
        self.size = size

    def encode(self, text: str, /) -> Any:
        encoding = super().encode(text)
        encoding.ids = [id % self.size for id in encoding.ids]
        return encoding


@pytest.mark.parametrize(
    ("name", "first"),
    [*((name, "kept") for name in RANDOM), *((name, "renormalised") for name in ("decoder", "ALiBi", "fresh BERT"))],
)
def test_a_random_model_has_no_roles(name: str, first: str, files: dict[str, Path]) -> None:
    model = RANDOM[name]().eval()
    lm = by_hand.Loaded(model, framed="encoder" in dir(model))
    lm.tokenizer = Plain("encoder" in dir(model), model.config.vocab_size)  # type: ignore[union-attr]
    roles = find(lm, texts=by_hand.sentences(), first_token=first, **files)
    assert roles.findings == []
    assert roles.relations and roles.coreference is not None  # they were looked for


# ── the definition ───────────────────────────────────────────────────────────────────────────────────────────────


def by_definition(role: Role, a: Tensor, readable: Tensor, one: Probe) -> tuple[float, float, int]:
    """The sum of weights on what the role reads, of chance, and the queries, of one text, cell by cell."""
    n, total, chance, queries = len(one), 0.0, 0.0, 0
    for i in range(n):
        aim = []
        for j in range(n):
            words = not one.special[i] and not one.special[j]
            hit = {
                Role.PREVIOUS: j == i - 1,
                Role.NEXT: j == i + 1,
                Role.FIRST: j == 0 and i > 0,
                Role.SEPARATOR: one.separators[j] and not one.separators[i],
                Role.RARE: bool(one.rare) and one.rare[j] and i != j,
                Role.DUPLICATE: words and one.ids[i] == one.ids[j] and i != j,
                Role.INDUCTION: words
                and j > 0
                and not one.special[j - 1]
                and one.ids[j - 1] == one.ids[i]
                and j - 1 != i,
            }[role]
            if hit and bool(readable[i, j]):
                aim.append(j)
        if aim:
            queries += 1
            total += float(a[i, aim].sum())
            chance += len(aim) / int(readable[i].sum())
    return total, chance, queries


@FEW
@given(st.integers(0, 1000), st.booleans(), st.sampled_from(list(FirstToken)))
def test_scores_are_their_definition(seed: int, causal: bool, first: FirstToken) -> None:
    model = tiny.decoder() if causal else tiny.encoder()
    draw = torch.Generator().manual_seed(seed)
    probes = []
    for _ in range(5):
        n = int(torch.randint(3, 14, (1,), generator=draw))
        ids = torch.randint(3, 9, (n,), generator=draw).tolist()
        special = [True, *[False] * (n - 2), True]
        separators = [False, *(torch.rand(n - 2, generator=draw) < 0.2).tolist(), True]
        probes.append(Probe(ids, special, separators, [0] * n))
    probes = with_rare(probes)
    weights: list[list[Tensor]] = []
    for one in probes:
        with torch.inference_mode(), watch(model) as seen:
            model(torch.tensor([one.ids]))
        weights.append([torch.stack([seen.map(layer, h).dense() for h in range(4)]) for layer in range(2)])
    kind = "decoder" if causal else "encoder"
    scores = {s.role: s for s in [*habits(model, probes, [], kind, first), *habits(model, [], probes, kind, first)]}
    for detector in DETECTORS:
        sums, counts, chances, queries = torch.zeros(2, 4), torch.zeros(2, 4), 0.0, 0
        for one, table in zip(probes, weights, strict=True):
            n = len(one)
            readable = torch.ones(n, n, dtype=torch.bool).tril() if causal else torch.ones(n, n, dtype=torch.bool)
            if first is not FirstToken.KEPT and not detector.as_it_is:
                readable[0], readable[:, 0] = False, False
            for layer in range(2):
                for head in range(4):
                    a = table[layer][head] * readable
                    if first is FirstToken.RENORMALISED and not detector.as_it_is:
                        a = a / a.sum(1, keepdim=True).clamp(min=1e-9)
                    total, chance, count = by_definition(detector.role, a, readable, one)
                    sums[layer, head] += total
                    counts[layer, head] += count
            chances, queries = chances + chance, queries + count
        own = scores[detector.role]
        assert own.queries == queries
        assert own.chance == pytest.approx(chances / max(1, queries), abs=1e-6)
        torch.testing.assert_close(own.values, sums / counts.clamp(min=1), atol=1e-5, rtol=0)
        enough = (counts >= 20) & (own.values >= own.needs) & (own.values >= TIMES_CHANCE * own.chance)
        assert torch.equal(own.found, enough)


def test_batches_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearhead.lens.roles import reading

    model, probes = tiny.encoder(), [probe(small.Words(True), text) for text in by_hand.sentences(6)]
    together = habits(model, with_rare(probes), [], "encoder")
    monkeypatch.setattr(reading, "TOKENS", 1)  # a text at a time
    monkeypatch.setattr(reading, "CELLS", 150)  # two rows at a time
    apart = habits(model, with_rare(probes), [], "encoder")
    for one, other in zip(together, apart, strict=True):
        assert one.role is other.role and one.queries == other.queries
        torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=0)


def test_blocks_are_the_maps() -> None:
    model = tiny.decoder(Rotary(), attention=AttentionConfig(n_heads=4, n_kv_heads=2, window=3))
    probes = [Probe(tiny.ids(1, n, seed=n)[0].tolist(), [False] * n, [False] * n, [0] * n) for n in (5, 9, 7)]
    for batch, calls in read(model, probes, "decoder", "x"):
        assert batch.numbers == [0, 2, 1]
        for call in calls:
            for block in blocks(call, batch):
                for row, one in enumerate(batch.probes):
                    n = len(one)
                    full = torch.stack([call.map(h, row).dense() for h in range(4)])
                    torch.testing.assert_close(block.weights[row][:, :n, :n], full[:, :n, :n], atol=1e-6, rtol=0)
                    expected = torch.ones(n, n, dtype=torch.bool).tril().triu(-2)
                    assert torch.equal(block.readable[row][:n, :n], expected)
                    assert not bool(block.readable[row][n:].any() | block.readable[row][:, n:].any())


def test_the_first_token_is_treated_as_chosen() -> None:
    weights = torch.tensor([[[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.8, 0.1, 0.1]]]])
    from clearhead.lens.roles.reading import Block

    block = Block(0, range(3), weights, torch.ones(1, 3, 3, dtype=torch.bool).tril())
    assert without_first(block, FirstToken.KEPT) is block
    dropped = without_first(block, FirstToken.DROPPED)
    assert dropped.weights[0, 0].tolist()[1] == [0.0, 0.5, 0.0] and not dropped.readable[0, :, 0].any()
    rest = without_first(block, FirstToken.RENORMALISED)
    assert rest.weights[0, 0, 2].tolist() == pytest.approx([0.0, 0.5, 0.5])
    assert bool(rest.weights[0, 0, 0].isnan().all())  # nothing was left of it
    assert float(block.weights[0, 0, 1, 0]) == 0.5  # and what was given is as it was


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_random_tokens_twice() -> None:
    probes = repeats(range(100), before=[1], after=[2], texts=4)
    for one, n in zip(probes, (50, 44, 38, 32), strict=True):
        own = one.ids[1:-1]
        assert len(own) == 2 * n and own[:n] == own[n:] and len(set(own[:n])) == n
        assert (
            one.ids[0] == 1 and one.ids[-1] == 2 and one.special[0] and one.separators == [False] * (2 * n + 1) + [True]
        )
    assert [one.ids for one in probes] == [one.ids for one in repeats(range(100), before=[1], after=[2], texts=4)]
    assert max(map(len, repeats(range(100), context=40))) <= 40
    assert max(map(len, repeats(range(10)))) == 20
    with pytest.raises(InputError, match="twice 4 tokens"):
        repeats(range(3))
    assert frame(small.Words(True)) == ([1], [2]) and frame(small.Words(False)) == ([], [])


def test_rare_tokens_are_those_the_texts_have_least() -> None:
    def of(ids: list[int]) -> Probe:
        return Probe(ids, [False] * len(ids), [False] * len(ids), [0] * len(ids))

    texts = [of([5, 5, 5, 6, 6, 6, 7, 7, 7, 8]), of([5, 6, 7, 5, 6, 7]), of([5, 6])]
    marked = with_rare(texts)
    assert marked[0].rare == [False] * 9 + [True]
    assert not any(marked[1].rare) and not any(marked[2].rare)  # all their tokens are about as common


# ── other models, other inputs ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_both_sides_of_an_encoder_decoder(kind: Any) -> None:
    lm = small.Small("buckets", tiny.translator(T5Bias(buckets=8, max_distance=20)))
    roles = find(lm, kind=kind, texts=["the cat sat on the mat .", "a dog ran and the cat sat ."] * 3)
    assert roles.kind == kind and roles.layers == 2
    queries = roles["next token"].queries
    assert queries == 0 if kind == "decoder" else queries > 0
    with pytest.raises(InputError, match="self-attention"):
        find(lm, kind="cross")


def test_the_start_token_stands_first_on_the_decoders_side() -> None:
    lm = small.Small("learned", tiny.translator())
    probes = [probe(lm.tokenizer, text) for text in ("the cat sat", "a dog ran and ran")]
    for batch, _ in read(lm.model, probes, "decoder", "x"):
        assert batch.ids[:, 0].tolist() == [2, 2] and batch.special[:, 0].all()
        assert batch.ids[0, 1:3].tolist() == probes[0].ids[:2] and batch.real.sum(1).tolist() == [3, 5]


def test_what_is_left_out_is_said(files: dict[str, Path]) -> None:
    lm = by_hand.Loaded(
        build(presets.gpt2(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=20)).eval(), False
    )
    roles = find(lm, texts=[*by_hand.sentences(), "a1 " * 29 + "a2"], coreference=files["coreference"])
    assert "1 texts left out that are longer than 20 tokens." in roles.notes
    assert roles.texts == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first_token": "gone"}, "first_token='gone' is not a choice"),
        ({"kind": "encoder"}, "no 'encoder' attention"),
        ({"texts": ["a1 " * 400 + "a2"]}, "no text to read"),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], message: str) -> None:
    lm = by_hand.Loaded(
        build(presets.gpt2(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=64)).eval(), False
    )
    with pytest.raises(InputError, match=message):
        find(lm, **arguments)


def test_one_batch_is_padded_at_its_end() -> None:
    batch = Batch.of([Probe([4, 5, 6], [False] * 3, [False] * 3, [0] * 3), Probe([7], [False], [False], [0])])
    assert batch.ids.tolist() == [[4, 5, 6], [7, 0, 0]] and batch.real.sum().item() == 4
