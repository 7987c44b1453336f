"""find. Read the texts, the treebank and the pairs with a model, and say which heads have which role."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from clearhead.errors import InputError
from clearhead.lens.given import check_module, check_readable
from clearhead.lens.roles.coreference import Coreference, CoreferenceTally
from clearhead.lens.roles.detectors import POSITIONAL_NEEDS, Tallies, Tally
from clearhead.lens.roles.names import FirstToken, Role
from clearhead.lens.roles.pairs import Pair, Pairs, read_pairs
from clearhead.lens.roles.probes import (
    SENTENCES,
    Probe,
    frame,
    ordinary,
    probe,
    read_texts,
    repeats,
    with_rare,
)
from clearhead.lens.roles.reading import Progress, blocks, read
from clearhead.lens.roles.relations import FEWEST, Relation, RelationTally
from clearhead.lens.roles.report import Roles, Scores
from clearhead.lens.roles.treebank import Sentence, read_treebank
from clearhead.lens.seen import Call, Kind
from clearhead.lens.texts import Readable, Tokenizing
from clearhead.model.transformer import Encoder, EncoderDecoder

T = TypeVar("T")

LONGEST = 1024
"""Tokens. A sentence or text with more is left out, and counted: words × words of every head are held at a time."""


def find(
    lm: Readable,
    *,
    texts: Sequence[str] | str | Path | None = None,
    treebank: str | Path | Sequence[str | Path] = (),
    coreference: str | Path | Sequence[str | Path] = (),
    first_token: FirstToken | str = FirstToken.KEPT,
    kind: Kind | None = None,
    limit: int | None = None,
    fewest: int = FEWEST,
    progress: Progress | None = None,
) -> Roles:
    """The roles of a model's heads.

    texts: what habits are seen on: a list, a file with one a line, or None: the treebank's sentences, else our own.
    treebank, coreference: files (`treebank.py`, `pairs.py` say which), of which at most `limit` sentences and pairs are
    read. first_token: see FirstToken. kind: "encoder" or "decoder" in an encoder-decoder, which then reads each text as
    source and target; the encoder by default. fewest: relations with fewer pairs are not listed.
    Raises InputError for a file that cannot be read.
    """
    choice = _choice(first_token)
    check_readable(lm)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit={limit!r} reads no sentence; give a whole number, 1 or more, or None for all.")
    model, tokenizer = lm.model, lm.tokenizer
    own = _kind(model, kind)
    longest = _longest(model)
    notes: list[str] = []
    sentences = [one for path in _paths(treebank) for one in read_treebank(path, limit)][:limit]
    tables = [read_pairs(path, limit) for path in _paths(coreference)]
    trees, sentences = _fitting([probe(tokenizer, s.text) for s in sentences], sentences, longest, "sentence", notes)
    if isinstance(texts, str | Path):
        texts = read_texts(Path(texts))
    if texts is None and trees:
        plain = trees
    else:
        words = list(texts) if texts is not None else list(SENTENCES)
        for number, text in enumerate(words):
            if not isinstance(text, str) or not text.strip():
                what = "is empty" if isinstance(text, str) else f"is of type {type(text).__name__}"
                raise InputError(f"text {number} {what}; give texts of at least one word.")
        plain, _ = _fitting([probe(tokenizer, text) for text in words], words, longest, "text", notes)
    if not plain:
        raise InputError(
            "there is no text to read that fits the model; give others, texts=[…] (--texts FILE on the command line)."
        )
    plain = with_rare(plain)
    before, after = frame(tokenizer)
    apart = {id for one in plain for id, special in zip(one.ids, one.special, strict=True) if special}
    twice = repeats(
        ordinary(_vocabulary(model), apart | set(_named(tokenizer))), before=before, after=after, context=longest
    )

    scores = habits(model, plain, twice, own, choice, progress)
    layers, heads = scores[0].values.shape
    relations = _relations(model, trees, sentences, own, choice, (layers, heads), fewest, progress) if trees else []
    both = _coreference(model, tokenizer, tables, limit, own, choice, (layers, heads), longest, notes, progress)
    return Roles(
        kind=own,
        layers=layers,
        heads=heads,
        first_token=choice,
        texts=len(plain),
        tokens=sum(map(len, plain)),
        scores=tuple(scores),
        relations=tuple(relations),
        coreference=both,
        notes=tuple(notes),
        sentences=len(trees),
        from_treebank=texts is None and bool(trees),
    )


def habits(
    model: nn.Module,
    plain: Sequence[Probe],
    twice: Sequence[Probe],
    kind: Kind,
    first_token: FirstToken = FirstToken.KEPT,
    progress: Progress | None = None,
) -> list[Scores]:
    """The roles that show in weights alone, of a model and texts given as ids; either list may be empty."""
    check_module(model)
    scores: list[Scores] = []
    for on, probes in (("sentences", plain), ("repeats", twice)):
        tallies: Tallies | None = None
        for batch, calls in read(model, probes, kind, f"reading {on}", progress) if probes else ():
            if tallies is None:
                tallies = Tallies("repeats" if on == "repeats" else "sentences", *_shape(calls), first_token)
            for call in calls:
                for block in blocks(call, batch):
                    tallies.add(block, batch)
        if tallies is not None:
            scores += [_scores(role, tally) for role, tally in tallies.of.items()]
            if tallies.at:
                scores.append(_positional(tallies.at))
    order = list(Role)
    return sorted(scores, key=lambda one: order.index(one.role))


def induction(
    model: nn.Module,
    *,
    vocabulary: Sequence[int] | None = None,
    context: int | None = None,
    kind: Kind | None = None,
    first_token: FirstToken = FirstToken.KEPT,
) -> Scores:
    """The induction score of every head of a model without a tokenizer: random ids, read twice (Olsson et al. 2022).

    vocabulary: the ids to draw from, all of the model's by default. context: the longest text to use.
    """
    check_module(model)
    ids = vocabulary if vocabulary is not None else range(_vocabulary(model))
    probes = repeats(list(ids), context=context if context is not None else _longest(model))
    found = habits(model, [], probes, _kind(model, kind), first_token)
    return next(one for one in found if one.role is Role.INDUCTION)


def _scores(role: Role, tally: Tally) -> Scores:
    return Scores(role, tally.scores, tally.chance, tally.needs, tally.queries, tally.found)


def _positional(at: dict[int, Tally]) -> Scores:
    """Each head at the distance where it scores best. Distances that few tokens have are not looked at."""
    most = max(tally.queries for tally in at.values())
    counted = {step: tally for step, tally in at.items() if tally.queries * 2 >= most}
    steps = list(counted)
    values, which = torch.stack([counted[step].scores for step in steps]).max(0)
    found = torch.stack([counted[step].found for step in steps]).gather(0, which[None])[0]
    details = {(a, b): f"{steps[int(which[a, b])]:+d}" for a, b in found.nonzero().tolist()}
    chance = max((tally.chance for tally in counted.values()), default=0.0)
    return Scores(Role.POSITIONAL, values, chance, POSITIONAL_NEEDS, most, found, details)


def _relations(
    model: nn.Module,
    trees: Sequence[Probe],
    sentences: Sequence[Sentence],
    kind: Kind,
    choice: FirstToken,
    shape: tuple[int, int],
    fewest: int,
    progress: Progress | None,
) -> list[Relation]:
    tally = RelationTally(*shape, choice)
    for batch, calls in read(model, trees, kind, "reading the treebank", progress):
        tally.add(calls, batch, [sentences[number] for number in batch.numbers], blocks)
    return tally.relations(fewest)


def _coreference(
    model: nn.Module,
    tokenizer: Tokenizing,
    tables: Sequence[Pairs],
    limit: int | None,
    kind: Kind,
    choice: FirstToken,
    shape: tuple[int, int],
    longest: int,
    notes: list[str],
    progress: Progress | None,
) -> Coreference | None:
    if not tables:
        return None
    pairs: list[Pair] = [pair for each in tables for pair in each.pairs][:limit]
    without = sum(each.without_name for each in tables)
    if without:
        notes.append(f"Coreference: {without} rows left out whose mention stands for none of the names.")
    probes, pairs = _fitting([probe(tokenizer, pair.text) for pair in pairs], pairs, longest, "coreference text", notes)
    if not probes:
        return None
    tally = CoreferenceTally(*shape, choice)
    for batch, calls in read(model, probes, kind, "reading coreference", progress):
        tally.add(calls, batch, [pairs[number] for number in batch.numbers], blocks)
    result = tally.result()
    if result.out_of_reach:
        notes.append(f"Coreference: {result.out_of_reach} mentions left out that cannot read all of their candidates.")
    return result


def _fitting(
    probes: Sequence[Probe], beside: Sequence[T], longest: int, what: str, notes: list[str]
) -> tuple[list[Probe], list[T]]:
    """The texts that the model can read whole, with what stands beside them; a note of how many were not."""
    kept = [(one, other) for one, other in zip(probes, beside, strict=True) if 0 < len(one) <= longest]
    if len(kept) < len(probes):
        notes.append(f"{len(probes) - len(kept)} {what}s left out that are longer than {longest} tokens.")
    return [one for one, _ in kept], [other for _, other in kept]


def _choice(first_token: FirstToken | str) -> FirstToken:
    try:
        return FirstToken(first_token)
    except ValueError:
        names = ", ".join(repr(one.value) for one in FirstToken)
        raise InputError(f"first_token={first_token!r} is not a choice; choose one of {names}.") from None


def _kind(model: nn.Module, kind: Kind | None) -> Kind:
    if isinstance(model, EncoderDecoder):
        if kind == "cross":
            raise InputError("roles are those of self-attention; choose kind='encoder' or kind='decoder'.")
        return kind or "encoder"
    own: Kind = "encoder" if isinstance(model, Encoder) else "decoder"
    if kind not in (None, own):
        raise InputError(f"this model has no {kind!r} attention of its own; leave the kind out.")
    return own


def _longest(model: nn.Module) -> int:
    """Tokens that the model reads at once, as far as its positions reach, and no more than `LONGEST`."""
    config = getattr(model, "config", None)
    bounded = config is None or any(stack.bounded for stack in config.stacks)
    return min(LONGEST, config.context) if config is not None and bounded else LONGEST


def _vocabulary(model: nn.Module) -> int:
    config = getattr(model, "config", None)
    if config is None:
        raise InputError("this model has no config that tells its vocabulary; give the ids to draw from.")
    return int(config.vocab_size)


def _named(tokenizer: Tokenizing) -> list[int]:
    """The ids of tokens with a role, where the tokenizer tells them."""
    roles = ("pad_id", "bos_id", "eos_id", "unk_id", "cls_id", "sep_id", "mask_id")
    return [id for role in roles if isinstance(id := getattr(tokenizer, role, None), int)]


def _shape(calls: Sequence[Call]) -> tuple[int, int]:
    heads = {call.n_heads for call in calls}
    if len(heads) > 1:
        raise InputError(f"layers of this model have {sorted(heads)} heads; roles are found where all have as many.")
    return len(calls), heads.pop()


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(given)] if isinstance(given, str | Path) else [Path(one) for one in given]
