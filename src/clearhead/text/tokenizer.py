"""The tokenizer: text in, ids out, and back. A model reads ids only; what a token is, is decided here.

`Tokenizer` wraps a pipeline of the `tokenizers` library (clean up, split, cut into pieces, add special tokens, and the
way back) and adds what that library leaves open: whole-file loading and saving, the roles of special tokens, offsets
that point at the right characters, labels to show, and streaming. It never truncates or pads: what you encode is what
you get.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer as Backend

from clearhead.errors import TokenizerError
from clearhead.text import folder as folders
from clearhead.text.backend import TokenBytes, parts, translated
from clearhead.text.chat import Message, render
from clearhead.text.checks import checked_id, checked_ids, encoded
from clearhead.text.encoding import Encoding, Raw, mended_offsets, words_by_marks
from clearhead.text.special import ids_of_roles, mark_special, named_roles
from clearhead.text.stream import DetokenizeStream
from clearhead.text.train import Kind, asked_specials, train

LARGEST_VOCABULARY = 1 << 24
"""Ids. A file that numbers a token higher would make a model of it as large, and is refused."""


class Tokenizer:
    """Text to ids and back. Make one with `load`, `train` or `from_backend`.

    backend            the `tokenizers.Tokenizer` inside
    vocab_size         every id is below it: the width of the embedding that this tokenizer needs
    pad_id, bos_id, eos_id, unk_id, cls_id, sep_id, mask_id
                       the ids of the special tokens by role, None where there is none
    special_tokens     role → token: `{"bos": "<s>", …}`
    model_max_length   the longest text that the model was made for, in tokens, if the files say so. Nothing enforces it
    chat_template      the Jinja program that writes a conversation as one text, or None
    languages          the languages of a multilingual translator, by their codes; see `encode` and `first_id`
    source_languages   those of them that a text can be said to be in: all, but for Marian none
    target             the tokenizer of the texts that are written, where it is another (Marian's); else this one
    switched_off       truncation, padding and chance (dropout) that a file asked for: recorded, and off
    """

    def __init__(self, found: folders.Found) -> None:
        self.backend = found.backend
        self.model_max_length = found.model_max_length
        self.chat_template = found.chat_template
        self.switched_off = dict(found.switched_off)
        self.special_tokens = dict(found.special_tokens)
        self._config = dict(found.config)
        self._files = found.files
        self._languages = found.languages
        self.languages = tuple(found.languages.tokens)
        self.source_languages = found.languages.sources
        if self._config.get("split_special_tokens"):
            self.backend.encode_special_tokens = True

        vocabulary = self.backend.get_vocab()
        if not vocabulary:
            raise TokenizerError("this tokenizer has no tokens; load or train one that has")
        self.vocab_size = max(vocabulary.values()) + 1
        if self.vocab_size > LARGEST_VOCABULARY:
            raise TokenizerError(f"a token has id {self.vocab_size - 1}; ids below {LARGEST_VOCABULARY} are allowed")
        ids = ids_of_roles(self.special_tokens, vocabulary)
        self.pad_id, self.bos_id, self.eos_id = ids.get("pad"), ids.get("bos"), ids.get("eos")
        self.cls_id, self.sep_id, self.mask_id = ids.get("cls"), ids.get("sep"), ids.get("mask")
        self.unk_id = ids.get("unk")

        self._specials = {id for id, token in self.backend.get_added_tokens_decoder().items() if token.special}
        self._bytes = TokenBytes(self.backend)
        # A pipeline that does not split at spaces calls the whole text one word; then the marks tell where words begin.
        self._splits = not self._bytes.marks or any(
            step.get("type") != "Metaspace" or step.get("split", True) for step in parts(self.backend.pre_tokenizer)
        )

        self.target = self
        if found.target is not None:
            written = {role: token for role, token in found.special_tokens.items() if found.target.token_to_id(token)}
            self.target = Tokenizer(replace(found, backend=found.target, target=None, special_tokens=written))

    def __repr__(self) -> str:
        roles = ", ".join(f"{role}={token!r}" for role, token in self.special_tokens.items())
        return f"Tokenizer({self.vocab_size} tokens{', ' + roles if roles else ''})"

    def __len__(self) -> int:
        return self.vocab_size

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer from its folder or file: `tokenizer.json`; a sentencepiece `.model`; GPT-2's `vocab.json`
        and `merges.txt`; BERT's `vocab.txt`; Marian's and M2M-100's several files. Files beside it
        (`tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `chat_template.jinja`, and the model's
        `config.json`) say which tokens are special, and more.

        A token with a role that the vocabulary lacks is left without an id. Raises `TokenizerError`.
        """
        found = folders.read(path)
        try:
            return cls(found)
        except TokenizerError as problem:
            raise TokenizerError(f"{path}: {problem}") from problem

    @classmethod
    def from_backend(
        cls,
        backend: Backend,
        *,
        model_max_length: int | None = None,
        chat_template: str | None = None,
        split_special_tokens: bool = False,
        **special_tokens: str,
    ) -> Tokenizer:
        """Take over a pipeline of the `tokenizers` library: `Tokenizer.from_backend(backend, bos_token="<s>")`.

        split_special_tokens: text that spells a special token stays text. Tokens with a role become special in the
        backend, but for the unknown one, which stands for text. Raises `TokenizerError` for a keyword that is no role,
        or a token that the vocabulary does not have.
        """
        roles = named_roles(special_tokens)
        mark_special(backend, {role: token for role, token in roles.items() if role != "unk"})
        return cls(
            folders.Found(
                backend=backend,
                special_tokens=roles,
                model_max_length=model_max_length,
                chat_template=chat_template,
                config=folders.own_config(roles) | ({"split_special_tokens": True} if split_special_tokens else {}),
                switched_off=folders.switch_off(backend),
            )
        )

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: Kind,
        vocab_size: int | None = None,
        special_tokens: Mapping[str, str] | Iterable[str] | None = None,
    ) -> Tokenizer:
        """Learn a tokenizer from texts. The same texts in the same order give the same tokenizer.

        kind: "byte", "character", "byte-bpe", "bpe", "wordpiece" or "unigram"; see `train.py` for what each is.
        vocab_size: at most so many tokens, special ones included. "byte" (256) and "character" need none.
        special_tokens: `{"bos_token": "<bos>", …}`, or just the tokens, whose roles then follow from usual spellings.
        They get the first ids, but for "byte", where the first 256 are the bytes. "wordpiece" has BERT's five if none
        are named. Kinds that can meet an unseen character ("character", "bpe", "wordpiece", "unigram") put an unknown
        token first unless one is named. With cls and sep tokens a text is encoded as `[CLS] … [SEP]`; with a bos token
        that is not also the eos token, as `<bos> …`.

        `decode(encode(text).ids) == text`, to the last blank: for "byte" and "byte-bpe" with any text that spells no
        special token; for "character", "bpe" and "unigram" with any such text of characters that were seen in training.
        "wordpiece" lower-cases, drops accents and normalises blanks, so it gives back the words but not the text.

        Raises `TokenizerError` for an unknown kind, a `vocab_size` that does not hold the single characters, a text
        that is no str or has a lone surrogate, and if there is no text.
        """
        specials, roles = asked_specials(kind, special_tokens)
        backend = train(texts, kind, vocab_size, specials, roles)
        return cls(folders.Found(backend=backend, special_tokens=roles, config=folders.own_config(roles)))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which Hugging Face's AutoTokenizer reads to the same ids;
        for Marian and M2M-100, which have no tokenizer.json, the files that they were read from.

        The folder is made if need be; each file is replaced in one step. What the origin's config said beyond what we
        read is kept, but for `auto_map`, which names code. Raises `TokenizerError` if the folder cannot be written.
        """
        files = self._files or {"tokenizer.json": self.backend.to_str(pretty=True).encode()}
        folders.write(folder, files, self._config, self.special_tokens, self.model_max_length, self.chat_template)

    def encode(
        self,
        text: str,
        pair: str | None = None,
        special: bool = True,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> Encoding:
        """Cut `text` into tokens; with `pair`, both texts as one sequence, as the tokenizer joins them.

        special: put the tokenizer's special tokens around the text (`[CLS] … [SEP]`, `<s> …`), if it has any.
        source_language: what language the text is in, for a multilingual translator that is told so; else its files
        decide. target_language: what it is to be translated into; that shows in the ids of Marian's models alone, for
        others it is the first id that is written (`first_id`).
        Nothing is truncated or padded. Raises `TokenizerError` for what is no text, or has a lone surrogate, and for a
        language that the tokenizer does not have.
        """
        return self._encoding(text, pair, special, self._languages.beside(source_language, target_language))

    def encode_target(self, text: str, language: str | None = None) -> Encoding:
        """The same for a text that an encoder-decoder writes, or is to learn to write, in `language`."""
        return self.target._encoding(text, None, True, self._languages.beside_target(language))

    def encode_ids(self, text: str, special: bool = True) -> list[int]:
        """The ids of `encode` without the rest, in about half the time: for long texts."""
        return list(encoded(self.backend, text, None, special, quick=True).ids)

    def language_id(self, language: str) -> int:
        """The id of a language's token, by its code (`fr_XX`, `fr`, `fra_Latn`, `fra`) or the token itself (`__fr__`).
        Raises `TokenizerError` for one that the tokenizer does not have."""
        return self.backend.token_to_id(self._languages.token(language)) or 0

    def first_id(self, language: str) -> int | None:
        """The id that a translation into this language begins with; None for Marian, whom `encode` tells it."""
        id = self.language_id(language)
        return None if self._languages.place == "told" else id

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text that `ids` stand for; special tokens are left out, or spelt with `skip_special=False`.

        Of a translator whose two sides have vocabularies of their own (Marian's), they are ids that it wrote.
        Bytes that make no whole character become U+FFFD. Raises `TokenizerError` for an id that no token has.
        """
        if self.target is not self:
            return self.target.decode(ids, skip_special)
        ids = checked_ids(ids, self.backend, self.vocab_size)
        with translated("these ids cannot be decoded"):
            if not self._bytes.fallback:
                return self.backend.decode(ids, skip_special_tokens=skip_special)
            shown = [id for id in ids if not (skip_special and id in self._specials)]
            tokens = [token for token in map(self.backend.id_to_token, shown) if token is not None]
            return str(self.backend.decoder.decode(self._bytes.mended(tokens)))

    def decode_stream(self, before: Sequence[int] = (), skip_special: bool = True) -> DetokenizeStream:
        """Decode ids one at a time, as a model writes them: `push(id)` gives text, `finish()` what is left.

        before: the ids of the prompt, if the text goes on from one, so that the first word gets its space.
        """
        return DetokenizeStream(self.target, before, skip_special=skip_special)

    def chat(self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """A conversation as one text, by this tokenizer's chat template; encode it with `special=False`.

        Raises `TokenizerError` if there is no template, and as `render` does.
        """
        if self.chat_template is None:
            raise TokenizerError("this tokenizer has no chat template; use a model tuned for chat, or join the texts")
        tokens = {f"{role}_token": token for role, token in self.special_tokens.items()}
        return render(self.chat_template, messages, add_generation_prompt, **{**tokens, **variables})

    def labels(self, ids: Sequence[int]) -> list[str]:
        """The tokens of `ids` as people read them.

        Byte-level `Ġstreet` and sentencepiece's `▁street` become ` street`; a byte that is part of a character becomes
        `\\xf0`; WordPiece's `##ing` and special tokens stay as they are.
        """
        ids = checked_ids(ids, self.backend, self.vocab_size)
        return [self._label(id, self.backend.id_to_token(id) or "") for id in ids]

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        with translated(f"{str(token)[:80]!r} is no token"):
            return self.backend.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        """The token of an id as the vocabulary spells it; None for an id that no token has."""
        return self.backend.id_to_token(id) if 0 <= id < self.vocab_size else None

    def is_special(self, id: int) -> bool:
        """Whether `decode` leaves this id out unless told otherwise."""
        return id in self._specials

    def bytes_of(self, id: int) -> bytes:
        """The UTF-8 bytes that a token stands for, which may be part of a character; see `decode_stream`."""
        token = self.backend.id_to_token(checked_id(id, self.backend, self.vocab_size)) or ""
        known = self._bytes.of(token) if id not in self._specials else None
        return token.encode() if known is None else known

    def _encoding(self, text: Any, pair: Any, special: bool, code: str | None) -> Encoding:
        found = encoded(self.backend, text, pair, special)
        raw = Raw(found.ids, found.offsets, found.type_ids, found.word_ids, found.sequence_ids)
        if code is not None and special:
            raw = self._languages.put(raw, self.backend.token_to_id(code) or 0)
        spelt = {id: self.backend.id_to_token(id) or "" for id in set(raw.ids)}
        shown = {id: self._label(id, token) for id, token in spelt.items()}
        tokens = [spelt[id] for id in raw.ids]
        return Encoding(
            ids=raw.ids,
            tokens=tokens,
            labels=[shown[id] for id in raw.ids],
            offsets=mended_offsets(raw.offsets, tokens, raw.sequences, (text, pair or ""), marks=self._bytes.marks),
            type_ids=raw.type_ids,
            special=[id in self._specials and id != self.unk_id for id in raw.ids],
            words=raw.words if self._splits else words_by_marks(tokens, raw.sequences),
            sequences=raw.sequences,
        )

    def _label(self, id: int, token: str) -> str:
        if id in self._specials:
            return token
        known = self._bytes.of(token)
        if known is not None:
            return known.decode("utf-8", "backslashreplace")
        return token.replace("▁", " ") if self._bytes.marks else token
