"""What models refuse: one line each, that says what is wrong and what to do. Seen as a user sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clearhead.errors import ClearheadError, ConfigError, InputError
from clearhead.model.config import ALiBi, EmbeddingConfig, Position, Rotary, T5Bias, YarnScaling
from clearhead.model.masks import KeyPadding
from clearhead.model.recurrent import RecurrentConfig, RecurrentLanguageModel
from clearhead.model.transformer import build
from tests.model import tiny

IDS = tiny.ids(2, 4)
OTHER = torch.ones(2, 5, dtype=torch.long)
TYPED = {"whole": {"embedding": EmbeddingConfig(token_types=2)}}
GAP = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1]])


def recurrent(cell: str = "lstm", d_model: int = 8) -> RecurrentLanguageModel:
    return RecurrentLanguageModel(
        RecurrentConfig(vocab_size=tiny.VOCABULARY, d_model=d_model, cell=cell)  # type: ignore[arg-type]
    )


def read_after(reader: Callable[..., object], first: Callable[..., object], cache: object, batch: int = 2) -> object:
    """What `reader` says of a cache that `first` has read two texts with."""
    first(IDS, cache=cache)
    return reader(tiny.ids(batch, 1), cache=cache)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (
        lambda: tiny.decoder()(torch.tensor([1, 2, 3])),
        "ids of shape (3,) are not a batch of texts; give (batch, tokens)",
    ),
    (lambda: tiny.decoder()(torch.zeros(2, 0, dtype=torch.long)), "ids of shape (2, 0) are not a batch of texts"),
    (lambda: tiny.encoder()(torch.zeros(0, 3, dtype=torch.long)), "at least one token"),
    (lambda: tiny.encoder()(torch.rand(1, 3)), "ids are whole numbers, and these are torch.float32; give torch.long"),
    (lambda: tiny.decoder()(IDS + tiny.VOCABULARY), "is outside the vocabulary of 61; use the tokenizer that belongs"),
    (lambda: tiny.decoder()(IDS - 99), "is outside the vocabulary of 61"),
    (lambda: tiny.decoder()(IDS, attention_mask=OTHER), "attention_mask has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.encoder()(IDS, documents=OTHER), "documents has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.decoder()(IDS, documents=OTHER), "documents has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.translator()(None, IDS), "give input_ids, or memory from encode()"),
    (lambda: tiny.translator()(IDS, IDS, attention_mask=OTHER), "attention_mask has shape (2, 5)"),
    (
        lambda: tiny.translator()(None, IDS, memory=torch.zeros(2, 4, tiny.WIDTH), attention_mask=OTHER),
        "attention_mask has shape (2, 5) and the ids (2, 4); give one value for each id",
    ),
    (lambda: tiny.translator()(IDS, IDS, decoder_attention_mask=OTHER), "attention_mask has shape (2, 5)"),
    (lambda: tiny.decoder()([[1, 2]]), "ids are given as list; give a tensor of ids"),
    (lambda: recurrent()([[1, 2]]), "ids are given as list; give a tensor of ids"),
    (lambda: tiny.decoder()(IDS, attention_mask=[[1] * 4] * 2), "attention_mask is a list; give a tensor"),
    (lambda: tiny.encoder(**TYPED)(IDS, token_type_ids=IDS.new_full((2, 4), 2)), "token type 2 is not one of the"),
    (lambda: tiny.encoder(**TYPED)(IDS, token_type_ids=IDS.new_full((2, 4), -1)), "token type -1 is not one of"),
    (lambda: tiny.encoder(**TYPED)(IDS, token_type_ids=OTHER), "token_type_ids has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.encoder(**TYPED)(IDS, token_type_ids=IDS / 2), "token_type_ids holds torch.float32, which are no"),
    (lambda: tiny.decoder()(IDS, token_type_ids=IDS * 0), "has no token types (EmbeddingConfig.token_types=0); leave"),
    (lambda: tiny.encoder()(IDS, positions=OTHER), "positions has shape (2, 5) and the ids (2, 4)"),
    (lambda: tiny.decoder()(IDS, positions=IDS / 2), "positions holds torch.float32, which are no whole numbers"),
    (
        lambda: tiny.decoder()(IDS, prefix=torch.ones(3).long()),
        "prefix is torch.int64 of shape (3,); give a tensor of 2",
    ),
    (lambda: tiny.decoder()(IDS, prefix=torch.ones(2)), "prefix is torch.float32 of shape (2,); give a tensor of 2"),
    (lambda: tiny.decoder()(IDS, prefix=2), "prefix is int; give a tensor of 2 whole numbers, one for each text"),
    (lambda: tiny.decoder()(IDS, documents=torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0]])), "document 0 returns in row 1"),
    (lambda: tiny.encoder()(IDS, documents=torch.tensor([[5, 7, 5, 9], [0, 0, 0, 0]])), "document 5 returns in row 0"),
    (lambda: tiny.translator()(IDS, tiny.ids(1, 4)), "the source is a batch of 2 and the target a batch of 1"),
    (lambda: tiny.translator()(None, IDS, memory=torch.zeros(2, 4, 5)), "memory is (2, 4, 5), not (batch, tokens, 32)"),
    (
        lambda: read_after(tiny.decoder(), tiny.decoder(n_layers=1), tiny.decoder(n_layers=1).new_cache()),
        "the cache has 1 layers and this model 2; begin one with this model's new_cache()",
    ),
    (
        lambda: read_after(tiny.decoder(), tiny.decoder(attention=tiny.GROUPED), tiny.decoder().new_cache()),
        "the cache has (heads, width) (2, 8) in layer 0 and this model (4, 8)",
    ),
    (lambda: tiny.decoder()(IDS, cache=recurrent().new_cache()), "cache is a RecurrentState; begin one with this"),
    (lambda: recurrent()(IDS, cache=tiny.decoder().new_cache()), "cache is a Cache; begin one with this"),
    (
        lambda: tiny.decoder()(tiny.ids(3, 1), positions=tiny.ids(3, 1), cache=filled()),
        "the cache holds a batch of 2 and the ids are a batch of 3",
    ),
    (
        lambda: read_after(recurrent(), recurrent(), recurrent().new_cache(), batch=3),
        "the cache holds a batch of 2 and the ids are a batch of 3",
    ),
    (
        lambda: read_after(recurrent("gru"), recurrent("lstm"), recurrent().new_cache()),
        "the cache holds the state of another model",
    ),
    (
        lambda: read_after(recurrent(), recurrent(d_model=4), recurrent().new_cache()),
        "the cache holds the state of another model",
    ),
]


def filled() -> object:
    model = tiny.decoder()
    cache = model.new_cache()
    model(IDS, cache=cache)
    return cache


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(("call", "says"), REFUSED)
def test_a_refusal_is_one_line(call: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert isinstance(error.value, ClearheadError)
    message = str(error.value)
    assert says in message and "\n" not in message and message.endswith(".")


def test_ids_may_be_int32_and_masks_whole_numbers() -> None:
    model = tiny.decoder()
    real = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    expected = model(IDS, attention_mask=real.bool()).logits
    assert torch.equal(model(IDS.int(), attention_mask=real).logits, expected)


def test_a_text_of_nothing_but_padding_is_finite() -> None:
    real = torch.ones_like(IDS).bool()
    real[1] = False
    for model in (tiny.decoder(), tiny.encoder()):
        assert model(IDS, attention_mask=real).hidden.isfinite().all()
    both = tiny.translator()
    assert both(IDS, IDS, attention_mask=real, decoder_attention_mask=real).logits.isfinite().all()


def test_shapes_are_checked_under_the_tests() -> None:
    with pytest.raises(TypeError, match="Type-check error"):
        tiny.decoder()(torch.tensor([1, 2, 3]))
    with pytest.raises(TypeError, match="Type-check error"):
        KeyPadding(torch.ones(2, 3))  # type: ignore[arg-type]


# ── what goes by columns ─────────────────────────────────────────────────────────────────────────────────────────

COLUMNS: dict[str, tuple[Position, dict[str, object], str]] = {
    "ALiBi": (ALiBi(), {}, "ALiBi"),
    "T5": (T5Bias(buckets=8, max_distance=20), {}, "T5's bias"),
    "window": (Rotary(), {"attention": (tiny.ATTENTION, replace(tiny.ATTENTION, window=3))}, "the attention's window"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_padding_between_tokens_is_refused_where_distance_is_counted_in_columns(kind: str) -> None:
    position, choices, what = COLUMNS[kind]
    says = f"text 1 of the batch has padding between its tokens .*, and {what} would count it .*; pad on the left"
    decoder, both = tiny.decoder(position, **choices), tiny.translator(position, **choices)
    with pytest.raises(InputError, match=says):
        decoder(IDS, attention_mask=GAP)
    with pytest.raises(InputError, match=says):
        tiny.encoder(position, **choices)(IDS, attention_mask=GAP)
    with pytest.raises(InputError, match=says):
        both(IDS, IDS, attention_mask=GAP)
    with pytest.raises(InputError, match=says):
        both(IDS, IDS, decoder_attention_mask=GAP)
    with pytest.raises(InputError, match=says):  # inside a packed text, while between two it is nobody's distance
        decoder(IDS, attention_mask=GAP, documents=torch.zeros_like(IDS))
    assert decoder(IDS, attention_mask=GAP, documents=torch.tensor([[0] * 4, [0, 0, 1, 1]])).logits.isfinite().all()


@pytest.mark.parametrize("kind", COLUMNS)
def test_so_it_is_across_a_cache_which_stays_as_it_was(kind: str) -> None:
    position, choices, _ = COLUMNS[kind]
    model = tiny.decoder(position, **choices)
    cache, right = model.new_cache(), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    model(IDS, attention_mask=right, cache=cache)
    with pytest.raises(InputError, match="text 1 of the batch has padding between its tokens"):
        model(tiny.ids(2, 1), cache=cache)
    assert cache.length == 4 and cache.layers[0].length == 4
    more = torch.tensor([[1], [0]])  # padding after padding is no gap
    logits = model(tiny.ids(2, 1), attention_mask=more, cache=cache).logits
    whole = model(torch.cat((IDS, tiny.ids(2, 1)), 1), attention_mask=torch.cat((right, more), 1)).logits
    torch.testing.assert_close(logits[0, -1], whole[0, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", tiny.POSITIONS)
@pytest.mark.parametrize("left", [True, False], ids=["padded left", "padded right"])
def test_a_prefix_is_counted_over_tokens(name: str, left: bool) -> None:
    model = tiny.decoder(tiny.POSITIONS[name])
    texts, prefix = [tiny.ids(1, n, seed=n)[0] for n in (9, 5, 3)], torch.tensor([4, 3, 0])
    ids, real = tiny.padded(texts, left=left)
    logits = model(ids, attention_mask=real, prefix=prefix).logits
    for row, text in enumerate(texts):
        alone = model(text[None], prefix=prefix[row, None]).logits[0]
        torch.testing.assert_close(logits[row, real[row]], alone, rtol=1e-5, atol=1e-5)


def test_the_documents_of_padding_may_return() -> None:
    model, documents = tiny.decoder(), torch.tensor([[0, 1, 1, 0, 2, 0]])
    ids, real = tiny.ids(1, 6), documents > 0
    logits = model(ids, attention_mask=real, documents=documents).logits
    torch.testing.assert_close(logits[:, 1:3], model(ids[:, 1:3]).logits, rtol=1e-5, atol=1e-5)


# ── configs that cannot be ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("theta", [1.0, 0.5])
def test_yarn_needs_frequencies_that_differ(theta: float) -> None:
    with pytest.raises(ConfigError, match=rf"Rotary.theta={theta} with YarnScaling: .* choose a theta above 1"):
        Rotary(theta=theta, scaling=YarnScaling(factor=2.0, original_context=16))


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"vocab_size": 2**40}, r"has 35,\d\d\d,\d\d\d,\d\d\d,\d\d\d parameters, [\d,.]+ GiB, and the memory"),
        ({"vocab_size": 2**40, "d_model": 2**40}, "is larger than torch can count"),
    ],
)
def test_a_model_larger_than_the_memory_is_refused_in_one_line(sizes: dict[str, int], says: str) -> None:
    config = replace(tiny.decoder().config, **sizes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=says) as error:
        build(config)
    assert "\n" not in str(error.value)


# ── a refused call leaves the cache as it was ────────────────────────────────────────────────────────────────────

NAMES = ["rotary", "learned", "dynamic", "longrope"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("before", [0, 5, 11])
def test_a_refused_call_leaves_no_trace_in_the_cache(name: str, before: int) -> None:
    model, text = tiny.decoder(tiny.POSITIONS[name]), tiny.ids(1, before + 3)
    cache = model.new_cache()
    with torch.inference_mode():
        if before:
            model(text[:, :before], cache=cache)
        for refused in (torch.tensor([[1, 2, 99]]), torch.tensor([[1, -1]])):
            with pytest.raises(InputError, match="outside the vocabulary"):
                model(refused, cache=cache)
            assert cache.length == before and {layer.length for layer in cache.layers} == {before}
        logits = model(text[:, before:], cache=cache).logits[:, -1]
    torch.testing.assert_close(logits, model(text).logits[:, -1], rtol=1e-5, atol=1e-5)


def test_nor_does_one_past_the_context_or_one_that_breaks_off_half_way() -> None:
    model, text = tiny.decoder(), tiny.ids(1, 8)
    cache = model.new_cache()
    with torch.inference_mode():
        model(text[:, :5], cache=cache)
        with pytest.raises(InputError, match="positions end at"):
            model(tiny.ids(1, tiny.CONTEXT), cache=cache)
        kernel = last_kernel(model, broken)
        with pytest.raises(KeyboardInterrupt):  # layer 0 has written its keys by then
            model(text[:, :3], cache=cache)
        last_kernel(model, kernel)
        logits = model(text[:, 5:], cache=cache).logits
    torch.testing.assert_close(logits, model(text).logits[:, 5:], rtol=1e-5, atol=1e-5)


def test_so_it_is_in_a_translator_with_what_it_keeps_of_the_source() -> None:
    model, source, text = tiny.translator(Rotary()), tiny.ids(1, 6), tiny.ids(1, 8)
    cache, memory = model.new_cache(), model.encode(source)
    with torch.inference_mode():
        kernel = last_kernel(model, broken)
        with pytest.raises(KeyboardInterrupt):
            model(tiny.ids(1, 4, seed=5), text[:, :2], cache=cache)  # another source, of which nothing must stay
        last_kernel(model, kernel)
        assert all(layer.length == 0 for layer in (*cache.layers, *cache.cross))
        model(None, text[:, :5], memory=memory, cache=cache)
        with pytest.raises(InputError, match="outside the vocabulary"):
            model(None, torch.tensor([[1, 99]]), memory=memory, cache=cache)
        logits = model(None, text[:, 5:], memory=memory, cache=cache).logits
    torch.testing.assert_close(logits, model(source, text).logits[:, 5:], rtol=1e-5, atol=1e-5)


def broken(*args: object, **choices: object) -> torch.Tensor:
    raise KeyboardInterrupt


def last_kernel(model: torch.nn.Module, kernel: object) -> object:
    """Give the last decoder layer another kernel, and return the one it had."""
    attention = model.decoder.block(1).attention  # type: ignore[union-attr, operator]
    had, attention.kernel = attention.kernel, kernel
    return had
