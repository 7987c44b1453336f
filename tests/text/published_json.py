"""Small folders with a tokenizer.json, in the form in which each family publishes it: its steps, keys and classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram

from clearhead.text.patterns import ONE_DIGIT, THREE_DIGITS
from clearhead.text.sentencepiece import Kind, backend_from_sentencepiece, parse
from tests.text.models import Files, byte_level, gemma_model, llama_model, t5_model


def _json(
    model_type: str,
    config: dict[str, Any],
    *specials: str,
    pre: list[pre_tokenizers.PreTokenizer],
    before: str | None = None,
    normalizer: normalizers.Normalizer | None = None,
    whole: bool = False,
    last: bool = False,
) -> Files:
    """Byte-level BPE, cut by `pre`. last: the special tokens have ids behind the vocabulary."""
    vocabulary, merges = byte_level(*(() if last else specials))
    backend = Backend(BPE(vocabulary, merges, ignore_merges=whole))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(pre) if len(pre) > 1 else pre[0]
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    if before is not None:
        id = backend.token_to_id(before)
        backend.post_processor = processors.TemplateProcessing(
            single=[before, "$A"], pair=[before, "$A", f"{before}:1", "$B:1"], special_tokens=[(before, id)]
        )
    return {"tokenizer.json": json.loads(backend.to_str()), "tokenizer_config.json": config, "config.json": model_type}


def _level(*, regex: bool = True) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _from_pieces(model: bytes, normalizer: Any, pre: Any, decoder: Any, **config: Any) -> Files:
    """A sentencepiece BPE as Hugging Face converted it."""
    found = parse(model)
    own = json.loads(backend_from_sentencepiece(found).to_str())["model"]
    merges = [(left, right) for left, right in own["merges"]]
    backend = Backend(BPE(own["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre is not None:
        backend.pre_tokenizer = pre
    backend.decoder = decoder
    bos = found.pieces[found.bos_id].text
    names = ["<unk>", bos, found.pieces[found.eos_id].text]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in names])
    own_pieces = [piece.text for piece in found.pieces if piece.kind is Kind.USER_DEFINED]
    backend.add_tokens([AddedToken(token, normalized=False) for token in own_pieces])
    backend.post_processor = processors.TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, backend.token_to_id(bos))]
    )
    roles = {"bos_token": bos, "eos_token": names[2], "unk_token": "<unk>", "add_bos_token": True}
    return {"tokenizer.json": json.loads(backend.to_str()), "tokenizer_config.json": roles | config}


def _llama_json(model_type: str, *, legacy: bool, **config: Any) -> Files:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    marks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]) if legacy else None
    pre = None if legacy else pre_tokenizers.Metaspace("▁", "first", False)
    names = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy}
    files = _from_pieces(llama_model(), marks, pre, decoders.Sequence(steps), **names | config)
    return files | {"config.json": model_type}


def _gemma_json() -> Files:
    steps = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    pre = pre_tokenizers.Split(" ", "merged_with_previous")
    files = _from_pieces(gemma_model(), normalizers.Replace(" ", "▁"), pre, steps, tokenizer_class="GemmaTokenizer")
    return files | {"config.json": "gemma2"}


def _t5_json() -> Files:
    found = parse(t5_model())
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(100))]
    scores = [(piece.text, piece.score) for piece in found.pieces] + [(token, 0.0) for token in sentinels]
    backend = Backend(Unigram(scores, 2, False))
    backend.normalizer = normalizers.Precompiled(found.charsmap)
    blanks = pre_tokenizers.Metaspace("▁", "always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), blanks])
    backend.decoder = decoders.Metaspace("▁", "always")
    backend.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ["<pad>", "</s>", "<unk>", *sentinels]]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    more = {"extra_ids": 100, "additional_special_tokens": sentinels}
    return {"tokenizer.json": json.loads(backend.to_str()), "tokenizer_config.json": config | more, "config.json": "t5"}


_END = "<|endoftext|>"
_LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_CHATML = (_END, "<|im_start|>", "<|im_end|>")
_ROLES_3 = {"bos_token": _LLAMA_3[0], "eos_token": _LLAMA_3[4]}
_ROLES_END = {"bos_token": _END, "eos_token": _END, "unk_token": _END}
_FAST = "PreTrainedTokenizerFast"

NEWER: dict[str, Callable[[], Files]] = {
    "llama 2": lambda: _llama_json("llama", legacy=True),
    "mistral": lambda: _llama_json("mistral", legacy=False),
    "phi3": lambda: _llama_json("phi3", legacy=False),
    "gemma 2": _gemma_json,
    "t5": _t5_json,
    "llama 3": lambda: _json(
        "llama", _ROLES_3 | {"tokenizer_class": _FAST}, *_LLAMA_3,
        pre=[_split(THREE_DIGITS), _level(regex=False)], before=_LLAMA_3[0], whole=True, last=True,
    ),
    "smollm3": lambda: _json(
        "smollm3", _ROLES_3 | {"tokenizer_class": _FAST}, *_LLAMA_3,
        pre=[_split(THREE_DIGITS), _level(regex=False)], whole=True, last=True,
    ),
    "qwen3": lambda: _json(
        "qwen3", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": _END}, *_CHATML,
        pre=[_split(ONE_DIGIT), _level(regex=False)], normalizer=normalizers.NFC(), last=True,
    ),
    "falcon": lambda: _json(
        "falcon", {"tokenizer_class": _FAST, "eos_token": _END}, _END,
        pre=[pre_tokenizers.Punctuation("contiguous"), _level(), pre_tokenizers.Digits(), _split("[0-9][0-9][0-9]")],
    ),
    "bloom": lambda: _json(
        "bloom",
        {"tokenizer_class": "BloomTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        "<unk>", "<s>", "</s>", "<pad>",
        pre=[_split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), _level(regex=False)],
    ),
    "mpt": lambda: _json(
        "mpt", _ROLES_END | {"tokenizer_class": "GPTNeoXTokenizer"}, _END, "<|padding|>",
        pre=[_level()], normalizer=normalizers.NFC(),
    ),
    "pythia": lambda: _json(
        "gpt_neox", _ROLES_END | {"tokenizer_class": "GPTNeoXTokenizerFast"}, _END, "<|padding|>",
        pre=[_level()], normalizer=normalizers.NFC(),
    ),
    "phi": lambda: _json("phi", _ROLES_END | {"tokenizer_class": "CodeGenTokenizer"}, _END, pre=[_level()]),
    "stablelm": lambda: _json(
        "stablelm", _ROLES_END | {"tokenizer_class": "GPTNeoXTokenizerFast"}, _END, pre=[_split(ONE_DIGIT), _level()],
    ),
    "olmo2": lambda: _json(
        "olmo2", _ROLES_END | {"tokenizer_class": "GPT2Tokenizer"}, *_CHATML,
        pre=[_split(THREE_DIGITS), _level(regex=False)], last=True,
    ),
    "smollm": lambda: _json(
        "llama", _ROLES_END | {"tokenizer_class": "GPT2Tokenizer"}, *_CHATML,
        pre=[pre_tokenizers.Digits(individual_digits=True), _level()],
    ),
    "gpt2": lambda: _json("gpt2", {"model_max_length": 1024}, _END, pre=[_level()]),
}  # fmt: skip
"""Folders with a tokenizer.json."""
