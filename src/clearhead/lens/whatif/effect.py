"""The effect. A text read twice, as it is and with something changed, and what that does to what the model says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import InputError
from clearhead.lens.alone import alone
from clearhead.lens.given import sort_of
from clearhead.lens.maps.derived import count
from clearhead.lens.reading import Reading, read
from clearhead.lens.texts import Readable
from clearhead.lens.whatif.experiments import Experiment
from clearhead.lens.whatif.outcome import Measure, asks_the_end, check_measure, config_of, gaps_of, usual, writes
from clearhead.model.config import SequenceClassification, TokenClassification
from clearhead.model.modes import without_dropout
from clearhead.model.transformer import Output


class Change(NamedTuple):
    """One thing that the model says, before and after."""

    what: str
    before: float
    after: float

    @property
    def change(self) -> float:
        """after − before."""
        return self.after - self.before


@dataclass(frozen=True, eq=False)
class Said:
    """What a model says, as numbers before and after: of which words (`title`), and each one's name."""

    title: str
    before: Float[Tensor, " n"]
    after: Float[Tensor, " n"]
    name: Callable[[int], str]

    def at(self, index: int) -> Change:
        """One of them."""
        return Change(self.name(index), float(self.before[index]), float(self.after[index]))


@dataclass(frozen=True, eq=False)
class Effect:
    """What follows from an experiment. value: the measure's number; before, after: what the model gave back (a writer's
    logits at the last position alone, unless a measure asks for others).

    `gains` and `losses` list what rose and what fell: the probabilities of next tokens and of what fills a gap, the
    logits of labels, a tagger's labels in their places; of an embedding, its cosine with what it was.
    """

    value: float
    measure: Measure
    before: Output
    after: Output
    said: Said

    def __repr__(self) -> str:
        return f"<Effect: {self.measure.words} {self.value:+.4f}>"

    def gains(self, k: int = 5) -> list[Change]:
        """What rose most, at most k."""
        return self._extreme(k, 1.0)

    def losses(self, k: int = 5) -> list[Change]:
        """What fell most, at most k."""
        return self._extreme(k, -1.0)

    def likeliest(self, k: int = 5) -> list[Change]:
        """What was largest before, at most k."""
        found = self.said.before.topk(min(count(k), len(self.said.before))).indices
        return [self.said.at(index) for index in found.tolist()]

    def _extreme(self, k: int, sign: float) -> list[Change]:
        difference = (self.said.after - self.said.before) * sign
        best = difference.topk(min(count(k), len(difference)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [self.said.at(index) for value, index in pairs if value > 0]


@torch.inference_mode()
def whatif(
    lm: Readable,
    text: str,
    *experiments: Experiment,
    target: str | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    measure: Measure | None = None,
) -> Effect:
    """Read the text as it is, and once more with the experiments: `whatif(lm, text, Silence([(5, 11)])).losses()`.

    target: the decoder's text, for an encoder-decoder. source_language, target_language: for a translator that is told
    them, as for `look`; texts that an experiment names are in the same. measure: what is measured; by default what fits
    the model's head: KL divergence of the next token, the likeliest label's logit, the embedding's turn. Raises
    InputError for an experiment that changes nothing there is, OutsideError for a word or a head that is not there.
    """
    if not experiments:
        raise InputError("no experiment was asked for; give at least one, such as Silence([(5, 11)]).")
    for each in experiments:
        if not isinstance(each, Experiment):
            raise InputError(
                f"{sort_of(each)} is no experiment; give Silence(heads), Cut(query, key), Delete(word), "
                "Rescore(change) or Patch(text, heads)."
            )
    check_measure(measure)
    reading = read(lm, text, target, source_language=source_language, target_language=target_language)
    with alone(lm.model), without_dropout(lm.model):
        chosen = usual(lm) if measure is None else measure
        end = asks_the_end(lm, chosen)
        before = reading.run(lm.model, last_only=end)
        chosen = chosen.bound(lm, reading, before)
        with ExitStack() as blocks:
            for each in experiments:
                blocks.enter_context(each.block(lm, reading))
            after = reading.run(lm.model, last_only=end)
    value = float(chosen.of(before, after)[0])
    return Effect(value, chosen, before, after, said(lm, reading, before, after))


def said(lm: Readable, reading: Reading, before: Output, after: Output) -> Said:
    """What the model says of the text, as its head has it."""
    head = config_of(lm).head
    if before.embedding is not None and after.embedding is not None:
        cosine = F.cosine_similarity(before.embedding.double(), after.embedding.double())
        return Said("cosine with what it was", torch.ones_like(cosine), cosine, lambda _: "the text's embedding")
    if before.logits is None or after.logits is None:
        cosine = F.cosine_similarity(before.hidden[0].double(), after.hidden[0].double(), dim=-1)
        return Said("cosine with what it was", torch.ones_like(cosine), cosine, _token(reading))
    if isinstance(head, SequenceClassification):
        return Said("label, its logit", before.logits[0], after.logits[0], lambda index: head.labels[index])
    p, q = before.logits[0], after.logits[0]  # (n, V)
    gaps = gaps_of(lm, reading)
    if writes(lm) or gaps:
        title, at = ("next token", -1) if writes(lm) else ("in the gap", gaps[0])
        return Said(title, p[at].double().softmax(-1), q[at].double().softmax(-1), _vocabulary(lm))
    name = _token(reading)
    if isinstance(head, TokenClassification):
        best = p.argmax(-1)
        labels = [head.labels[index] for index in best.tolist()]
        return Said("token and its label", _share(p, best), _share(q, best), lambda i: f"{name(i)} {labels[i]}")
    ids = reading.ids[0]
    return Said("the token itself, in its place", _share(p, ids), _share(q, ids), name)


def _share(logits: Float[Tensor, "T V"], ids: Int[Tensor, " T"]) -> Float[Tensor, " T"]:
    """The probability of one of V at each place."""
    return torch.exp(logits.gather(1, ids[:, None])[:, 0].double() - logits.double().logsumexp(-1))


def _token(reading: Reading) -> Callable[[int], str]:
    labels = reading.begun.labels if reading.begun is not None else reading.encoding.labels
    return lambda index: labels[index] if index < len(labels) else str(index)


def _vocabulary(lm: Readable) -> Callable[[int], str]:
    """A token of the vocabulary as text; its id where the tokenizer has no word for it."""
    tokenizer = getattr(lm.tokenizer, "target", lm.tokenizer)
    decode: Callable[..., str] | None = getattr(tokenizer, "decode", None)

    def name(index: int) -> str:
        known = getattr(tokenizer, "id_to_token", lambda _: "")(index) is not None
        text = decode([index], skip_special=False) if decode is not None and known else ""
        return text or f"#{index}"

    return name
