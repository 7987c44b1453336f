"""Load and export. A name becomes a model with its tokenizer; a model becomes a folder that transformers reads.

The model is built without memory, on the meta device, and its tensors are put in: views of the file's own memory
wherever its dtype is the wanted one. (GPT-2's matrices are then transposed views, which multiply as quickly.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearhead._disk import sync_file
from clearhead.checkpoint import families
from clearhead.checkpoint.common import GENERATION_KEYS
from clearhead.checkpoint.family import Family, is_code
from clearhead.checkpoint.finding import find
from clearhead.checkpoint.planned import plan_model
from clearhead.checkpoint.report import Report
from clearhead.checkpoint.sentence import write_sentence
from clearhead.checkpoint.source import CONFIG, GENERATION, Source
from clearhead.checkpoint.transfer import Plan, Tensors, plan_writing, read
from clearhead.checkpoint.writing import new_folder, resolved, write_json, write_safetensors
from clearhead.errors import CheckpointError, ConfigError, InputError
from clearhead.model.config import Head, LanguageModel, ModelConfig, NormalInit, SentenceEmbedding
from clearhead.model.transformer import Decoder, Encoder, EncoderDecoder
from clearhead.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
SHARD = 5_000_000_000
"""Bytes: where an export is cut into several files."""


@dataclass(frozen=True)
class Original:
    """What a checkpoint said besides: its config and its other files, kept so that an export says it again."""

    config: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Pretrained:
    """A model with what belongs to it. One that was built from scratch has only the first three, and perhaps a family.

    family: the `model_type` that it is exported as. report: what became of every key and tensor that was read.
    """

    model: Encoder | Decoder | EncoderDecoder
    tokenizer: Tokenizer | None
    config: ModelConfig
    family: str = ""
    name: str = ""
    report: Report = field(default_factory=lambda: Report(family=""))
    original: Original = field(default_factory=Original)


def load(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    head: Head | str | None = None,
    pickle: bool = False,
) -> Pretrained:
    """A model in eval mode, by its folder or file, its embedded name (`minilm`, `dates`) or its hub id, in that order.

    A folder is Hugging Face's or Meta's; a file is GGUF, llama2.c's .bin, or weights beside their config.json.

    dtype: what its weights are held in; None is the file's own. head: another head than the checkpoint's: a choice of
    ours, or a class of its family ("BertModel"). What the file lacks of it is drawn anew, and the report says so.
    pickle: whether PyTorch's own files may be read, which are pickles, by `torch.load(weights_only=True)`.

    Raises UnknownModelError, UnknownFamilyError, UnknownKeyError, UnsafeFileError, or CheckpointError for all else
    that is wrong with the files; InputError for a dtype or device that is not had here.
    """
    if not isinstance(name_or_path, str | Path):
        raise InputError(f"a model's name is a str or a Path, not of type {type(name_or_path).__name__}.")
    if revision is not None and not isinstance(revision, str):
        raise InputError(f"revision is of type {type(revision).__name__}; give a branch, a tag or a commit as a str.")
    source = find(str(name_or_path), revision, pickle=pickle)
    return assemble(source, _dtype(dtype), _device(device), head)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in DTYPES.values():
        raise InputError(f"dtype={dtype!r} is not one that weights can have; choose one of {', '.join(DTYPES)}.")
    return found


def _device(device: torch.device | str) -> torch.device:
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise InputError(f"device={str(device)!r} is not to be had here; choose 'cpu'.") from None


def assemble(
    source: Source, dtype: torch.dtype | None, device: torch.device, head: Head | str | None = None
) -> Pretrained:
    """The model of a source: its config read, its sizes checked, every tensor planned for, and only then filled."""
    planned = plan_model(source, head)
    family, tensors, config, model, plan = source.family, source.tensors, planned.config, planned.model, planned.plan
    notes, ours = list(planned.notes), dict(model.named_parameters())
    dtype = dtype if dtype is not None else source.dtype if source.dtype is not None else _own(plan, tensors, notes)
    with torch.no_grad():
        for name, tensor in read(plan, config, ours, tensors):
            _put(model, name, tensor.to(device, dtype))
        for name in plan.fresh:
            _put(model, name, _drawn(name, ours[name], config, dtype, device))
    if plan.fresh:
        notes.append(f"the file lacks {', '.join(plan.fresh)}: drawn anew, to be trained")
    return Pretrained(
        model=model.eval(),
        tokenizer=source.tokenizer(),
        config=config,
        family=source.exports_as,
        name=source.name,
        report=Report(family=family.model_type, keys=planned.accounts, tensors=plan.accounts, notes=tuple(notes)),
        original=Original(
            config=source.keys if source.exports_as == family.model_type else {},
            generation=source.generation,
            files=source.sentence.files if source.sentence is not None else {},
        ),
    )


def _own(plan: Plan, tensors: Tensors, notes: list[str]) -> torch.dtype:
    """The files' dtype; where they have several, the one that holds all of their numbers."""
    found = sorted({tensors.dtype(name) for step in plan.steps for name in step.theirs}, key=str)
    widest = found[0]
    for dtype in found[1:]:
        widest = torch.promote_types(widest, dtype)
    if len(found) > 1:
        notes.append(f"the weights are {' and '.join(str(dtype) for dtype in found)}; all are held in {widest}")
    return widest


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    model.get_submodule(path).register_parameter(leaf, nn.Parameter(tensor))


def _drawn(name: str, like: Tensor, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A head's tensor before any training: matrices drawn as the config says, norms one, biases zero."""
    if like.ndim == 1:
        return torch.full(like.shape, 1.0 if name.endswith("norm.weight") else 0.0, dtype=dtype, device=device)
    std = config.init.std if isinstance(config.init, NormalInit) else like.shape[1] ** -0.5
    return torch.empty(like.shape, dtype=dtype, device=device).normal_(0.0, std)


def export(
    what: Pretrained | Encoder | Decoder | EncoderDecoder,
    folder: str | Path,
    *,
    family: str | None = None,
    tokenizer: Tokenizer | None = None,
    overwrite: bool = False,
    max_shard_size: int = SHARD,
) -> Path:
    """Write a model as a folder of the Hugging Face layout, all of it or nothing; returns the folder's full path.

    family: the `model_type` to write it as; None is its own, or, for a model built from scratch, the plainest
        that fits: GPT-2, Llama, BERT and T5 before what is like them.
    overwrite: replace what an earlier export wrote there; a folder with any other file is refused.
    max_shard_size: bytes of one weights file.

    Choices that only training looks at (dropout, initialisation) are written where the family has a key for them.
    Raises CheckpointError where no family, or not this one, can say what the model is, naming the choice.
    """
    target = resolved(folder)
    if not isinstance(what, Pretrained):
        what = Pretrained(what, tokenizer, what.config)
    config, tokenizer = what.model.config, tokenizer if tokenizer is not None else what.tokenizer
    chosen, keys = _fitting(
        family or what.family, config, what.original.config if family in (None, what.family) else {}
    )
    keys["dtype"] = keys["torch_dtype"] = str(what.model.dtype).removeprefix("torch.")
    tensors = plan_writing(chosen, config, dict(what.model.named_parameters()), prefixed=chosen.prefixes(config.head))
    with new_folder(target, overwrite=overwrite) as work:
        write_json(work / CONFIG, keys)
        generation = _generation(what.original, config)
        if generation is not None:
            write_json(work / GENERATION, generation)
        write_safetensors(work, tensors, most=max_shard_size)
        if isinstance(config.head, SentenceEmbedding):
            write_sentence(work, config.head, config.d_last, what.original.files)
        if tokenizer is not None:
            before = set(work.iterdir())
            tokenizer.save(work)
            for path in set(work.iterdir()) - before:
                sync_file(path)
    return target


def _fitting(name: str, config: ModelConfig, original: dict[str, Any]) -> tuple[Family, dict[str, Any]]:
    """The family of this name, or the plainest that fits, and the config.json that it writes."""
    if name:
        family = families.family(name, "export")
        return family, family.write(config, original)
    reasons: list[str] = []
    for family in families.plainest_first():
        if config.architecture not in family.architectures:
            continue
        try:
            return family, family.write(config)
        except (CheckpointError, ConfigError) as error:
            reasons.append(str(error))
    raise CheckpointError("no family can hold this model; name the nearest with family= to see why: " + _few(reasons))


def _few(reasons: Iterable[str]) -> str:
    return " | ".join(list(reasons)[:3])


def _generation(original: Original, config: ModelConfig) -> dict[str, Any] | None:
    """generation_config.json: the checkpoint's own, without what names code.

    Where it has none: the ids of a model that writes, and what an older config.json said of generation, which nobody
    looks for there any more once there is a generation_config.json.
    """
    if original.generation is not None:
        return {key: value for key, value in original.generation.items() if not is_code(key)}
    if not isinstance(config.head, LanguageModel):
        return None
    tokens = config.tokens
    eos = list(tokens.eos) if len(tokens.eos) > 1 else tokens.eos[0] if tokens.eos else None
    ids = {
        "pad_token_id": tokens.pad,
        "bos_token_id": tokens.bos,
        "eos_token_id": eos,
        "decoder_start_token_id": tokens.decoder_start,
    }
    older = {key: original.config.get(key) for key in GENERATION_KEYS if key not in ("prefix", "task_specific_params")}
    return {key: value for key, value in {**older, **ids}.items() if value is not None and not is_code(key)}
