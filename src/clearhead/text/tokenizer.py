"""The tokenizer: text in, ids out, and back. A model reads ids only; what a token is, is decided here.

`Tokenizer` wraps a pipeline of the `tokenizers` library (clean up, split, cut into pieces, add special tokens, and the
way back) and adds what that library leaves open: whole-file loading and saving, the roles of special tokens, offsets
that point at the right characters, labels to show, and streaming. It never truncates or pads: what you encode is what
you get.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from clearhead.errors import TokenizerError
from clearhead.text import folder as folders
from clearhead.text.backend import TokenBytes, parts, translated
from clearhead.text.chat import Message, render
from clearhead.text.encoding import Encoding, mended_offsets, words_by_marks
from clearhead.text.special import ROLES, named_roles, roles_by_spelling
from clearhead.text.stream import DetokenizeStream
from clearhead.text.train import UNKNOWN, Kind, train

LARGEST_VOCABULARY = 1 << 24
"""Ids. A file that numbers a token higher would make a model of it as large, and is refused."""
_OWN_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Text to ids and back. Make one with `load`, `train` or `from_backend`.

    backend            the `tokenizers.Tokenizer` inside
    vocab_size         every id is below it: the width of the embedding that this tokenizer needs
    pad_id, bos_id, eos_id, unk_id, cls_id, sep_id, mask_id
                       the ids of the special tokens by role, None where there is none
    special_tokens     role → token: `{"bos": "<s>", …}`
    model_max_length   the longest text that the model was made for, in tokens, if the files say so. Nothing enforces it
    chat_template      the Jinja program that writes a conversation as one text, or None
    switched_off       truncation, padding and chance (dropout) that a file asked for: recorded, and off
    """

    def __init__(self, found: folders.Found) -> None:
        self.backend = found.backend
        self.model_max_length = found.model_max_length
        self.chat_template = found.chat_template
        self.switched_off = dict(found.switched_off)
        self.special_tokens = dict(found.special_tokens)
        self._config = dict(found.config)
        if self._config.get("split_special_tokens"):
            self.backend.encode_special_tokens = True

        vocabulary = self.backend.get_vocab()
        if not vocabulary:
            raise TokenizerError("this tokenizer has no tokens; load or train one that has")
        self.vocab_size = max(vocabulary.values()) + 1
        if self.vocab_size > LARGEST_VOCABULARY:
            raise TokenizerError(f"a token has id {self.vocab_size - 1}; ids below {LARGEST_VOCABULARY} are allowed")
        ids = {role: vocabulary.get(token) for role, token in self.special_tokens.items()}
        for role, id in ids.items():
            if id is None:
                raise TokenizerError(
                    f"{role}_token={self.special_tokens[role]!r} is not in the vocabulary; add it first"
                )
        self.pad_id, self.bos_id, self.eos_id = ids.get("pad"), ids.get("bos"), ids.get("eos")
        self.cls_id, self.sep_id, self.mask_id = ids.get("cls"), ids.get("sep"), ids.get("mask")
        self.unk_id = ids.get("unk")

        self._specials = {id for id, token in self.backend.get_added_tokens_decoder().items() if token.special}
        self._bytes = TokenBytes(self.backend)
        # A pipeline that does not split at spaces calls the whole text one word; then the marks tell where words begin.
        self._splits = not self._bytes.marks or any(
            step.get("type") != "Metaspace" or step.get("split", True) for step in parts(self.backend.pre_tokenizer)
        )

    def __repr__(self) -> str:
        roles = ", ".join(f"{role}={token!r}" for role, token in self.special_tokens.items())
        return f"Tokenizer({self.vocab_size} tokens{', ' + roles if roles else ''})"

    def __len__(self) -> int:
        return self.vocab_size

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer from its folder or file: `tokenizer.json`; a sentencepiece `.model`; GPT-2's `vocab.json`
        and `merges.txt`; BERT's `vocab.txt`. Files beside it (`tokenizer_config.json`, `special_tokens_map.json`,
        `added_tokens.json`, `chat_template.jinja`) say which tokens are special, and more.

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
        folders.mark_special(backend, {role: token for role, token in roles.items() if role != "unk"})
        return cls(
            folders.Found(
                backend=backend,
                special_tokens=roles,
                model_max_length=model_max_length,
                chat_template=chat_template,
                config=_OWN_CONFIG | ({"split_special_tokens": True} if split_special_tokens else {}),
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
        if special_tokens is None:
            special_tokens = BERT_SPECIALS if kind == "wordpiece" else ()
        if isinstance(special_tokens, Mapping):
            roles = named_roles(special_tokens)
            specials = list(dict.fromkeys(roles.values()))
        elif not isinstance(special_tokens, Iterable):
            raise TokenizerError(f"special_tokens={special_tokens!r} should be texts, such as ['<bos>', '<eos>']")
        else:
            specials = list(dict.fromkeys([special_tokens] if isinstance(special_tokens, str) else special_tokens))
            if not all(isinstance(token, str) and token for token in specials):
                raise TokenizerError(f"special_tokens={specials!r} should be texts, such as ['<bos>', '<eos>']")
            roles = roles_by_spelling(specials)
        if kind not in tuple(UNKNOWN):
            roles.pop("unk", None)  # bytes leave nothing unknown
        backend = train(texts, kind, vocab_size, specials, roles)
        return cls(folders.Found(backend=backend, special_tokens=roles, config=dict(_OWN_CONFIG)))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which Hugging Face's AutoTokenizer reads to the same ids.

        The folder is made if need be; each file is replaced in one step. What the origin's config said beyond what we
        read is kept, but for `auto_map`, which names code. Raises `TokenizerError` if the folder cannot be written.
        """
        try:
            folder = Path(folder)
        except TypeError:
            raise TokenizerError(f"{folder!r} is no folder; give its path") from None
        config = {key: value for key, value in self._config.items() if key != "auto_map"}
        for role in ROLES:
            token, kept = self.special_tokens.get(role), config.get(f"{role}_token")
            if token is not None and not (isinstance(kept, dict) and kept.get("content") == token):
                config[f"{role}_token"] = token
        if self.model_max_length is not None:
            config["model_max_length"] = self.model_max_length
        if self.chat_template is not None and not isinstance(config.get("chat_template"), list):
            config["chat_template"] = self.chat_template
        folders.write_all(folder, self.backend.to_str(pretty=True), config, self.chat_template)

    def encode(self, text: str, pair: str | None = None, special: bool = True) -> Encoding:
        """Cut `text` into tokens; with `pair`, both texts as one sequence, as the tokenizer joins them.

        special: put the tokenizer's special tokens around the text (`[CLS] … [SEP]`, `<s> …`), if it has any.
        Nothing is truncated or padded. Raises `TokenizerError` for what is no text, or has a lone surrogate.
        """
        found = self._encoded(text, pair, special)
        ids, sequences = found.ids, found.sequence_ids
        spelt = {id: self.backend.id_to_token(id) or "" for id in set(ids)}
        shown = {id: self._label(id, token) for id, token in spelt.items()}
        tokens = [spelt[id] for id in ids]
        return Encoding(
            ids=ids,
            tokens=tokens,
            labels=[shown[id] for id in ids],
            offsets=mended_offsets(found.offsets, tokens, sequences, (text, pair or ""), marks=self._bytes.marks),
            type_ids=found.type_ids,
            special=[id in self._specials and id != self.unk_id for id in ids],
            words=found.word_ids if self._splits else words_by_marks(tokens, sequences),
            sequences=sequences,
        )

    def encode_ids(self, text: str, special: bool = True) -> list[int]:
        """The ids of `encode` without the rest, in about half the time: for long texts."""
        ids: list[int] = self._encoded(text, None, special, quick=True).ids
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text that `ids` stand for; special tokens are left out, or spelt with `skip_special=False`.

        Bytes that make no whole character become U+FFFD. Raises `TokenizerError` for an id that no token has.
        """
        ids = self._checked_ids(ids)
        with translated("these ids cannot be decoded"):
            if not self._bytes.fallback:
                return self.backend.decode(ids, skip_special_tokens=skip_special)
            shown = [id for id in ids if not (skip_special and id in self._specials)]
            tokens = [token for token in map(self.backend.id_to_token, shown) if token is not None]
            text: str = self.backend.decoder.decode(self._bytes.mended(tokens))
            return text

    def decode_stream(self, before: Sequence[int] = (), skip_special: bool = True) -> DetokenizeStream:
        """Decode ids one at a time, as a model writes them: `push(id)` gives text, `finish()` what is left.

        before: the ids of the prompt, if the text goes on from one, so that the first word gets its space.
        """
        return DetokenizeStream(self, before, skip_special=skip_special)

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
        ids = self._checked_ids(ids)
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
        token = self.backend.id_to_token(self._checked_id(id)) or ""
        known = self._bytes.of(token) if id not in self._specials else None
        return token.encode() if known is None else known

    def _encoded(self, text: Any, pair: Any, special: bool, *, quick: bool = False) -> Any:
        for name, given in (("text", text), ("pair", pair)):
            if not isinstance(given, str) and (given is not None or name == "text"):
                raise TokenizerError(f"the {name} is a {type(given).__name__}; give a str")
        try:
            with translated("the text cannot be encoded"):
                if quick:  # the same ids, without the offsets
                    return self.backend.encode_batch_fast([text], add_special_tokens=special)[0]
                return self.backend.encode(text, pair, add_special_tokens=special)
        except TokenizerError:
            for name, given in (("text", text), ("pair", pair or "")):
                lone = next((at for at, character in enumerate(given) if "\ud800" <= character <= "\udfff"), None)
                if lone is not None:
                    raise TokenizerError(
                        f"the {name} has a lone surrogate, {given[lone]!r}, at character {lone}, which stands for "
                        "nothing; remove it, or decode the file it came from with errors='replace'"
                    ) from None
            raise

    def _checked_ids(self, ids: Any) -> list[int]:
        if not isinstance(ids, Iterable):
            raise TokenizerError(f"{ids!r} is no list of ids; give one, such as [{ids!r}]")
        return [self._checked_id(id) for id in ids]

    def _checked_id(self, id: Any) -> int:
        try:
            number = operator.index(id)
        except TypeError:
            raise TokenizerError(f"{id!r} is no id; ids are whole numbers below {self.vocab_size}") from None
        if not 0 <= number < self.vocab_size or self.backend.id_to_token(number) is None:
            raise TokenizerError(f"no token has the id {number}; this tokenizer's ids are below {self.vocab_size}")
        return number

    def _label(self, id: int, token: str) -> str:
        if id in self._specials:
            return token
        known = self._bytes.of(token)
        if known is not None:
            return known.decode("utf-8", "backslashreplace")
        return token.replace("▁", " ") if self._bytes.marks else token
