"""Small folders in the form in which each family's tokenizer is published: the same files, keys and classes, with
vocabularies trained here. Older ones keep bare vocabularies, newer ones a tokenizer.json."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece as spm
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram

from clearhead.text import Tokenizer
from clearhead.text.language_codes import M2M_100
from clearhead.text.patterns import ONE_DIGIT, THREE_DIGITS
from clearhead.text.sentencepiece import Kind, backend_from_sentencepiece, parse
from tests.text.corpus import LINES

Files = dict[str, Any]
"""By name: bytes, or what is to be written as JSON."""
MORE = ["On may 9, 1999, and in 2001, it was 12345 metres ok."] * 3
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


# ------------------------------------------------------------------------------------------------- sentencepiece


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


# ---------------------------------------------------------------------------------------------------- byte-level


@cache
def _bytes(*specials: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    backend = Tokenizer.train(LINES + MORE, kind="byte-bpe", vocab_size=330, special_tokens=list(specials)).backend
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _gpt2(model_type: str, *specials: str, config: dict[str, Any] | None = None, **more: Any) -> Files:
    vocabulary, merges = _bytes(*specials)
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
    size = len(_bytes(end)[0])
    return _gpt2("phi", end, config=config) | {"added_tokens.json": {"    ": size, "  ": size + 1, "\t\t": size + 2}}


def _qwen2() -> Files:
    size = len(_bytes()[0])
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


# ------------------------------------------------------------------------------------------------ tokenizer.json


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
    vocabulary, merges = _bytes(*(() if last else specials))
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
