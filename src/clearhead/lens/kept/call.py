"""A call. What one run of one layer's attention left behind: q, k and log-sum-exp of its heads, and how scores form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearhead.errors import OutsideError, ReleasedError
from clearhead.lens.index import index
from clearhead.lens.kept.keep import AS_RUN, EVERYTHING, Choice, own
from clearhead.lens.maps.attention_map import AttentionMap, derive_weights
from clearhead.lens.maps.softmax import log_sum_exp
from clearhead.model.kernels import Scoring
from clearhead.model.masks import Mask

if TYPE_CHECKING:
    from clearhead.lens.kept.runs import Run

Kind = Literal["encoder", "decoder", "cross"]
"""Which attention: the encoder's or the decoder's own, or the decoder's reading of the encoder."""

KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")

BLOCK = 64
"""So many rows have their log-sum-exp worked out at once, where q and k were rounded."""


class Call:
    """One call of one layer's attention: q, k and log-sum-exp of its kept heads, and how scores were formed.

    choice: which heads are kept, and where; with receipts also v and the output that the kernel gave. Of a step that
    reads one new token and has joined the run of the calls before it, the new row alone is kept, as it ran; the older
    keys are the run's. kernel: what made the output, in words. waits: whether it goes on from calls before is not known
    yet; `join` or `stand_alone` then says what is to be kept.
    """

    def __init__(
        self,
        q: Float[Tensor, "B H Tq D"],
        k: Float[Tensor, "B Hkv Tk D"],
        lse: Float[Tensor, "B H Tq"],
        scoring: Scoring,
        *,
        kind: Kind,
        layer: int,
        module: str,
        choice: Choice = EVERYTHING,
        v: Float[Tensor, "B Hkv Tk Dv"] | None = None,
        out: Float[Tensor, "B H Tq Dv"] | None = None,
        kernel: str = "unknown",
        waits: bool = False,
    ) -> None:
        self.kernel, self.number = kernel, 0
        self._run: Run | None = None
        self.kind, self.layer, self.module = kind, layer, module
        self.n_heads, self.batch = q.shape[1], q.shape[0]
        self.shape = (q.shape[2], k.shape[2])
        self.heads: tuple[int, ...] = choice.heads_of(self.n_heads, layer)
        self._groups = q.shape[1] // k.shape[1]
        self._read(tuple(dict.fromkeys(head // self._groups for head in self.heads)))
        self._keep, self._gone = choice.keep, choice.keep.gone
        self.ran_in = run = q.dtype
        q, lse = _pick(q, self.heads).detach(), _pick(lse.detach(), self.heads)
        self._kept: tuple[Tensor, Tensor, Tensor] | None = (q, k.detach(), lse)
        self._shown: tuple[Tensor, Tensor] | None = None
        if choice.receipts and v is not None and out is not None:
            self._shown = v.detach(), _pick(out, self.heads).detach()
        self._scoring = scoring.kept()
        if run.itemsize == 2 and kernel.startswith("fused"):  # it was handed the bias in half precision too
            self._scoring = replace(self._scoring, bias_dtype=run)
        self.rounded = False
        self._settled: Tensor | None = None
        if not waits:
            self.stand_alone()

    @property
    def tensors(self) -> tuple[Float[Tensor, "B h Tq D"], Float[Tensor, "B Hkv Tk D"], Float[Tensor, "B h Tq"]]:
        """q, k and the log-sum-exp of the kept heads. Raises ReleasedError once they were given back."""
        kept = self._tensors
        for batch in range(self.batch if self.rounded else 0):
            for head in self.heads:
                self._settle(batch, head, None)
        return kept

    @property
    def scoring(self) -> Scoring:
        """How scores were formed: scale, mask, bias, softcap, sinks."""
        return self._scoring if self._run is None else self._run.scoring_of(self, self._scoring)

    @property
    def released(self) -> bool:
        """True once the tensors were given back."""
        return self._kept is None

    @property
    def keys_at(self) -> tuple[int, ...]:
        """Of each kept head, which of the kept key heads it reads."""
        return tuple(self._key_head[head] for head in self.heads)

    def number_heads(self, n_heads: int, heads: tuple[int, ...]) -> None:
        """Become a call of these heads of a layer of `n_heads`: of a part of a layer, as an archive gives it back.

        Each has keys of its own then. Raises ValueError where they are not so many, in order.
        """
        inside = {head for head in heads if isinstance(head, int) and 0 <= head < n_heads}
        if len(heads) != self.n_heads or list(heads) != sorted(inside):
            raise ValueError(f"{heads} are not {self.n_heads} heads of {n_heads}, in order")
        if n_heads != self.n_heads:
            self.n_heads, self.heads = n_heads, heads
            self._key_head = {head: at for at, head in enumerate(heads)}

    def stand_alone(self, *, window: bool = False, like: Call | None = None) -> None:
        """Keep q, and all the keys that the call had: it goes on from no other.

        window: they are a window on a store that is only ever appended to: a step of one token then keeps that, which
        all steps share, as it is, and copies none of it. like: a call that has kept the same keys; its values
        are shared, too, where they are the same.
        """
        (q, k, lse), shown, keep = self.own_tensors, self._shown, self._keep
        if window and q.shape[2] == 1:
            self._read(tuple(range(k.shape[1])))
            self._gone = AS_RUN.gone
            self._hold(own(q), k, lse)
            self._shown = (shown[0], own(shown[1])) if shown is not None else None
            return
        k = keep.scores(_pick(k, self.key_heads)) if like is None else like.own_tensors[1]
        self._hold(keep.scores(q), k, lse)
        if shown is not None:
            v, other = _pick(shown[0], self.key_heads), like._shown[0] if like is not None and like._shown else None
            same = other is not None and other.shape == v.shape and torch.equal(other, v.to(other.device, other.dtype))
            self._shown = other if other is not None and same else keep.rest(v), keep.rest(shown[1])

    def join(self, run: Run, number: int, base: Call, *, keys: int, new: int) -> None:
        """Become a call of a run, which holds the keys (and values) of all but the last `new` tokens of its `keys`."""
        q, k, lse = self.own_tensors
        step = q.shape[2] == 1
        rows = slice(k.shape[2] - new, k.shape[2])

        def kept(name: str, x: Tensor, *, exact: bool) -> Tensor:
            return self._keep.piece(x, run.files, name, exact=exact)

        def of_keys(x: Tensor) -> Tensor:
            return _pick(x[:, :, rows], base.key_heads).clone()

        self._hold(kept("q", own(q), exact=step), kept("k", of_keys(k), exact=step), lse)
        if base.rounded and not self.rounded:
            self._round(lse)
        if self._shown is not None:
            v, out = self._shown
            self._shown = kept("v", of_keys(v), exact=True), kept("out", own(out), exact=True)
        self._read(base.key_heads)
        self._scoring = replace(self._scoring, mask=Mask())
        self.shape = (self.shape[0], keys)
        self._run, self.number = run, number

    def _read(self, key_heads: tuple[int, ...]) -> None:
        """These key heads are kept."""
        self.key_heads = key_heads
        self._key_head = {head: key_heads.index(head // self._groups) for head in self.heads}

    def _hold(self, q: Tensor, k: Tensor, lse: Tensor) -> None:
        self._kept = (q, k, lse)
        if q.dtype != self.ran_in or k.dtype != self.ran_in:
            self._round(lse)

    def _round(self, lse: Tensor) -> None:
        """The log-sum-exp is to be that of rounded keys: worked out anew for the rows that are looked at."""
        q, k, _ = self.own_tensors
        self._kept, self.rounded = (q, k, lse.clone()), True
        self._settled = torch.zeros(*lse.shape[:2], -(-lse.shape[2] // BLOCK), dtype=torch.bool)

    @property
    def own_tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and the log-sum-exp; in a run, of its own rows. Raises ReleasedError once they were given back."""
        kept = self._kept
        if kept is None:
            raise ReleasedError(
                f"what layer {self.layer} of the {self.kind} kept was released: {self._gone}; look again."
            )
        return kept

    def rows_of(
        self, head: int, batch: int
    ) -> tuple[Float[Tensor, "1 1 Tq D"], Float[Tensor, "1 1 Tq"], Float[Tensor, "1 1 Tq Dv"] | None]:
        """The queries and the log-sum-exp of one head of one text, and, where receipts keep it, the kernel's output."""
        at, one = self._at(head, batch), slice(batch, batch + 1)
        if self.rounded:
            self._settle(batch, head, None)
        q, _, lse = self.own_tensors
        out = self._shown[1][one, at : at + 1] if self._shown is not None else None
        return q[one, at : at + 1], lse[one, at : at + 1], out

    def keys_of(self, head: int, batch: int) -> Float[Tensor, "1 1 n D"]:
        """The keys of one head of one text; in a run, those of this call's own rows."""
        self._at(head, batch)
        shared = self._key_head[head]
        return self.own_tensors[1][batch : batch + 1, shared : shared + 1]

    def values_of(self, head: int, batch: int) -> Float[Tensor, "1 1 n Dv"] | None:
        """The values of one head of one text, where receipts keep them; in a run, those of this call's own rows."""
        shared = self._key_head[head]
        return self._shown[0][batch : batch + 1, shared : shared + 1] if self._shown is not None else None

    @property
    def held(self) -> tuple[Tensor, ...]:
        """What is kept, by this call and those it shares it with: none once it is released."""
        return *(self._kept or ()), *(self._shown or ())

    @property
    def nbytes(self) -> int:
        """The bytes of q, k and the log-sum-exp, and of v and the output where receipts keep them."""
        return sum(x.nbytes for x in self.held)

    def map(self, head: int, batch: int = 0) -> AttentionMap:
        """One head's map of one text."""
        q, _, lse = self.own_tensors
        at = self._at(head, batch)
        one = slice(batch, batch + 1)
        run, out = self._run, self._shown[1] if self._shown is not None else None
        return AttentionMap(
            q[one, at : at + 1],
            self.keys_of(head, batch) if run is None else run.head_keys(self.number, head, batch),
            lse[one, at : at + 1],
            self.scoring.of(batch, head),
            name=f"{self.kind} layer {self.layer} head {head}",
            released=lambda: self._kept is None,
            gone=self._gone,
            ran_in=self.ran_in,
            settle=(lambda rows: self._settle(batch, head, rows)) if self.rounded else None,
            v=self.values_of(head, batch) if run is None else run.head_values(self.number, head, batch),
            out=None if out is None else out[one, at : at + 1],
        )

    def _at(self, head: int, batch: int) -> int:
        """Which of the kept heads it is. Raises OutsideError where it is none, or where there is no such text."""
        if not 0 <= index(head, "a head") < self.n_heads:
            raise OutsideError(f"head {head} is outside layer {self.layer}; choose 0…{self.n_heads - 1}.")
        if head not in self.heads:
            kept = ", ".join(map(str, self.heads))
            raise OutsideError(f"head {head} of layer {self.layer} was not kept; kept were: {kept or 'none'}.")
        self.check_batch(batch)
        return self.heads.index(head)

    def check_batch(self, batch: int) -> None:
        """Raise OutsideError unless the call had a text of this number."""
        if not 0 <= index(batch, "a text") < self.batch:
            raise OutsideError(f"text {batch} is outside the batch of {self.batch}; choose 0…{self.batch - 1}.")

    def weights(self, rows: Int[Tensor, " q"], cols: Int[Tensor, " k"], batch: int = 0) -> Float[Tensor, "h q k"]:
        """The weights of these queries and keys, of every kept head at once (`heads` are their numbers)."""
        q, k, lse = self._tensors
        some = self.batch > 1 or len(self.heads) < self.n_heads
        if some or self.rounded or not q.device == k.device == lse.device:
            return torch.stack([self.map(head, batch).at(rows, cols) for head in self.heads])
        q, k, lse = (x[batch : batch + 1] for x in (q, k, lse))
        rows, cols = rows.to(q.device), cols.to(q.device)
        weights = derive_weights(q[:, :, rows], k[:, :, cols], lse[:, :, rows], self.scoring, rows, cols)
        return weights[0]

    def release(self) -> None:
        """Give the tensors back; maps of this call then raise ReleasedError."""
        self._kept = self._shown = None

    @property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        q, k, lse = self.own_tensors
        return q, k if self._run is None else self._run.keys_of(self), lse

    def _settle(self, batch: int, head: int, rows: Int[Tensor, " n"] | None) -> None:
        """Put the log-sum-exp of the rounded q and k in the place of the kernel's, for the blocks of these rows.

        Two threads may do so at once: both write the same numbers, and a block is ticked off after it is written.
        """
        settled, (q, k, lse), at = self._settled, self._tensors, self.heads.index(head)
        if settled is None:
            return
        done = settled[batch, at]
        blocks = torch.arange(len(done)) if rows is None else torch.unique(rows.cpu() // BLOCK)
        one, scoring = slice(batch, batch + 1), self.scoring.of(batch, head)
        keys = k[one, self._key_head[head], None]
        for block in blocks[~done[blocks]].tolist():
            start, stop = block * BLOCK, min(self.shape[0], (block + 1) * BLOCK)
            with torch.inference_mode():
                span = torch.arange(start, stop, device=lse.device)
                queries = q[one, at, None, start:stop].to(lse.device)
                lse[batch, at, start:stop] = log_sum_exp(queries, keys, scoring, span)[0, 0].to(lse.dtype)
                done[block] = True


def _pick(x: Tensor, heads: tuple[int, ...]) -> Tensor:
    """These heads of the second axis: the tensor itself where they are all of them."""
    return x if len(heads) == x.shape[1] else x[:, list(heads)]
