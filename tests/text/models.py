"""Small vocabularies of each kind, trained here: sentencepiece models as the families have them, and byte-level BPE."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import sentencepiece as spm

from clearhead.text import Tokenizer
from tests.text.corpus import LINES

Files = dict[str, Any]
"""A folder: by name, bytes, or what is to be written as JSON."""
MORE = ["On may 9, 1999, and in 2001, it was 12345 metres ok."] * 3


@cache
def _trained(lines: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> bytes:
    out = io.BytesIO()
    settings = {"vocab_size": 130, "hard_vocab_limit": False, "minloglevel": 3, "num_threads": 1}
    settings |= {key: list(value) if isinstance(value, tuple) else value for key, value in options}
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, **settings)
    return out.getvalue()


def trained(lines: list[str] | None = None, **options: Any) -> bytes:
    """A sentencepiece model."""
    chosen = LINES + MORE if lines is None else lines
    made = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return _trained(tuple(line.strip() for line in chosen), tuple(made.items()))


def pieces(model: bytes) -> list[str]:
    """Its pieces that stand for text."""
    processor = spm.SentencePieceProcessor(model_proto=model)
    ids = range(processor.vocab_size())
    return [processor.IdToPiece(id) for id in ids if not processor.IsControl(id) and not processor.IsUnknown(id)]


def llama_model(**options: Any) -> bytes:
    """Llama's kind: BPE with byte fallback, every blank kept."""
    own = {
        "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "split_digits": True,
        "remove_extra_whitespaces": False, "vocab_size": 400,
    }  # fmt: skip
    return trained(**own | options)


def gemma_model() -> bytes:
    """Gemma's: the same, without a space before a text, and turns as pieces of their own."""
    turns = ["<mask>", "<start_of_turn>", "<end_of_turn>"]
    names = {"pad_piece": "<pad>", "bos_piece": "<bos>", "eos_piece": "<eos>"}
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    return llama_model(add_dummy_prefix=False, user_defined_symbols=turns, **names, **ids)


def t5_model(**options: Any) -> bytes:
    """T5's: Unigram, `<pad> </s> <unk>` first."""
    return trained(**{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} | options)


@cache
def byte_level(*specials: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary and its merges."""
    backend = Tokenizer.train(LINES + MORE, kind="byte-bpe", vocab_size=330, special_tokens=list(specials)).backend
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]
