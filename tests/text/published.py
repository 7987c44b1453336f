"""Small folders in the form in which each family's tokenizer is published, of bare vocabularies: the same files, keys
and classes, with vocabularies trained here. Those with a tokenizer.json are in `published_json.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from clearhead.text import Tokenizer
from clearhead.text.language_codes import M2M_100
from tests.text.corpus import LINES
from tests.text.models import MORE, Files, byte_level, gemma_model, llama_model, pieces, t5_model, trained
from tests.text.published_json import NEWER

TEXTS = [
    "The animal didn't cross the street because it was too tired.",
    "it was 9, then 2001, then 12345; ok?",
    "naïve café, Straße, Gäste",
    "日本語 text and 🙂",
    "two  spaces and\ttab\nline",
    "",
]
"""On which transformers and the originals agree; not so on blanks at the ends of a text, for some of its classes."""


def added(content: str, **flags: bool) -> dict[str, Any]:
    """A token as a tokenizer_config.json writes it."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **plain, "special": True, **flags}


def _llama(**config: Any) -> Files:
    names = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
    return {"tokenizer.model": llama_model(), "tokenizer_config.json": names | config, "config.json": "llama"}


def _gemma() -> Files:
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    table = {"5": added("<start_of_turn>"), "6": added("<end_of_turn>")}
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "added_tokens_decoder": table, **roles}
    return {"tokenizer.model": gemma_model(), "tokenizer_config.json": config, "config.json": "gemma"}


def _t5() -> Files:
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "eos_token": "</s>"}
    return {"spiece.model": t5_model(), "tokenizer_config.json": config, "config.json": "t5"}


def _mt5() -> Files:
    """Its sentinels are pieces of the model itself."""
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": None}
    sentinels = [f"▁<extra_id_{number}>" for number in (2, 1, 0)]
    model = t5_model(user_defined_symbols=sentinels)
    return {"spiece.model": model, "tokenizer_config.json": config, "config.json": "mt5"}


def _albert(**config: Any) -> Files:
    symbols = ["[CLS]", "[SEP]", "[MASK]"]
    model = trained(pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=symbols, vocab_size=150)
    return {"spiece.model": model, "tokenizer_config.json": config, "config.json": "albert"}


def _pegasus() -> Files:
    return {"spiece.model": t5_model(), "tokenizer_config.json": {"model_max_length": 512}, "config.json": "pegasus"}


def _fairseq(model_type: str, **config: Any) -> Files:
    model = trained(normalization_rule_name="nmt_nfkc")
    files: Files = {"sentencepiece.bpe.model": model, "config.json": model_type}
    return files | ({"tokenizer_config.json": config} if config else {})


def m2m_vocabulary(model: bytes) -> dict[str, int]:
    """fairseq's own order of the pieces, some of which it never saw."""
    shuffled = pieces(model)
    random.Random(0).shuffle(shuffled)
    return {token: id for id, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *shuffled[:-3]])}


def _m2m_100() -> Files:
    model = trained(normalization_rule_name="nmt_nfkc")
    codes = [f"__{code}__" for code in M2M_100]
    return {
        "sentencepiece.bpe.model": model,
        "vocab.json": m2m_vocabulary(model),
        "special_tokens_map.json": {"additional_special_tokens": codes},
        "tokenizer_config.json": {"src_lang": None, "tgt_lang": None, "tokenizer_class": "M2M100Tokenizer"},
        "config.json": "m2m_100",
    }


def nllb_table(model: bytes) -> dict[str, Any]:
    """What is added to an NLLB's pieces, by id, as its published tokenizer.json and fairseq have it."""
    start = len(pieces(model)) + 4
    tokens = [added("ace_Arab"), added("eng_Latn"), added("fra_Latn"), added("<mask>", lstrip=True, normalized=True)]
    return {str(start + number): token for number, token in enumerate(tokens)}


def _nllb(**config: Any) -> Files:
    model = trained(model_type="bpe", normalization_rule_name="nmt_nfkc")
    codes = ["ace_Arab", "eng_Latn", "fra_Latn"]
    own = {"tokenizer_class": "NllbTokenizer", "added_tokens_decoder": nllb_table(model)}
    return {
        "sentencepiece.bpe.model": model,
        "tokenizer_config.json": own | {"additional_special_tokens": codes} | config,
        "config.json": "m2m_100",
    }


def _marian(*codes: str, separate: bool = False) -> Files:
    """Two models that share an alphabet in part; the list has the pieces of both."""
    source = trained([line for line in LINES + MORE if "Das" not in line and "日" not in line], vocab_size=90)
    target = trained([line for line in LINES if "Das" in line or "日" in line or "Every" in line], vocab_size=90)
    config: dict[str, Any] = {"source_lang": "en", "target_lang": "de", "model_max_length": 512}
    both = list(dict.fromkeys([*pieces(source), *pieces(target)]))
    random.Random(1).shuffle(both)
    lists = {"vocab.json": pieces(source) if separate else both}
    if separate:
        config["separate_vocabs"] = True
        lists["target_vocab.json"] = pieces(target)
    numbered = {
        name: {token: id for id, token in enumerate(["</s>", "<unk>", *tokens, *codes, "<pad>"])}
        for name, tokens in lists.items()
    }
    return {
        "source.spm": source,
        "target.spm": target,
        "tokenizer_config.json": config,
        "config.json": "marian",
        **numbered,
    }


def _gpt2(model_type: str, *specials: str, config: dict[str, Any] | None = None, **more: Any) -> Files:
    vocabulary, merges = byte_level(*specials)
    lines = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n"
    files: Files = {"vocab.json": vocabulary, "merges.txt": lines.encode(), "config.json": model_type}
    return files | ({} if config is None else {"tokenizer_config.json": config}) | more


def _opt() -> Files:
    """An end token in front, and its flags contradicted by the file beside."""
    end, pad = added("</s>"), added("<pad>")
    roles = {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": pad}
    names = {role: {**token, "normalized": True} for role, token in roles.items()}
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, **roles}
    return _gpt2("opt", "<s>", "<pad>", "</s>", "<unk>", config=config) | {"special_tokens_map.json": names}


def _phi() -> Files:
    end = "<|endoftext|>"
    config = {"tokenizer_class": "CodeGenTokenizer", "bos_token": end, "eos_token": end, "unk_token": end}
    size = len(byte_level(end)[0])
    return _gpt2("phi", end, config=config) | {"added_tokens.json": {"    ": size, "  ": size + 1, "\t\t": size + 2}}


def _qwen2() -> Files:
    size = len(byte_level()[0])
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    table = {str(size + number): added(token) for number, token in enumerate(tokens)}
    config = {
        "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": table, "bos_token": None, "unk_token": None,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": tokens[1:],
    }  # fmt: skip
    return _gpt2("qwen2", config=config)


def _bert(**config: Any) -> Files:
    backend = Tokenizer.train(LINES + MORE, kind="wordpiece", vocab_size=300).backend
    tokens = sorted(backend.get_vocab().items(), key=lambda entry: entry[1])
    lines = "".join(f"{token}\n" for token, _ in tokens)
    return {"vocab.txt": lines.encode(), "tokenizer_config.json": config, "config.json": "bert"}


_END = "<|endoftext|>"
_ROLES_END = {"bos_token": _END, "eos_token": _END, "unk_token": _END}

OLDER: dict[str, Callable[[], Files]] = {
    "bert": lambda: _bert(do_lower_case=True),
    "bert, cased": lambda: _bert(do_lower_case=False, tokenizer_class="BertTokenizer"),
    "distilbert": lambda: _bert() | {"config.json": "distilbert"},
    "electra": lambda: _bert(tokenizer_class="ElectraTokenizer") | {"config.json": "electra"},
    "gpt2": lambda: _gpt2("gpt2", _END),
    "gpt2, by its class": lambda: _gpt2("gpt2", _END, config={"tokenizer_class": "GPT2TokenizerFast"}),
    "opt": _opt,
    "phi": _phi,
    "gpt_neox": lambda: _gpt2(
        "gpt_neox", _END, "<|padding|>", config=_ROLES_END | {"tokenizer_class": "GPTNeoXTokenizer"}
    ),
    "qwen2": _qwen2,
    "roberta": lambda: _gpt2("roberta", "<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "bart": lambda: _gpt2("bart", "<s>", "<pad>", "</s>", "<unk>", "<mask>", config={"model_max_length": 1024}),
    "llama": lambda: _llama(legacy=False),
    "llama, flags": lambda: _llama(legacy=False, add_bos_token=False, add_eos_token=True),
    "gemma": _gemma,
    "t5": _t5,
    "t5, no config": lambda: {"spiece.model": t5_model(), "config.json": "t5"},
    "mt5": _mt5,
    "albert": lambda: _albert(tokenizer_class="AlbertTokenizer"),
    "albert, cased": lambda: _albert(do_lower_case=False, keep_accents=True),
    "pegasus": _pegasus,
    "xlm-roberta": lambda: _fairseq("xlm-roberta"),
    "camembert": lambda: _fairseq("camembert"),
    "mbart": lambda: _fairseq("mbart"),
    "mbart, from French": lambda: _fairseq("mbart", src_lang="fr_XX", tgt_lang="ro_RO"),
    "mbart50": lambda: _fairseq("mbart", tokenizer_class="MBart50Tokenizer", src_lang=None, tgt_lang=None),
    "nllb": _nllb,
    "nllb, legacy": lambda: _nllb(legacy_behaviour=True, src_lang="fra_Latn"),
    "m2m_100": _m2m_100,
    "marian": _marian,
    "marian, many languages": lambda: _marian(">>fra<<", ">>zle_Cyrl<<"),
    "marian, two lists": lambda: _marian(separate=True),
}
"""Folders of bare vocabularies."""


@cache
def _made(name: str, newer: bool) -> Files:
    return (NEWER if newer else OLDER)[name]()


def write(folder: Path, name: str, *, newer: bool = False) -> Path:
    """Write a folder of one of these kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in _made(name, newer).items():
        if file == "config.json":
            content = {"model_type": content}
        (folder / file).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder
