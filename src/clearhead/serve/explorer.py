"""The explorer itself, without HTTP: it loads models, looks at texts one at a time, and keeps the looks for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from clearhead.errors import UnknownModelError
from clearhead.model.config import LanguageModel
from clearhead.model.transformer import EncoderDecoder
from clearhead.serve.facts import Readable, facts_of
from clearhead.serve.gate import Gate
from clearhead.serve.limits import Limits
from clearhead.serve.refusals import Refusal
from clearhead.serve.shelf import Kept, Question, Shelf

WRITTEN = 128
"""Where no target is given, a translator writes one, of at most so many tokens."""

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


def written_by(lm: Readable, question: Question) -> str | None:
    """What a model of two texts writes for this one; None for another model, and for one that does not write."""
    model = lm.model
    if not isinstance(model, EncoderDecoder) or not isinstance(model.config.head, LanguageModel):
        return None
    generate: Callable[..., str] | None = getattr(lm, "generate", None)
    if generate is None or not question.text.strip():
        return None
    most = min(WRITTEN, model.config.context - 1) if model.config.context else WRITTEN
    return generate(question.text, max_new_tokens=most, **question.languages) or None


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
        languages: dict[str, str] | None = None,
    ) -> None:
        self.default, self.languages = model, languages or {}
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

    def question(self, text: str, target: str | None = None, model: str | None = None, **languages: str) -> Question:
        """What is asked, of the model that the page opens with where none is named; so are its languages."""
        name = self.default if model is None else model
        if name == self.default:
            languages = {**self.languages, **languages}
        return Question(name, text, target or None, **languages)

    def first_look(self, text: str, target: str | None = None) -> Kept:
        """The look that the page opens with, had before anything is served: mistakes come out here."""
        question = self.question(text, target)
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
        name = question.model
        if name not in self.offered:
            raise UnknownModelError(f"{name[:80]!r} is not offered here; choose one of {', '.join(self.offered)}.")
        for text, word in ((question.text, "text"), (question.target, "target")):
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
        lm, target = self.model(question.model), question.target
        written = None if target is not None else written_by(lm, question)
        look = lm.look(question.text, target if written is None else written, **question.languages)
        facts = {**facts_of(lm, look), **question.languages}
        if look.target is not None:
            facts["written"] = written is not None
        del look.output  # the logits of a long text are larger than all that the lens keeps
        return Kept(question, look, facts)
