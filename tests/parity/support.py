"""What parity tests share: a random tiny model of transformers, the same model by our tables, and their comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from clearhead.checkpoint import Pretrained, export, load
from clearhead.model import Cache
from clearhead.model.cache import count_positions

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-5
PAD = 0


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example (a fixture would be shared by all of them)."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def tiny(cls: Any, config: Any, **options: Any) -> Any:
    """A model of transformers whose every parameter is random: as built, biases are zeros and norms ones."""
    model = cls._from_config(config, attn_implementation="eager", **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            else:
                parameter.normal_(0, 0.1)
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


@torch.no_grad()
def same_forward(
    ours: Any,
    theirs: Any,
    vocab_size: int,
    *,
    pads: tuple[str, ...] = ("none", "left", "right"),
    alone: bool = False,
) -> None:
    """Logits and every hidden state agree, at real tokens, with padding on either side.

    alone: transformers is given each text by itself; we always read the batch.
    """
    for pad in pads:
        ids, real = texts(vocab_size, pad=pad)
        at = real.bool()
        got = ours(ids, attention_mask=real, keep_hidden=True)
        if alone:
            single = [theirs(text[here][None], output_hidden_states=True) for text, here in zip(ids, at, strict=True)]
            want = {name: _joined([one[name] for one in single]) for name in single[0] if name != "past_key_values"}
        else:
            positions = count_positions(at).clamp(min=0)
            batch = theirs(ids, attention_mask=real, position_ids=positions, output_hidden_states=True)
            want = {name: _joined([batch[name]], at) for name in batch if name != "past_key_values"}
        assert len(got.hidden_states) == len(want["hidden_states"])
        for layer, (one, other) in enumerate(zip(got.hidden_states, want["hidden_states"], strict=True)):
            close(one[at], other, f"hidden state {layer}, padding {pad}")
        if "logits" in want:
            assert got.logits is not None
            close(got.logits[at] if got.logits.ndim == 3 else got.logits, want["logits"], f"logits, padding {pad}")
        if "pooler_output" in want and pad != "left":  # transformers pools the first place, padding or not
            close(got.pooled, want["pooler_output"], f"pooled, padding {pad}")


def _joined(parts: list[Any], at: Tensor | None = None) -> Any:
    """What is had per token as one row of tokens, from one batch or from texts by themselves; the rest as it is."""
    if isinstance(parts[0], tuple):
        return tuple(_joined(list(layer), at) for layer in zip(*parts, strict=True))
    if parts[0].ndim < 3:
        return torch.cat(parts)
    return torch.cat([part.flatten(0, 1) if at is None else part[at] for part in parts])


@torch.no_grad()
def same_cached(ours: Any, theirs: Any, vocab_size: int) -> None:
    """Token by token through both caches, after a prompt that is padded on the left."""
    ids, real = texts(vocab_size, pad="left")
    ids[:, -1], real[:, -1] = ids[:, -1].clamp(min=1), 1
    cache: Cache = ours.new_cache()
    past = transformers.DynamicCache(config=theirs.config)
    for begin, end in ((0, 5), (5, 6), (6, 9)):
        positions = count_positions(real.bool()).clamp(min=0)[:, begin:end]
        want = theirs(ids[:, begin:end], attention_mask=real[:, :end], position_ids=positions, past_key_values=past)
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

    spare: tensors of the original that nothing reads, and that are written back as copies. options: for transformers.
    """
    export(first, path / "out")
    again = load(path / "out")
    assert again.config == first.config
    for (name, one), (other_name, other) in zip(
        first.model.state_dict().items(), again.model.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(one, other), name
    before, after = load_file(path / "model.safetensors"), load_file(path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before.keys() - set(spare):
        assert torch.equal(before[name], after[name]), name

    back, info = type(theirs).from_pretrained(
        path / "out", output_loading_info=True, attn_implementation="eager", **options
    )
    assert not any(info.values()), info
    vocab_size = theirs.config.vocab_size
    ids, real = texts(vocab_size, pad="right")
    want, got = theirs(ids, attention_mask=real), back.eval()(ids, attention_mask=real)
    close(got[0], want[0], "transformers' own, of the export")
    was, now = theirs.config.to_dict(), back.config.to_dict()
    if "rope_parameters" in was:  # ours says more where a factor could be left to be derived, and no defaults of YaRN
        rope = {key: value for key, value in was.pop("rope_parameters").items() if (key, value) != ("truncate", True)}
        assert rope.items() <= now.pop("rope_parameters").items()
    changed = {key: (value, now.get(key)) for key, value in was.items() if now.get(key) != value}
    assert set(changed) <= {"_name_or_path", "dtype", "classifier_dropout"}, changed
