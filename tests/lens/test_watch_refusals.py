"""What cannot be watched, or not like that: each case has one defined end, one line that says so, and no trace."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from clearhead.errors import LensError, NotWatchableError, OutsideError, ReleasedError
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.kernels import fused
from clearhead.model.transformer import build as ours
from tests.lens.foreign import build, inputs

WIDE: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
NOT_DISPATCHED: dict[str, tuple[dict[str, Any], bool]] = {  # a config, and whether clearhead has the family
    "BloomForCausalLM": ({"vocab_size": 60, "hidden_size": 32, "n_layer": 1, "n_head": 4}, True),
    "MptForCausalLM": ({"vocab_size": 60, "d_model": 32, "n_layers": 1, "n_heads": 4, "max_seq_len": 32}, True),
    "FalconForCausalLM": (WIDE, True),
    "MPNetModel": ({**WIDE, "intermediate_size": 64}, False),
    "DebertaV2Model": ({**WIDE, "intermediate_size": 64, "relative_attention": True, "pos_att_type": ["p2c"]}, False),
    "XLNetLMHeadModel": ({"vocab_size": 60, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}, False),
    "GPTNeoForCausalLM": (
        {"vocab_size": 60, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
         "attention_types": [[["global", "local"], 1]]},
        False,
    ),
    "GPTJForCausalLM": ({"vocab_size": 60, "n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 8}, False),
}  # fmt: skip


def small() -> Any:
    return ours(presets.gpt2(n_layers=2, n_heads=4, d_model=32, vocab_size=60, context=64)).eval()


BOTH: dict[str, Callable[[], Any]] = {"ours": small, "theirs": lambda: build("gpt2")}
IDS = torch.arange(3, 12)[None]


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error) and str(error).endswith((".", ")"))
    return str(error)


def untouched(model: Any) -> bool:
    """True if nothing of the lens is in the model."""
    for module in model.modules():
        if module._forward_pre_hooks or module._forward_hooks or getattr(module, "kernel", fused) is not fused:
            return False
        if getattr(getattr(module, "config", None), "_attn_implementation", None) == "clearhead_lens":
            return False
    return True


@pytest.mark.parametrize("cls", NOT_DISPATCHED)
def test_what_does_not_dispatch(cls: str) -> None:
    change, known = NOT_DISPATCHED[cls]
    kind = getattr(transformers, cls)
    model = kind(kind.config_class(**change)).eval()
    weights = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        before, config, implementation = model(IDS)[0], model.config.to_dict(), model.config._attn_implementation
        with pytest.raises(NotWatchableError, match=cls) as caught, watch(model):
            raise AssertionError("entered")
        assert torch.equal(before, model(IDS)[0])
    assert ("clearhead.load" in one_line(caught.value)) == known
    assert known or 'attn_implementation="eager"' in str(caught.value)
    assert untouched(model) and model.config.to_dict() == config
    assert model.config._attn_implementation == implementation
    assert all(torch.equal(weights[name], x) for name, x in model.state_dict().items())


def test_the_way_out_is_one() -> None:
    """What the refusal says of BLOOM: clearhead reads the very folder, and what it gives can be watched."""
    import clearhead
    from tests.parity.support import folder

    torch.manual_seed(0)
    config = transformers.BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4)
    with folder() as where:
        transformers.BloomForCausalLM(config).save_pretrained(where)
        theirs = transformers.BloomForCausalLM.from_pretrained(where).eval()
        with pytest.raises(NotWatchableError) as caught, watch(theirs):
            pass
        assert f"clearhead.load({str(where)!r})" in str(caught.value)
        from clearhead.checkpoint import load

        mine = load(str(where)).model.eval()
    assert clearhead.watch is watch
    with torch.inference_mode():
        theirs.set_attn_implementation("eager")
        expected = theirs(IDS, output_attentions=True).attentions
        with watch(mine) as seen:
            mine(IDS)
    for layer in range(2):
        for head in range(4):
            torch.testing.assert_close(seen.map(layer, head).dense(), expected[layer][0, head], atol=1e-6, rtol=0)


@pytest.mark.parametrize("which", BOTH)
def test_watched_twice(which: str) -> None:
    """By the same name, by a part of it, by something around it: the first watcher is not disturbed."""
    model = BOTH[which]()
    around = nn.ModuleDict({"inner": model})
    part = next(m for m in model.modules() if m is not model and list(m.children()))
    with torch.inference_mode(), watch(model) as seen:
        for other in (model, part, around):
            with pytest.raises(LensError, match="being watched already") as caught, watch(other):
                pass
            one_line(caught.value)
        model(IDS)
    assert seen.n_calls(layer=1) == 1 and untouched(model)
    with torch.inference_mode(), watch(model) as again:
        model(IDS)
    assert again.map(0, 0).shape == (9, 9)


@pytest.mark.parametrize("which", BOTH)
def test_two_threads_watch_one_model(which: str) -> None:
    """One has it, the other is told; which of them it is does not matter."""
    model = BOTH[which]()
    start, entered, done = threading.Barrier(2), threading.Event(), threading.Barrier(2)
    ends: list[str] = []

    def look() -> None:
        start.wait()
        try:
            with watch(model) as seen, torch.inference_mode():
                entered.set()
                done.wait(10)
                model(IDS)
                ends.append(str(seen.map(1, 1).shape))
        except LensError as error:
            assert entered.wait(10)
            ends.append(one_line(error))
            done.wait(10)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ends) == 2 and "(9, 9)" in ends and any("already" in end for end in ends)
    assert untouched(model)


class Slow(nn.Module):
    """A feed-forward part that waits: another thread can act while its pass is under way."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.inside, self.go = inner, threading.Event(), threading.Event()

    def forward(self, *args: Any, **more: Any) -> Any:
        self.inside.set()
        assert self.go.wait(20)
        return self.inner(*args, **more)


def slowed(model: Any) -> Slow:
    """The model with its first block's feed-forward part slowed."""
    if hasattr(model, "decoder"):
        slow = model.decoder.blocks[0].feedforward = Slow(model.decoder.blocks[0].feedforward)
    else:
        slow = model.transformer.h[0].mlp = Slow(model.transformer.h[0].mlp)
    return slow


@pytest.mark.parametrize("which", BOTH)
def test_a_watched_model_is_called_from_two_threads(which: str) -> None:
    """At once: the second is told, and the first is not disturbed. One after the other: both are seen."""
    model = BOTH[which]()
    slow = slowed(model)

    def run() -> None:
        with torch.inference_mode():
            model(IDS)

    with watch(model) as seen:
        thread = threading.Thread(target=run)
        thread.start()
        assert slow.inside.wait(20)
        with pytest.raises(LensError, match="one pass at a time") as caught:
            run()
        one_line(caught.value)
        slow.go.set()
        thread.join(20)
        run()
    assert seen.n_calls(layer=0) == seen.n_calls(layer=1) == 2
    assert torch.equal(seen.map(1, 1, call=0).dense(), seen.map(1, 1, call=1).dense())


@pytest.mark.parametrize("which", BOTH)
def test_the_block_is_left_while_another_thread_runs_the_model(which: str) -> None:
    """Leaving waits for the pass under way, which is seen whole; the next runs as if nobody had watched."""
    model = BOTH[which]()
    with torch.inference_mode():
        plain = model(IDS)[0] if which == "theirs" else model(IDS).logits
    slow = slowed(model)
    outputs: list[Any] = []

    def run() -> None:
        with torch.inference_mode():
            for _ in range(2):
                outputs.append(model(IDS)[0] if which == "theirs" else model(IDS).logits)

    with watch(model) as seen:
        thread = threading.Thread(target=run)
        thread.start()
        assert slow.inside.wait(20)
        threading.Timer(0.2, slow.go.set).start()
    assert len(outputs) >= 1 or seen.n_calls(layer=1) == 1  # the block was left after the last layer had run
    thread.join(20)
    assert len(outputs) == 2 and all(torch.equal(output, plain) for output in outputs)
    assert seen.n_calls(layer=0) == seen.n_calls(layer=1)
    assert untouched(model)


def test_never_called() -> None:
    for make in BOTH.values():
        model = make()
        with watch(model) as seen:
            pass
        for ask in (lambda: seen.map(0, 0), lambda: seen.growing(0, 0), lambda: seen.links([0], [0])):
            with pytest.raises(LensError, match="nothing was seen: call the model inside") as caught:
                ask()
            one_line(caught.value)
        assert seen.nbytes == 0


@pytest.mark.parametrize("which", BOTH)
def test_released_and_outside(which: str) -> None:
    model = BOTH[which]()
    for layers in ([2], [-1]):
        with pytest.raises(OutsideError, match="outside the model"), watch(model, layers=layers):
            pass
    with torch.inference_mode(), watch(model, layers=[1]) as seen:
        model(IDS)
    wrong: list[Callable[[], object]] = [
        lambda: seen.map(0, 0),
        lambda: seen.map(1, 4),
        lambda: seen.map(1, -1),
        lambda: seen.map(1, 0, batch=1),
        lambda: seen.map(1, 0, call=1),
        lambda: seen.map(1, 0, "cross"),
        lambda: seen.growing(0, 0),
        lambda: seen.growing(1, 4),
        lambda: seen.growing(1, 0, batch=1),
        lambda: seen.growing(1, 0, run=1),
    ]
    for ask in wrong:
        with pytest.raises(OutsideError) as caught:
            ask()
        one_line(caught.value)
    m, g = seen.map(1, 0), seen.growing(1, 0)
    seen.release()
    late: list[Callable[[], object]] = [m.dense, g.dense, lambda: seen.map(1, 0), lambda: seen.growing(1, 0)]
    for ask in late:
        with pytest.raises(ReleasedError, match="released") as gone:
            ask()
        one_line(gone.value)
    assert untouched(model)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "llama"])
def test_output_attentions_while_watching(name: str) -> None:
    """transformers would give an empty tuple, and say nothing."""
    model = build(name)
    with torch.inference_mode(), watch(model) as seen:
        with pytest.raises(LensError, match=r"read seen\.map") as caught:
            model(**inputs(name), output_attentions=True)
        one_line(caught.value)
        model(**inputs(name), output_attentions=False)
    assert seen.kinds


def test_gradient_checkpointing() -> None:
    """It runs every layer again, after the block may have ended. Without training it does nothing, and is watched."""
    model = build("llama")
    model.activation_checkpointing_enable()
    with torch.inference_mode(), watch(model) as seen:
        model(IDS)
        model.train()
        with pytest.raises(NotWatchableError, match=r"model\.eval\(\)") as caught:
            model(IDS)
    one_line(caught.value)
    assert seen.n_calls() == 1
    with pytest.raises(NotWatchableError, match="gradient checkpointing"), watch(model):
        pass
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("which", BOTH)
def test_compiled(which: str) -> None:
    whole, inside = BOTH[which](), BOTH[which]()
    inside.compile(backend="eager")
    for model in (torch.compile(whole, backend="eager"), inside):
        with pytest.raises(NotWatchableError, match=r"torch\.compile") as caught, watch(model):
            pass
        one_line(caught.value)
    with torch.inference_mode(), watch(whole) as seen:
        whole(IDS)
    assert seen.map(1, 1).shape == (9, 9)


def test_what_wraps_a_model_of_transformers() -> None:
    """It is watched within; two at once could not be told apart, and a part is no whole."""
    model = build("gpt2")

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(ids)[0]
            return logits

    wrapped = Wrapped()
    with torch.inference_mode(), watch(wrapped) as seen:
        wrapped(IDS)
    assert seen.map(1, 3).shape == (9, 9)
    pair = nn.ModuleDict({"left": build("gpt2"), "right": build("bert")})
    with pytest.raises(NotWatchableError, match=r"2 models of transformers.*\.left, \.right") as caught, watch(pair):
        pass
    one_line(caught.value)
    with pytest.raises(NotWatchableError, match="watch the whole model"), watch(model.transformer.h[0]):
        pass


def test_a_config_shared_with_a_watched_model() -> None:
    """Which of two that share a config is restored last would decide for both; so the second is refused."""
    one = build("llama")
    other = transformers.LlamaForCausalLM(one.config).eval()
    with watch(one), pytest.raises(LensError, match="shares its config") as caught, watch(other):
        pass
    one_line(caught.value)
    assert one.config._attn_implementation == other.config._attn_implementation == "sdpa"


def test_a_generation_that_would_be_compiled_is_not() -> None:
    model = build("llama")
    before = model.generation_config.disable_compile
    with watch(model):
        assert model.generation_config.disable_compile is True
    assert model.generation_config.disable_compile is before


@pytest.mark.parametrize("which", BOTH)
def test_one_watch_for_two_blocks(which: str) -> None:
    """Each block has a `seen` of its own; a model is still not watched twice at one time."""
    model = BOTH[which]()
    watching = watch(model, layers=[1])
    seen = []
    for _ in range(2):
        with torch.no_grad(), watching as one:
            model(IDS)
        seen.append(one)
    assert seen[0] is not seen[1] and [each.n_calls(layer=1) for each in seen] == [1, 1]
    torch.testing.assert_close(seen[0].map(1, 0)[:], seen[1].map(1, 0)[:], rtol=0, atol=0)
    with watching, pytest.raises(LensError, match="being watched already"), watching:
        pass
    with torch.no_grad(), watching as again:  # what was refused left nothing behind
        model(IDS)
    assert again.n_calls(layer=1) == 1 and untouched(model)


@pytest.mark.parametrize("what", ["minilm", None])
def test_no_model_is_refused_at_the_call(what: Any) -> None:
    with pytest.raises(NotWatchableError) as refused:
        inspect.unwrap(watch)(what)  # the tests check types as they run; a user's process does not
    assert f"{type(what).__name__} is no module that runs" in one_line(refused.value)
