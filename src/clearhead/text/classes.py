"""Which tokenizer a folder asks for. Before `tokenizer.json` a folder held bare lists (GPT-2's `vocab.json` and
`merges.txt`, BERT's `vocab.txt`, a sentencepiece `.model`), and the rest was code: the class that
`tokenizer_config.json` names, or that belongs to the kind of model that `config.json` names.

`CLASSES` says what that code does, a row for each class known here. A class without a row may renumber its pieces or
lower-case its text, and would give wrong ids in silence; it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clearhead.errors import TokenizerError
from clearhead.text.language_codes import M2M_100, MBART, MBART_50, NLLB, WMT_21
from clearhead.text.languages import Place
from clearhead.text.layout import Rule, albert, as_it_is, camembert, fairseq, listed, nllb, pegasus, sentinels

Format = Literal["bytes-bpe", "wordpiece", "sentencepiece", "m2m_100", "marian"]
Surrounds = Literal["flags", "bert", "roberta", "eos", "eos once", "language"]
"""What is put around a text: as `add_bos_token` and `add_eos_token` say, `[CLS] A [SEP]`, `<s> A </s>`, or `A </s>`;
with a second text `A </s> B </s>` or, once, `A B </s>`; or the token of its language and one `</s>`."""


@dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """What the code of a Hugging Face tokenizer class adds to its vocabulary file.

    composed: characters are composed first (NFC). one_digit: cut by Qwen 2's pattern instead of GPT-2's. folded: text
    is lower-cased and loses its accents unless the config says no, as ALBERT's. wide_mask: the mask takes the blanks
    before it along. legacy_spaces: a space is put before what follows a special token too, unless the config has
    `legacy: false`. pads_left: shorter texts of a batch get their padding in front. languages: of a translator, and
    where a text's own stands; default: that of a text of which nothing is said.
    """

    format: Format
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    surrounds: Surrounds = "flags"
    add_bos: bool = False
    layout: Rule = as_it_is
    composed: bool = False
    one_digit: bool = False
    folded: bool = False
    wide_mask: bool = False
    legacy_spaces: bool = False
    pads_left: bool = False
    languages: tuple[str, ...] = ()
    place: Place = "before"
    default: str = ""


_NLLB_CODE = re.compile("[a-z]{3}_[A-Z][a-z]{3}")
_END = {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}
_FAIRSEQ = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
_GPT2 = TokenizerClass(format="bytes-bpe", special_tokens=_END)
_NEOX = TokenizerClass(format="bytes-bpe", special_tokens=_END | {"pad": "<|padding|>"}, composed=True)
_QWEN2 = TokenizerClass(
    format="bytes-bpe",
    special_tokens={"eos": "<|endoftext|>", "pad": "<|endoftext|>"},
    composed=True,
    one_digit=True,
)
_ROBERTA = TokenizerClass(format="bytes-bpe", special_tokens=_FAIRSEQ, surrounds="roberta", wide_mask=True)
_BERT = TokenizerClass(
    format="wordpiece",
    special_tokens={"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
    surrounds="bert",
)
_LLAMA = TokenizerClass(
    format="sentencepiece",
    special_tokens={"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    add_bos=True,
    legacy_spaces=True,
    pads_left=True,
)
_GEMMA = TokenizerClass(
    format="sentencepiece",
    special_tokens={"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
    add_bos=True,
    pads_left=True,
)
_T5 = TokenizerClass(
    format="sentencepiece",
    special_tokens={"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    surrounds="eos",
    layout=sentinels,
)
_ALBERT = TokenizerClass(
    format="sentencepiece",
    special_tokens={
        "bos": "[CLS]", "eos": "[SEP]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]",
        "unk": "<unk>", "pad": "<pad>",
    },
    surrounds="bert",
    layout=albert,
    folded=True,
    wide_mask=True,
)  # fmt: skip
_PEGASUS = TokenizerClass(
    format="sentencepiece",
    special_tokens={"eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask_2>"},
    surrounds="eos once",
    layout=pegasus,
)
_XLM_ROBERTA = TokenizerClass(
    format="sentencepiece", special_tokens=_FAIRSEQ, surrounds="roberta", layout=fairseq(), wide_mask=True
)
_CAMEMBERT = TokenizerClass(
    format="sentencepiece", special_tokens=_FAIRSEQ, surrounds="roberta", layout=camembert, wide_mask=True
)
_MBART = TokenizerClass(
    format="sentencepiece",
    special_tokens=_FAIRSEQ,
    surrounds="language",
    layout=fairseq(*MBART),
    wide_mask=True,
    languages=MBART,
    place="behind",
    default="en_XX",
)
_MBART_50 = TokenizerClass(
    format="sentencepiece",
    special_tokens={role: token for role, token in _FAIRSEQ.items() if role != "bos"},
    surrounds="language",
    layout=fairseq(*MBART_50),
    wide_mask=True,
    languages=MBART_50,
    default="en_XX",
)
_NLLB = TokenizerClass(
    format="sentencepiece",
    special_tokens=_FAIRSEQ,
    surrounds="language",
    layout=nllb,
    wide_mask=True,
    languages=NLLB,
    default="eng_Latn",
)
_M2M_100 = TokenizerClass(
    format="m2m_100",
    special_tokens={role: _FAIRSEQ[role] for role in ("bos", "eos", "sep", "unk", "pad")},
    surrounds="language",
    languages=M2M_100,
    default="en",
)
_MARIAN = TokenizerClass(
    format="marian", special_tokens={"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}, surrounds="eos once", place="told"
)

CLASSES: Mapping[str, TokenizerClass] = {
    **dict.fromkeys(("GPT2Tokenizer", "CodeGenTokenizer"), _GPT2),
    **dict.fromkeys(("RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer"), _ROBERTA),
    **dict.fromkeys(("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"), _BERT),
    **dict.fromkeys(("LlamaTokenizer", "CodeLlamaTokenizer"), _LLAMA),
    "AlbertTokenizer": _ALBERT,
    "CamembertTokenizer": _CAMEMBERT,
    "GPTNeoXTokenizer": _NEOX,
    "GemmaTokenizer": _GEMMA,
    "M2M100Tokenizer": _M2M_100,
    "MBart50Tokenizer": _MBART_50,
    "MBartTokenizer": _MBART,
    "MarianTokenizer": _MARIAN,
    "NllbTokenizer": _NLLB,
    "PegasusTokenizer": _PEGASUS,
    "Qwen2Tokenizer": _QWEN2,
    "T5Tokenizer": _T5,
    "XLMRobertaTokenizer": _XLM_ROBERTA,
}
GENERIC = {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "SentencePieceBackend"}
UNNAMED: Mapping[str, TokenizerClass] = {
    "bytes-bpe": _GPT2,
    "wordpiece": _BERT,
    "sentencepiece": TokenizerClass(format="sentencepiece"),
}
"""What a folder without a class name holds."""
MODELS: Mapping[str, str] = {
    **dict.fromkeys(("bert", "electra"), "BertTokenizer"),
    "distilbert": "DistilBertTokenizer",
    **dict.fromkeys(("gpt2", "opt", "phi"), "GPT2Tokenizer"),
    **dict.fromkeys(("roberta", "bart"), "RobertaTokenizer"),
    **dict.fromkeys(("llama", "mistral", "phi3"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("t5", "mt5"), "T5Tokenizer"),
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "m2m_100": "M2M100Tokenizer",
    "marian": "MarianTokenizer",
    "mbart": "MBartTokenizer",
    "pegasus": "PegasusTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
"""The class that a model's folder means where it names none, by the model_type in its config.json."""


def named(config: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """The class that a folder asks for, without the `Fast` of old. config: the tokenizer's own; model: its model's."""
    name = config.get("tokenizer_class") or model.get("tokenizer_class") or MODELS.get(str(model.get("model_type")))
    return name.removesuffix("Fast") if isinstance(name, str) and name not in GENERIC else None


def beside_class(name: str | None) -> dict[str, Any]:
    """What a class says of itself beyond its pipeline, as a config writes it."""
    row = CLASSES.get(name or "")
    if row is None:
        return {}
    typed = row.surrounds == "bert" and name != "DistilBertTokenizer"
    return inputs(typed=typed) | ({"padding_side": "left"} if row.pads_left else {})


def inputs(*, typed: bool) -> dict[str, Any]:
    """What transformers hands to a model with a text's ids, which versions 4 and 5 do not agree on unless it is said.
    typed: the types of the tokens too, which tell a second text from the first."""
    return {"model_input_names": ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"]}


def row_of(format: Format, config: Mapping[str, Any]) -> TokenizerClass:
    """What a vocabulary of this format needs, by the class that the config names. Raises `TokenizerError`."""
    name = config.get("tokenizer_class")
    plain = name.removesuffix("Fast") if isinstance(name, str) else None
    if plain is None or name in GENERIC or plain in GENERIC:
        return UNNAMED[format]
    row = CLASSES.get(plain)
    if row is None or row.format != format:
        raise TokenizerError(
            f"the vocabulary belongs to {name}, whose way with a {format} vocabulary is not known here; load it with "
            "transformers, save it (which writes a tokenizer.json), and load that"
        )
    return row


def codes_of(row: TokenizerClass, config: Mapping[str, Any]) -> dict[str, str]:
    """The languages of a class, by code: those that the config lists count for NLLB, of which there are several."""
    if row is _NLLB:
        return {code: code for code in listed(config) or row.languages if _NLLB_CODE.fullmatch(code)}
    if row is _M2M_100:
        known = {"m2m100": M2M_100, "wmt21": WMT_21}.get(str(config.get("language_codes", "m2m100")))
        if known is None:
            raise TokenizerError(f"language_codes={config['language_codes']!r} is neither m2m100 nor wmt21")
        return {code: f"__{code}__" for code in known}
    return {code: code for code in row.languages}
