"""The explorer itself, without HTTP: it loads models, looks at texts one at a time, and keeps the looks for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from clearhead.errors import UnknownModelError
from clearhead.serve.facts import Readable, facts_of
from clearhead.serve.gate import Gate
from clearhead.serve.limits import Limits
from clearhead.serve.refusals import Refusal
from clearhead.serve.shelf import Kept, Question, Shelf

T = TypeVar("T")
Gone = Callable[[], Awaitable[bool]]


async def _stays() -> bool:
    return False


def _from_checkpoint(name: str, *, pickle: bool = False) -> Readable:
    from clearhead.api import load

    return load(name, pickle=pickle)


def _embedded() -> Sequence[str]:
    from clearhead.checkpoint import EMBEDDED

    return tuple(EMBEDDED)


class Explorer:
    """Models by name, looks by id. Only the names in `offered` can be loaded: a request chooses, it does not fetch."""

    def __init__(
        self,
        load: Callable[[str], Readable] | None = None,
        model: str = "minilm",
        offered: Sequence[str] | None = None,
        limits: Limits | None = None,
        *,
        pickle: bool = False,
    ) -> None:
        self.default = model
        self.offered = tuple(dict.fromkeys((model, *(_embedded() if offered is None else offered))))
        self.limits = limits = limits or Limits()
        self._load = load or (partial(_from_checkpoint, pickle=True) if pickle else _from_checkpoint)
        self._loaded = dict[str, Readable]()
        self.shelf = Shelf(limits.looks, limits.look_bytes)
        self._model_gate = Gate(1, limits.waiting)
        self._weights_gate = Gate(limits.running, limits.deriving)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are in memory."""
        return tuple(self._loaded)

    def first_look(self, text: str) -> Kept:
        """The look that the page opens with, had before anything is served: mistakes come out here."""
        question = (self.default, text, None)
        self.check(question)
        kept = self._look(question)
        self.shelf.put(kept)
        return kept

    def model(self, name: str) -> Readable:
        """The model, loaded when it is first asked for. Runs in the model's own thread, one at a time."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def check(self, question: Question) -> None:
        """Raise for a model that is not offered, or a text that is too long or no text, before anything is run."""
        name, *texts = question
        if name not in self.offered:
            raise UnknownModelError(f"{name[:80]!r} is not offered here; choose one of {', '.join(self.offered)}.")
        for text, word in zip(texts, ("text", "target"), strict=True):
            if text is None:
                continue
            if len(text) > self.limits.text_chars:
                most = self.limits.text_chars
                raise Refusal(413, f"the {word} has {len(text):,} characters; at most {most:,} are looked at here.")
            try:
                text.encode()
            except UnicodeEncodeError as broken:
                raise Refusal(
                    422, f"character {broken.start} of the {word} is half of a pair (\\ud800…\\udfff)."
                ) from None

    async def look(self, question: Question, gone: Gone = _stays) -> Kept:
        """The look at this text: the one that is kept, or a new one."""
        self.check(question)
        kept = self.shelf.find(question)
        if kept is None:
            kept = await self._model_gate.run(lambda: self._look(question), gone)
            twin = self.shelf.find(question)  # asked for twice at once: the first stays
            if twin is not None:
                kept.look.release()
                return twin
            self.shelf.put(kept)
        return kept

    async def derive(self, work: Callable[[], T], gone: Gone = _stays) -> T:
        """Weights, worked out in a thread beside the model."""
        return await self._weights_gate.run(work, gone)

    def _look(self, question: Question) -> Kept:
        name, text, target = question
        lm = self.model(name)
        look = lm.look(text, target)
        facts = facts_of(lm, look)
        del look.output  # the logits of a long text are larger than all that the lens keeps
        return Kept(question, look, facts)
