"""What parity tests share: a random tiny model of transformers, the same model by our tables, and their comparison."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from clearhead.checkpoint import Pretrained, export, load
from clearhead.model import Cache, EncoderDecoder
from clearhead.model.cache import count_positions
from clearhead.model.config import SequenceClassification

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-5
PAD = 0
EAGER = {"attn_implementation": "eager"}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example (a fixture would be shared by all of them)."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def tiny(cls: Any, config: Any, **options: Any) -> Any:
    """A model of transformers whose every parameter is random: as built, biases are zeros and norms ones.

    The fixed tables of sinusoids stay as they are; the bias of BART's logits is no parameter there, and is drawn too.
    """
    model = cls._from_config(config, **EAGER | options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif parameter.requires_grad:
                parameter.normal_(0, 0.1)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_(0, 0.1)
    return model


def texts(vocab_size: int, *, pad: str, length: int = 9) -> tuple[Tensor, Tensor]:
    """Ids of three texts and which of them are real; `pad`: "none", or the side that padding stands on."""
    ids = torch.randint(1, vocab_size, (3, length))
    real = torch.ones(3, length, dtype=torch.long)
    for row, padding in enumerate((0, 2, length - 2) if pad != "none" else ()):
        where = slice(0, padding) if pad == "left" else slice(length - padding, length)
        ids[row, where], real[row, where] = PAD, 0
    return ids, real


def close(ours: Tensor | None, theirs: Tensor, what: str) -> None:
    assert ours is not None, what
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    error = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-3)
    assert error <= TOLERANCE, f"{what}: {error:.2e} of its scale"


Inputs = Callable[[Any, Tensor], dict[str, Tensor]]
"""What transformers is called with besides ids and mask, from its config and which tokens are real."""


def positions(theirs: Any) -> Inputs:
    """Positions counted over real tokens, as we count them, where the class takes them."""
    takes = "position_ids" in inspect.signature(theirs.forward).parameters
    return lambda config, real: {"position_ids": count_positions(real.bool()).clamp(min=0)} if takes else {}


@torch.no_grad()
def same_forward(
    ours: Any,
    theirs: Any,
    vocab_size: int,
    *,
    pads: tuple[str, ...] = ("none", "left", "right"),
    alone: bool = False,
    inputs: Inputs | None = None,
) -> None:
    """Logits and every hidden state agree, at real tokens, with padding on either side.

    alone: transformers is given each text by itself; we always read the batch.
    """
    inputs = inputs if inputs is not None else positions(theirs)
    for pad in pads:
        ids, real = texts(vocab_size, pad=pad)
        at = real.bool()
        got = ours(ids, attention_mask=real, keep_hidden=True)
        if alone:
            single = [theirs(text[here][None], output_hidden_states=True) for text, here in zip(ids, at, strict=True)]
            want = {name: _joined([one[name] for one in single]) for name in _tensors(single[0])}
        else:
            more = inputs(theirs.config, real)
            batch = theirs(ids, attention_mask=real, output_hidden_states=True, **more)
            want = {name: _joined([batch[name]], at) for name in _tensors(batch)}
        assert len(got.hidden_states) == len(want["hidden_states"])
        for layer, (one, other) in enumerate(zip(got.hidden_states, want["hidden_states"], strict=True)):
            close(one[at], other, f"hidden state {layer}, padding {pad}")
        if "logits" in want:
            assert got.logits is not None
            close(got.logits[at] if got.logits.ndim == 3 else got.logits, want["logits"], f"logits, padding {pad}")
        if "pooler_output" in want and pad != "left":  # transformers pools the first place, padding or not
            close(got.pooled, want["pooler_output"], f"pooled, padding {pad}")


def _tensors(output: Any) -> list[str]:
    return [name for name in output if name not in ("past_key_values", "attentions")]


@torch.no_grad()
def same_pair(ours: Any, theirs: Any, vocab_size: int, *, pads: tuple[str, ...], alone: bool = False) -> None:
    """An encoder-decoder: logits and every hidden state of both stacks, source and target padded on either side.

    A classifier's decoder reads the source again. transformers begins it at the first column, be it padding or not, and
    wants as many end tokens in every text, so that each is given to it alone.
    """
    again = isinstance(ours.config.head, SequenceClassification)
    options = {"output_hidden_states": True, "use_cache": False}
    for pad in pads:
        source, real = texts(vocab_size, pad=pad)
        target, goal = texts(ours.config.target_vocab_size, pad=pad, length=6)
        if again:
            target, goal = source, real = ended(source, real, theirs.config.eos_token_id), real
        at, to = real.bool(), goal.bool()
        more = {} if again else {"decoder_input_ids": target, "decoder_attention_mask": goal}
        got = ours(source, attention_mask=real, keep_hidden=True, **more)
        if alone or again:
            single = [
                theirs(text[here][None], **({} if again else {"decoder_input_ids": line[there][None]}), **options)
                for text, here, line, there in zip(source, at, target, to, strict=True)
            ]
            want = {name: _joined([one[name] for one in single]) for name in _tensors(single[0])}
        else:
            batch = theirs(source, attention_mask=real, **more, **options)
            want = {name: _joined([batch[name]], at if "encoder" in name else to) for name in _tensors(batch)}
        states = (*want["encoder_hidden_states"], *want["decoder_hidden_states"])
        assert len(got.hidden_states) == len(states)
        for layer, (one, other) in enumerate(zip(got.hidden_states, states, strict=True)):
            here = at if layer < len(want["encoder_hidden_states"]) else to
            close(one[here], other, f"hidden state {layer}, padding {pad}")
        if "logits" in want:
            close(got.logits[to] if got.logits.ndim == 3 else got.logits, want["logits"], f"logits, padding {pad}")


def ended(ids: Tensor, real: Tensor, eos: int) -> Tensor:
    """The texts with an end token in the last place of each, and nowhere else."""
    places = torch.arange(ids.shape[1])
    last = places == (places * real).amax(dim=1, keepdim=True)
    return ids.masked_fill((ids == eos) & real.bool(), 1 if eos != 1 else 2).masked_fill(last, eos)


@torch.no_grad()
def same_packed(ours: Any, theirs: Any, vocab_size: int, *, inputs: Inputs | None = None) -> None:
    """Two texts packed into one row, against transformers on each by itself."""
    ids = torch.randint(1, vocab_size, (1, 9))
    documents = torch.tensor([[0] * 4 + [1] * 5])
    got = ours(ids, documents=documents).hidden
    for document in (0, 1):
        here = documents == document
        more = inputs(theirs.config, here[here].long()[None]) if inputs is not None else {}
        want = theirs(ids[here][None], output_hidden_states=True, **more)
        close(got[here], want.hidden_states[-1][0], f"packed text {document}")


@torch.no_grad()
def same_cached_pair(ours: Any, theirs: Any, vocab_size: int) -> None:
    """Token by token through both caches of an encoder-decoder, the source padded on the right."""
    source, real = texts(vocab_size, pad="right")
    target, _ = texts(ours.config.target_vocab_size, pad="none", length=6)
    memory = ours.encode(source, attention_mask=real)
    encoded = theirs.get_encoder()(source, attention_mask=real)
    cache: Cache = ours.new_cache()
    past = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
    for begin, end in ((0, 3), (3, 4), (4, 6)):
        want = theirs(
            encoder_outputs=encoded,
            attention_mask=real,
            decoder_input_ids=target[:, begin:end],
            past_key_values=past,
            use_cache=True,
        )
        past = want.past_key_values
        got = ours(None, target[:, begin:end], memory=memory, attention_mask=real, cache=cache)
        close(got.logits, want.logits, f"cached logits {begin}:{end}")


def _joined(parts: list[Any], at: Tensor | None = None) -> Any:
    """What is had per token as one row of tokens, from one batch or from texts by themselves; the rest as it is."""
    if isinstance(parts[0], tuple):
        return tuple(_joined(list(layer), at) for layer in zip(*parts, strict=True))
    if parts[0].ndim < 3:
        return torch.cat(parts)
    return torch.cat([part.flatten(0, 1) if at is None else part[at] for part in parts])


@torch.no_grad()
def same_cached(ours: Any, theirs: Any, vocab_size: int, *, inputs: Inputs | None = None) -> None:
    """Token by token through both caches, after a prompt that is padded on the left."""
    ids, real = texts(vocab_size, pad="left")
    ids[:, -1], real[:, -1] = ids[:, -1].clamp(min=1), 1
    cache: Cache = ours.new_cache()
    past = transformers.DynamicCache(config=theirs.config)
    more = (inputs if inputs is not None else positions(theirs))(theirs.config, real)
    for begin, end in ((0, 5), (5, 6), (6, 9)):
        some = {name: value[:, begin:end] for name, value in more.items()}
        want = theirs(ids[:, begin:end], attention_mask=real[:, :end], past_key_values=past, use_cache=True, **some)
        got = ours(ids[:, begin:end], attention_mask=real[:, begin:end], cache=cache)
        at = real[:, begin:end].bool()
        close(got.logits[at], want.logits[at], f"cached logits {begin}:{end}")


def loaded(theirs: Any, path: Path, **options: Any) -> Pretrained:
    """Our model of a model of transformers, through a folder."""
    theirs.save_pretrained(path)
    return load(path, **options)


@torch.no_grad()
def same_both_ways(first: Pretrained, theirs: Any, path: Path, *, spare: tuple[str, ...] = (), **options: Any) -> None:
    """Exported and loaded again, bit for bit; transformers reads the export whole, and gives the same logits.

    spare: tensors that are written as copies of others, whether the original has them (nothing reads them) or not.
    options: for transformers.
    """
    export(first, path / "out")
    again = load(path / "out")
    assert again.config == first.config
    for (name, one), (other_name, other) in zip(
        first.model.state_dict().items(), again.model.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(one, other), name
    before, after = load_file(path / "model.safetensors"), load_file(path / "out" / "model.safetensors")
    assert before.keys() | set(spare) == after.keys() | set(spare)
    for name in before.keys() - set(spare):
        assert torch.equal(before[name], after[name]), name

    back, info = type(theirs).from_pretrained(path / "out", output_loading_info=True, **EAGER | options)
    assert not any(info.values()), info
    ids, real = texts(theirs.config.vocab_size, pad="right")
    more = {}
    if isinstance(first.model, EncoderDecoder):
        if isinstance(first.config.head, SequenceClassification):
            ids = ended(ids, real, theirs.config.eos_token_id)
        else:
            more = {"decoder_input_ids": texts(first.config.target_vocab_size, pad="none", length=5)[0]}
    want, got = theirs(ids, attention_mask=real, **more), back.eval()(ids, attention_mask=real, **more)
    close(got[0], want[0], "transformers' own, of the export")
    was, now = _said(theirs.config.to_dict()), _said(back.config.to_dict())
    if "rope_parameters" in was:  # ours says more where a factor could be left to be derived, and no defaults of YaRN
        assert _rope(was.pop("rope_parameters")).items() <= _rope(now.pop("rope_parameters")).items()
    changed = {key: (value, now.get(key)) for key, value in was.items() if now.get(key) != value}
    assert set(changed) <= {"classifier_dropout"}, changed


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of the model, rather than of where it lay, and in what dtype."""
    says = {key: value for key, value in config.items() if key not in ("_name_or_path", "dtype")}
    return {key: _said(value) if isinstance(value, dict) else value for key, value in says.items()}


def _rope(says: dict[str, Any]) -> dict[Any, Any]:
    """Rotary parameters, of each kind of layer where kinds have their own, without what YaRN does by default."""
    kinds = says if all(isinstance(one, dict) for one in says.values()) else {"": says}
    pairs = {(kind, key): value for kind, one in kinds.items() for key, value in one.items()}
    return {pair: value for pair, value in pairs.items() if (pair[1], value) != ("truncate", True)}
