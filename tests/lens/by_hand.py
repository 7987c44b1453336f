"""A model whose every head was given its role by hand, a tokenizer for it, and the texts that show it.

Its features are what a token is, what stands before it, and where it stands, each as a one-hot vector; its q and k
projections pick from them, so that a head reads just what its row of `HEADS` says. Attention itself is the package's.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.model.attention import Attention
from clearhead.model.config import AttentionConfig
from clearhead.model.masks import Causal, KeyPadding, Mask, Rule
from tests.cli.small import Encoding

SPECIAL = ["[PAD]", "[CLS]", "[SEP]"]
COMMON = [f"a{n}" for n in range(40)]
RARE = [f"r{n}" for n in range(12)]
VERBS, NOUNS = [f"v{n}" for n in range(4)], [f"n{n}" for n in range(4)]
MALE, FEMALE = ["adam", "bob"], ["eve", "ann"]
VOCABULARY = [*SPECIAL, ".", *COMMON, *RARE, *VERBS, *NOUNS, *MALE, *FEMALE, "he", "she", "##ing"]
ID = {word: number for number, word in enumerate(VOCABULARY)}
LENGTH = 128
V, P = len(VOCABULARY), LENGTH
WIDTH = 2 * V + P + 1
"""Features: the token, the one before, the place, and 1."""

SHARP = 40.0


def _token() -> Tensor:
    return torch.cat((torch.eye(V), torch.zeros(V, WIDTH - V)), dim=1)


def _before() -> Tensor:
    return torch.cat((torch.zeros(V, V), torch.eye(V), torch.zeros(V, P + 1)), dim=1)


def _place(step: int = 0) -> Tensor:
    """Row p is 1 at the feature of place p − step: a query there asks for the key `step` further on."""
    shifted = torch.diag(torch.ones(P - abs(step)), diagonal=-step)
    return torch.cat((torch.zeros(P, 2 * V), shifted, torch.zeros(P, 1)), dim=1)


def _one(rows: int) -> Tensor:
    """The same question from every place."""
    return torch.cat((torch.zeros(rows, WIDTH - 1), torch.ones(rows, 1)), dim=1)


def _links(pairs: list[tuple[str, str]]) -> Tensor:
    """From one token to another."""
    table = torch.zeros(V, WIDTH)
    for query, key in pairs:
        table[ID[key], ID[query]] = 1.0
    return table


def _only(words: list[str]) -> Tensor:
    return _token() * torch.tensor([[float(word in words)] for word in VOCABULARY])


NOWHERE = torch.zeros(P, WIDTH)
FIRST_PLACE = torch.cat((_place()[:1], torch.zeros(P - 1, WIDTH)))
HEADS: dict[str, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    # the question and the key, of the token and of the place
    "previous token": ((torch.zeros(V, WIDTH), torch.zeros(V, WIDTH)), (_place(-1), _place())),
    "next token": ((torch.zeros(V, WIDTH), torch.zeros(V, WIDTH)), (_place(1), _place())),
    "positional": ((torch.zeros(V, WIDTH), torch.zeros(V, WIDTH)), (_place(-3), _place())),
    "first-token sink": ((torch.zeros(V, WIDTH), torch.zeros(V, WIDTH)), (_one(P), FIRST_PLACE)),
    "separator": ((_one(V), _only(["[SEP]", "."])), (NOWHERE, NOWHERE)),
    "rare words": ((_one(V), _only(RARE)), (-_place(), _place())),
    "duplicate token": ((_token(), _token()), (-_place(), _place())),
    "induction": ((_token(), _before()), (-_place(1), _place())),
    "syntactic relation": ((_links(list(zip(NOUNS, VERBS, strict=True))), _token()), (NOWHERE, NOWHERE)),
    "coreference": (
        (_links([("he", name) for name in MALE] + [("she", name) for name in FEMALE]), _token()),
        (NOWHERE, NOWHERE),
    ),
    "nothing": ((torch.zeros(V, WIDTH), torch.zeros(V, WIDTH)), (NOWHERE, NOWHERE)),
    "everything": ((_one(V), torch.zeros(V, WIDTH)), (NOWHERE, NOWHERE)),
}
LAYERS = 2
PER_LAYER = len(HEADS) // LAYERS
WHERE = {name: divmod(number, PER_LAYER) for number, name in enumerate(HEADS)}


class ByHand(nn.Module):
    """Two layers of six heads."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.config = SimpleNamespace(vocab_size=V, stacks=(), embedding=SimpleNamespace(token_types=0))
        wide = V + P
        config = replace(AttentionConfig(n_heads=PER_LAYER), d_head=wide, scale=1.0)
        self.layers = nn.ModuleList(Attention(config, WIDTH) for _ in range(LAYERS))
        made = list(HEADS.values())
        for layer, attention in enumerate(self.layers):
            own = made[layer * PER_LAYER : (layer + 1) * PER_LAYER]
            with torch.no_grad():
                for weights in attention.parameters():
                    weights.zero_()
                attention.q_proj.weight.copy_(SHARP * torch.cat([torch.cat((t[0], p[0])) for t, p in own]))
                attention.k_proj.weight.copy_(torch.cat([torch.cat((t[1], p[1])) for t, p in own]))
        self.eval()

    def forward(self, ids: Tensor, *, attention_mask: Tensor | None = None) -> None:
        before = F.pad(ids, (1, 0))[:, :-1]
        places = torch.arange(ids.shape[1]).expand_as(ids)
        parts = [F.one_hot(ids, V), F.one_hot(before, V), F.one_hot(places, P), torch.ones(*ids.shape, 1)]
        x = torch.cat([part.float() for part in parts], dim=-1)
        rules: list[Rule] = [Causal()] if self.causal else []
        if attention_mask is not None:
            rules.append(KeyPadding(attention_mask))
        for attention in self.layers:
            attention(x, mask=Mask(tuple(rules)))


class Words:
    """Words by spaces, a final `ing` a piece of its own; framed, with [CLS] and [SEP] around."""

    def __init__(self, framed: bool) -> None:
        self.framed = framed

    def encode(self, text: str, /) -> Encoding:
        labels, offsets, at = [], [], 0
        for word in text.split(" "):
            stem = word.removesuffix("ing")
            labels.append(stem if stem in ID else "a0")
            offsets.append((at, at + len(stem)))
            if stem != word:
                labels.append("##ing")
                offsets.append((at + len(stem), at + len(word)))
            at += len(word) + 1
        if self.framed:
            labels, offsets = ["[CLS]", *labels, "[SEP]"], [(0, 0), *offsets, (0, 0)]
        return Encoding([ID[label] for label in labels], offsets, [0] * len(labels), labels)


class Loaded:
    """A model with words."""

    name = "by hand"

    def __init__(self, model: nn.Module, framed: bool) -> None:
        self.model, self.tokenizer = model, Words(framed)


def by_hand(causal: bool) -> Loaded:
    """The model that reads one way, or both, where its texts are framed."""
    return Loaded(ByHand(causal), framed=not causal)


def sentences(n: int = 12) -> list[str]:
    """Texts of common words with a rare one and full stops; each rare word stands in one text."""
    draw = random.Random(0)
    texts = []
    for number in range(n):
        words = draw.choices(COMMON[:12], k=13)
        words.insert(draw.randrange(1, 8), RARE[number])
        words.insert(6, ".")
        texts.append(" ".join([*words, "."]))
    return texts


def treebank(path: Path, n: int = 70) -> Path:
    """Sentences in which noun k is the object of verb k, at any distance, and the rest hangs on the word before."""
    draw = random.Random(1)
    blocks = []
    for _ in range(n):
        which = draw.randrange(len(VERBS))
        words = draw.choices(COMMON[:12], k=9)
        verb = draw.randrange(0, 5)
        noun = draw.randrange(verb + 1, 9)
        words[verb], words[noun] = VERBS[which], NOUNS[which] + ("ing" if draw.random() < 0.5 else "")
        lines = [f"# text = {' '.join(words)}"]
        for at, word in enumerate(words):
            head, relation = (0, "root") if at == verb else (verb + 1, "obj") if at == noun else (verb + 1, "dep")
            lines.append("\t".join([str(at + 1), word, "_", "_", "_", "_", str(head), relation, "_", "_"]))
        blocks.append("\n".join(lines))
    path.write_text("\n\n".join(blocks) + "\n")
    return path


def pairs(path: Path, n: int = 80) -> Path:
    """Texts with a man, a woman and a pronoun after both."""
    draw = random.Random(2)
    lines = ["Text\tMention\tMention-offset\tName\tName-offset\tOthers"]
    for _ in range(n):
        he, she = draw.choice(MALE), draw.choice(FEMALE)
        pronoun, name, other = draw.choice([("he", he, she), ("she", she, he)])
        first, second = draw.sample([name, other], 2)
        words = [*draw.choices(COMMON, k=2), first, *draw.choices(COMMON, k=2), second, *draw.choices(COMMON, k=2)]
        text = " ".join([*words, pronoun, "."])
        at = {
            word: len(" ".join(text.split(" ")[: text.split(" ").index(word) + 1])) - len(word)
            for word in (name, other)
        }
        place = len(" ".join(words)) + 1
        lines.append(f"{text}\t{pronoun}\t{place}\t{name}\t{at[name]}\t{other}@{at[other]}")
    path.write_text("\n".join(lines) + "\n")
    return path
