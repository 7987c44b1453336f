"""Beam search. Write several continuations side by side, keep the likeliest, and give the best of those that ended.

A beam is a text under way; its score is log p of all its new ids, the sum over their steps. At each step every beam is
continued by every id, and of all continuations of one text the best `num_beams` that do not end are the next beams. One
that ends competes with the texts that ended before by score / length^`length_penalty` (Wu et al. 2016, §7).

Scores are float32 and compared in the order of transformers' `generate`, so that the same texts win.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clearhead.generate.reader import Reader
from clearhead.generate.sampling import Written, adjust
from clearhead.generate.settings import GenerationSettings

NEVER = -1e9
"""The score of what is not to be chosen while there is anything else: finite, so that it can still be ranked."""

Scores = Float[Tensor, "B n"]
Texts = Int[Tensor, "B n t"]


@dataclass(frozen=True, eq=False)
class Ended:
    """The best texts that ended, best first: their new ids, filled up; how many those are; their scores over length.

    there: where there is one yet, and not a place for one.
    """

    texts: Texts
    lengths: Int[Tensor, "B n"]
    scores: Scores
    there: Bool[Tensor, "B n"]

    def best(self, others: Ended, n: int) -> Ended:
        """The n best of both."""
        scores, order = torch.cat((self.scores, others.scores), dim=1).topk(n, dim=1)
        return Ended(
            _rows(torch.cat((self.texts, others.texts), dim=1), order),
            torch.cat((self.lengths, others.lengths), dim=1).gather(1, order),
            scores,
            torch.cat((self.there, others.there), dim=1).gather(1, order),
        )

    def longer(self, filler: int) -> Ended:
        """With room for one id more."""
        more = self.texts.new_full((*self.texts.shape[:2], 1), filler)
        return Ended(torch.cat((self.texts, more), dim=2), self.lengths, self.scores, self.there)


def search(
    reader: Reader, settings: GenerationSettings, steps: int, ends: tuple[int, ...], filler: int
) -> Int[Tensor, "Bn t"]:
    """The new ids of the best texts, `num_return_sequences` rows for each prompt, shorter ones filled up.

    steps: how many ids are added at most; a text that has so many has ended, too.
    """
    n, batch = settings.num_beams, reader.start.shape[0]
    each = torch.arange(batch, device=reader.start.device).repeat_interleave(n)  # the prompt of each beam
    prompt, prompt_real = reader.start[each], reader.start_real[each]
    end_ids = torch.tensor(ends, dtype=prompt.dtype, device=prompt.device)

    beams: Texts = prompt.new_zeros(batch, n, 0)
    scores: Scores = torch.full((batch, n), NEVER, device=prompt.device)
    scores[:, 0] = 0.0  # all beams begin alike: only the first is continued
    nothing = torch.zeros_like(scores, dtype=torch.bool)
    ended = Ended(beams, torch.zeros_like(scores, dtype=torch.long), torch.full_like(scores, NEVER), nothing)
    open_ = torch.ones(batch, 1, dtype=torch.bool, device=prompt.device)  # whose beams may still win

    logits = reader.read(reader.start, reader.start_real)[each]
    reader.select(each)
    for step in range(steps):
        last = step == steps - 1
        text = torch.cat((prompt, beams.flatten(0, 1)), dim=1)
        real = torch.cat((prompt_real, torch.ones_like(text[:, prompt.shape[1] :], dtype=torch.bool)), dim=1)
        written = Written(text, real, step, last, ends, *reader.source)
        log_p = adjust(logits.float().log_softmax(-1), settings, written).view(batch, n, -1)

        # The best continuations of each text: so many that enough of them do not end.
        vocabulary = log_p.shape[2]
        total = (log_p + scores[..., None]).flatten(1)
        total, index = total.topk(min(max(2, 1 + len(ends)) * n, total.shape[1]), dim=1)
        parent, new = index // vocabulary, (index % vocabulary).to(prompt.dtype)
        texts = torch.cat((_rows(beams, parent), new[..., None]), dim=2)
        ends_here = torch.isin(new, end_ids) | last

        scores, order = (total + ends_here * NEVER).topk(n, dim=1)
        beams, parent = _rows(texts, order), parent.gather(1, order)

        # What ends among the n best is ranked with what ended before, while the text is open.
        length = step + 1
        full = ended.there.all(dim=1, keepdim=True) & (settings.early_stopping is True)
        ending = ends_here & (torch.arange(new.shape[1], device=new.device) < n)
        value = total / length**settings.length_penalty
        value = value + full * NEVER + ~open_ * NEVER + ~ending * NEVER
        lengths = torch.full_like(value, length, dtype=torch.long)
        ended = ended.longer(filler).best(Ended(texts, lengths, value, ending), n)

        open_ = open_ & _may_win(scores, ended, settings, length, steps)
        done = settings.early_stopping is True and bool(ended.there.all())
        if last or done or not bool(open_.any()):
            break
        rows = parent + torch.arange(batch, device=parent.device)[:, None] * n
        reader.select(rows.flatten())
        logits = reader.read(beams[..., -1:].flatten(0, 1))

    found = ended.texts[:, : settings.num_return_sequences]
    return found[..., : int(ended.lengths[:, : settings.num_return_sequences].max())].flatten(0, 1)


def _may_win(
    scores: Scores, ended: Ended, settings: GenerationSettings, length: int, longest: int
) -> Bool[Tensor, "B 1"]:
    """Whether the best beam could still come before the worst text that ended.

    As long as it is now, or with "never", where length is a merit, as long as it may become.
    """
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        length = longest
    possible = scores[:, :1] / length**settings.length_penalty
    worst = torch.where(ended.there, ended.scores.amin(dim=1, keepdim=True), NEVER)
    return (possible > worst).any(dim=1, keepdim=True)


def _rows(texts: Int[Tensor, "B n t"], index: Int[Tensor, "B m"]) -> Int[Tensor, "B m t"]:
    """Of each batch's rows, those that the index names."""
    return texts.gather(1, index[..., None].expand(-1, -1, texts.shape[2]))
