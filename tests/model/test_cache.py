"""The cache, padding and packing: a text gets the same logits however it is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clearhead.errors import InputError
from clearhead.model.cache import Cache, LayerCache, count_positions
from clearhead.model.config import (
    AttentionConfig,
    LayerNorm,
    NoPosition,
    Position,
    QKNorm,
    RMSNorm,
    Rotary,
    StackConfig,
)
from clearhead.model.transformer import Decoder
from tests.model import tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}

KINDS: dict[str, tuple[Position, dict[str, object]]] = {
    **{name: (position, {}) for name, position in tiny.POSITIONS.items()},
    "window": (Rotary(), {"attention": replace(tiny.ATTENTION, window=6)}),
    "local and global": (
        Rotary(),
        {"attention": (replace(tiny.GROUPED, window=5, rotary=Rotary(theta=100.0)), tiny.GROUPED)},
    ),
    "softcap, sinks, QK-norm": (
        Rotary(),
        {"attention": AttentionConfig(n_heads=4, softcap=5.0, sinks=True, qk_norm=QKNorm(norm=RMSNorm()))},
    ),
    "one block, twice": (Rotary(), {"share_layers": True, "norm": LayerNorm(bias=False)}),
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Decoder:
    position, choices = KINDS[request.param]
    return tiny.decoder(position, **choices)


def read_in_chunks(model: Decoder, ids: Tensor, real: Tensor | None, chunks: list[int]) -> tuple[Tensor, Cache]:
    """The logits of the whole, read piece by piece with a cache."""
    assert sum(chunks) == ids.shape[1]
    cache, parts = model.new_cache(), []
    with torch.inference_mode():
        for piece, mask in zip(
            ids.split(chunks, dim=1), real.split(chunks, dim=1) if real is not None else chunks, strict=True
        ):
            parts.append(model(piece, attention_mask=mask if real is not None else None, cache=cache).logits)
    return torch.cat(parts, dim=1), cache


# ── cached equals uncached ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunks", [[1] * 18, [7, 1, 1, 6, 3], [17, 1]], ids=["by one", "by chunks", "all, then one"])
def test_cached_logits_are_the_uncached(model: Decoder, chunks: list[int]) -> None:
    """Every position's logits, whatever the pieces. Scalings that look at the length are compared at each piece's end:
    what the text was when an earlier piece was read is not what it is now."""
    ids = tiny.ids(2, 18)
    cached, cache = read_in_chunks(model, ids, None, chunks)
    assert cache.length == 18
    if stretches(model):
        for end in torch.tensor(chunks).cumsum(0).tolist():
            torch.testing.assert_close(cached[:, end - 1], model(ids[:, :end]).logits[:, -1], **CLOSE)
    else:
        torch.testing.assert_close(cached, model(ids).logits, **CLOSE)


@pytest.mark.parametrize("chunks", [[1] * 18, [10, 3, 1, 4]], ids=["by one", "by chunks"])
@pytest.mark.parametrize("left", [True, False], ids=["padded left", "padded right"])
def test_so_they_are_under_padding(model: Decoder, chunks: list[int], left: bool) -> None:
    ids, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (18, 11, 5)], left=left)
    cached, _ = read_in_chunks(model, ids, real, chunks)
    assert cached.isfinite().all()
    if stretches(model):
        end = 0
        for size in chunks:
            end += size
            now = model(ids[:, :end], attention_mask=real[:, :end]).logits[:, -1]
            torch.testing.assert_close(cached[:, end - 1][real[:, end - 1]], now[real[:, end - 1]], **CLOSE)
    else:
        torch.testing.assert_close(cached[real], model(ids, attention_mask=real).logits[real], **CLOSE)


def stretches(model: Decoder) -> bool:
    return bool(model.decoder.turns_by_length)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_a_text_that_outgrows_its_scaling_is_read_again_and_only_then(name: str) -> None:
    """Both scalings were made for 12 tokens. LongRoPE turns differently past them; dynamic NTK at every length."""
    model, read = tiny.decoder(tiny.POSITIONS[name]), []
    model.decoder.embedding.register_forward_hook(lambda module, args, out: read.append(args[0].shape[1]))
    read_in_chunks(model, tiny.ids(1, 15), None, [10, 1, 1, 1, 1, 1])
    assert read == {"dynamic": [10, 1, 1, 13, 14, 15], "longrope": [10, 1, 1, 13, 1, 1]}[name]


def test_padding_in_the_middle_takes_no_position() -> None:
    """A second turn of a conversation, shorter for some: where it stands is counted over tokens."""
    model = tiny.decoder(Rotary())
    ids, real = tiny.ids(2, 20), torch.ones(2, 20, dtype=torch.bool)
    real[1, 8:12] = False
    cached, _ = read_in_chunks(model, ids, real, [12, 1, 7])
    alone = model(ids[1:, real[1]]).logits
    torch.testing.assert_close(cached[1, real[1]], alone[0], **CLOSE)


def test_training_through_a_cache_has_the_same_gradients() -> None:
    model = tiny.decoder(Rotary())
    ids, cache = tiny.ids(2, 9), model.new_cache()
    model(ids).logits[:, -1].sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for piece in ids.split([5, 2, 2], dim=1):
        last = model(piece, cache=cache).logits[:, -1]
    last.sum().backward()
    torch.testing.assert_close([p.grad for p in model.parameters() if p.grad is not None], expected, **CLOSE)


@pytest.mark.parametrize("name", tiny.POSITIONS)
def test_a_translator_reads_its_source_once(name: str) -> None:
    model = tiny.translator(tiny.POSITIONS[name])
    source, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (14, 6)])
    target = tiny.ids(2, 10, seed=3)
    cache, memory, parts = model.new_cache(), model.encode(source, attention_mask=real), []
    expected = model(source, target, attention_mask=real)
    torch.testing.assert_close(memory, expected.memory)
    with torch.inference_mode():
        for piece in target.split([1, 4, 1, 4], dim=1):
            parts.append(model(None, piece, memory=memory, attention_mask=real, cache=cache).logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected.logits, **CLOSE)
    alone = model(source[1:, real[1]], target[1:]).logits
    torch.testing.assert_close(expected.logits[1:], alone, **CLOSE)


# ── padding and packing ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("left", [True, False], ids=["padded left", "padded right"])
def test_a_padded_batch_gives_each_text_what_it_gets_alone(model: Decoder, left: bool) -> None:
    texts = [tiny.ids(1, n, seed=n)[0] for n in (25, 9, 1)]
    ids, real = tiny.padded(texts, left=left)
    logits = model(ids, attention_mask=real).logits
    for row, text in enumerate(texts):
        torch.testing.assert_close(logits[row, real[row]], model(text[None]).logits[0], **CLOSE)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_packed_texts_get_what_they_get_alone(name: str, kind: str) -> None:
    position, choices = KINDS[name]
    model = tiny.decoder(position, **choices) if kind == "decoder" else tiny.encoder(position, **choices)
    texts = [tiny.ids(1, n, seed=n)[0] for n in (16, 1, 7, 14)]
    packed = torch.cat(texts)[None]
    documents = torch.repeat_interleave(torch.tensor([7, 7 + 1, 0, 7]), torch.tensor([16, 1, 7, 14]))[None]
    documents[0, -14:] = 3
    hidden = model(packed, documents=documents).hidden
    for part, text in zip(hidden.split([16, 1, 7, 14], dim=1), texts, strict=True):
        torch.testing.assert_close(part, model(text[None]).hidden, **CLOSE)


def test_padding_between_packed_texts_takes_no_position() -> None:
    model = tiny.decoder()
    first, second = tiny.ids(1, 5)[0], tiny.ids(1, 4, seed=1)[0]
    ids = torch.cat((first, torch.zeros(3, dtype=torch.long), second))[None]
    real = torch.ones_like(ids).bool()
    real[:, 5:8] = False
    for owner in (0, 1):  # whichever text the padding is counted with
        documents = torch.tensor([[0] * 5 + [owner] * 3 + [1] * 4])
        logits = model(ids, attention_mask=real, documents=documents).logits
        torch.testing.assert_close(logits[:, 8:], model(second[None]).logits, **CLOSE)
        torch.testing.assert_close(logits[:, :5], model(first[None]).logits, **CLOSE)


def test_a_prefix_is_read_by_all() -> None:
    model = tiny.decoder(Rotary())
    ids = tiny.ids(1, 8)
    other = ids.clone()
    other[0, 3] += 1
    prefix = torch.tensor([4])
    assert not torch.equal(model(other, prefix=prefix).logits[:, 0], model(ids, prefix=prefix).logits[:, 0])
    torch.testing.assert_close(model(ids, prefix=torch.tensor([0])).logits, model(ids).logits, **CLOSE)
    cache = model.new_cache()
    model(ids[:, :5], prefix=prefix, cache=cache)
    torch.testing.assert_close(model(ids[:, 5:], cache=cache).logits, model(ids, prefix=prefix).logits[:, 5:], **CLOSE)


# ── select and crop ──────────────────────────────────────────────────────────────────────────────────────────────


def test_selecting_rows_is_reading_those_texts(model: Decoder) -> None:
    ids, real = tiny.padded([tiny.ids(1, n, seed=n)[0] for n in (8, 5, 3)])
    cache, rows, more = model.new_cache(), torch.tensor([2, 0, 0, 1]), tiny.ids(4, 2, seed=9)
    with torch.inference_mode():
        model(ids, attention_mask=real, cache=cache)
        cache.select(rows)
        cached = model(more, cache=cache).logits
    whole = torch.cat((ids[rows], more), dim=1)
    expected = model(whole, attention_mask=torch.cat((real[rows], torch.ones(4, 2).bool()), dim=1)).logits
    torch.testing.assert_close(cached[:, -1], expected[:, -1], **CLOSE)


@pytest.mark.parametrize("length", [0, 1, 6, 10, 99])
def test_cropping_forgets_the_rest(model: Decoder, length: int) -> None:
    ids, more = tiny.ids(2, 10), tiny.ids(2, 3, seed=9)
    cache = model.new_cache()
    with torch.inference_mode():
        for piece in ids.split([8, 1, 1], dim=1):
            model(piece, cache=cache)
        held = cache.layers[0].k.clone(), cache.layers[0].k
        cache.crop(length)
        assert cache.length == min(length, 10)
        cached = model(more, cache=cache).logits
    assert torch.equal(*held), "what someone else still holds was written over"
    expected = model(torch.cat((ids[:, :length], more), dim=1)).logits
    torch.testing.assert_close(cached[:, -1], expected[:, -1], **CLOSE)


def test_the_storage_grows_by_doubling() -> None:
    cache = LayerCache()
    stores = set()
    for step in range(100):
        k, _ = cache.append(torch.full((1, 1, 1, 2), float(step)), torch.zeros(1, 1, 1, 3))
        stores.add(k.untyped_storage().data_ptr())
        assert k[0, 0, :, 0].tolist() == list(range(step + 1))
    assert cache.length == 100 and cache.v.shape == (1, 1, 100, 3)
    assert len(stores) <= 9


def test_positions_are_counted_over_tokens() -> None:
    real = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 1]]).bool()
    assert count_positions(real).tolist() == [[-1, -1, 0, 1], [0, 1, 1, 2]]


# ── what a cache refuses ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_cache_belongs_to_its_batch_and_to_one_text_a_row() -> None:
    model = tiny.decoder()
    cache = model.new_cache()
    model(tiny.ids(2, 3), cache=cache)
    with pytest.raises(InputError, match=r"a batch of 2 and the ids are a batch of 3; begin a new Cache"):
        model(tiny.ids(3, 1), cache=cache)
    with pytest.raises(InputError, match="leave the cache out"):
        model(tiny.ids(2, 3), documents=torch.zeros(2, 3, dtype=torch.long), cache=model.new_cache())
    with pytest.raises(InputError, match="leave the cache out"):
        model(tiny.ids(2, 1), prefix=torch.tensor([1, 1]), cache=cache)
    stretching = tiny.decoder(tiny.LONGROPE)
    with pytest.raises(InputError, match="reads the text again as it grows; leave the cache out"):
        stretching(tiny.ids(2, 3), prefix=torch.tensor([1, 1]), cache=stretching.new_cache())


def test_a_model_without_positions_needs_no_context() -> None:
    stack = StackConfig(n_layers=1, attention=tiny.ATTENTION, feedforward=tiny.FEEDFORWARD, position=NoPosition())
    assert not stack.bounded
    assert tiny.decoder(NoPosition())(tiny.ids(1, 3 * tiny.CONTEXT)).logits.isfinite().all()
