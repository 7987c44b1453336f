"""Mutated configs, headers and files, of every family and format: a ClearheadError or a model, quickly, and no more
memory than the file has; and mutated wishes for generation, of every family that writes. A few of each here; thousands
under `make test-all`."""

from __future__ import annotations

import json
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("gguf")

import torch

import clearhead
from clearhead.checkpoint import families, load
from clearhead.checkpoint.config_rules import Ignored
from clearhead.errors import ClearheadError
from clearhead.generate import generate_ids
from clearhead.generate.defaults import NOT_RUN, READ, SAMPLING
from clearhead.generate.settings import settled
from tests.checkpoint import support, writers
from tests.parity import support as parity
from tests.parity.grids import grids

GRIDS = grids()
SECONDS = 10
HEADROOM = 2 * 2**30
"""Bytes of address space past what the process has: no tiny file may ask for as much."""

NUMBERS = (0, 1, -1, 2, 3, 7, 12, 64, 255, 4096, 10**6, 2**31, 2**40, 2**63, -(2**63), 10**30, 10**400)
FLOATS = (0.0, -1.0, 0.5, 1e-30, 1e30, 1e308, float("nan"), float("inf"), -float("inf"))
OTHERS: tuple[Any, ...] = (None, True, False, "", "text", "relu", "yarn", "llama3", "\ud800", "a" * 3000, "../x")
NESTED: tuple[Any, ...] = (
    [],
    {},
    [[]],
    [0],
    [1, 2, 3],
    ["a"],
    [None],
    {"a": 1},
    {"0": "x"},
    [1e308] * 4,
    [[1] * 3] * 3,
)
VALUES = (*NUMBERS, *FLOATS, *OTHERS, *NESTED)


@contextmanager
def bounded() -> Iterator[None]:
    """No hang, and no large allocation: either ends in an exception that is none of ours."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no end within {SECONDS} seconds")

    status = Path("/proc/self/status")
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    if status.exists():
        size = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + HEADROOM, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(path: Path, what: Callable[[], str], job: Callable[..., object] = load, **options: Any) -> bool:
    """Whether it loads; anything but a model or a ClearheadError of one line fails, with what was mutated."""
    try:
        with bounded():
            job(path, **options)
        return True
    except ClearheadError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, what()
        str(error).encode()
        return False
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}: {what()}") from error


# ── configs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model's folder of each family, made when it is first asked for."""
    made: dict[str, Path] = {}

    def victim(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("victim") / family
            grid = GRIDS[family]
            parity.tiny(grid.classes[next(iter(grid.classes))], grid.small()).save_pretrained(made[family])
        return made[family]

    return victim


def mutated(keys: dict[str, Any], known: list[str], draw: random.Random) -> dict[str, Any]:
    """A config with one to three of its keys changed, added or taken away; also within objects and lists."""
    keys = json.loads(json.dumps(keys))
    for _ in range(draw.randint(1, 3)):
        name = draw.choice([*keys, *known] or ["x"])
        old = keys.get(name)
        kind = draw.random()
        if kind < 0.1:
            keys.pop(name, None)
        elif kind < 0.4 and isinstance(old, dict) and old:
            inner = draw.choice([*old, "rope_type", "factor", "x"])
            old[inner] = draw.choice(VALUES)
        elif kind < 0.4 and isinstance(old, list) and old:
            old[draw.randrange(len(old))] = draw.choice(VALUES)
        elif kind < 0.5 and type(old) in (int, float):
            keys[name] = draw.choice((old + 1, old * 2, -old, old // 2, old * 1000))
        else:
            keys[name] = draw.choice(VALUES)
    return keys


def fuzz_configs(folder: Path, family: str, count: int) -> int:
    path = folder / "config.json"
    original = path.read_text()
    keys = json.loads(original)
    rows = families.family(family, "test").config
    known = [key for row in rows if not isinstance(row, Ignored) for key in row.keys]
    loaded = 0
    try:
        for seed in range(count):
            draw = random.Random(f"{family} {seed}")
            changed = mutated(keys, known, draw)
            path.write_text(json.dumps(changed))
            head = draw.choice((None, None, None, "LlamaForSequenceClassification", "BertModel"))
            different = {key: changed.get(key, ...) for key in {*keys, *changed} if changed.get(key) != keys.get(key)}
            loaded += attempt(folder, lambda: f"{family}, seed {seed}, head {head}: {str(different)[:1500]}", head=head)  # noqa: B023
    finally:
        path.write_text(original)
    return loaded


@pytest.mark.slow
@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("family", sorted(GRIDS))
def test_hundreds_of_mutated_configs_of_each_family(family: str, victims: Callable[[str], Path]) -> None:
    assert 0 < fuzz_configs(victims(family), family, 400) < 400


def written(folder: Path) -> None:
    """What a checkpoint asks of generation is read, told, and done for two tokens."""
    lm = clearhead.load(folder)
    assert all("\n" not in note for note in lm.report.notes)
    settings = settled(lm.settings, {"max_new_tokens": 2, "min_length": None, "min_new_tokens": None})
    generate_ids(lm.model, torch.tensor([[3, 4, 5]]), settings)


def fuzz_generation(folder: Path, family: str, count: int) -> int:
    path = folder / "generation_config.json"
    original = path.read_text()
    keys = json.loads(original)
    known = [*READ, *SAMPLING, *NOT_RUN]
    done = 0
    try:
        for seed in range(count):
            draw = random.Random(f"{family} {seed}")
            changed = mutated(keys, known, draw)
            path.write_text(json.dumps(changed))
            done += attempt(folder, lambda: f"{family}, seed {seed}: {str(changed)[:1500]}", written)  # noqa: B023
    finally:
        path.write_text(original)
    return done


WRITE = [family for family, grid in sorted(GRIDS.items()) if {"lm", "seq2seq"} & set(grid.classes)]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("family", WRITE)
def test_a_few_mutated_wishes_for_generation(family: str, victims: Callable[[str], Path]) -> None:
    assert fuzz_generation(victims(family), family, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("family", WRITE)
def test_hundreds_of_mutated_wishes_for_generation(family: str, victims: Callable[[str], Path]) -> None:
    assert 0 < fuzz_generation(victims(family), family, 300) < 300


# ── headers and files ────────────────────────────────────────────────────────────────────────────────────────────────


def flipped(data: bytes, draw: random.Random, within: int) -> bytes:
    """A few bytes changed near the beginning, or a piece taken out, doubled or cut off."""
    changed = bytearray(data)
    kind = draw.random()
    at = draw.randrange(min(within, len(changed)))
    if kind < 0.7:
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(min(within, len(changed)))] = draw.choice(
                (0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256))
            )
    elif kind < 0.8:
        del changed[at : at + draw.randint(1, 40)]
    elif kind < 0.9:
        changed[at:at] = changed[at : at + draw.randint(1, 40)]
    else:
        del changed[at:]
    return bytes(changed)


def relabelled(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file with another header."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = sorted(set(header) - {"__metadata__"})
    for _ in range(draw.randint(1, 2)):
        name = draw.choice(names)
        field = draw.choice(("dtype", "shape", "data_offsets", "name", "gone", "more"))
        if name not in header or not isinstance(header[name], dict):
            continue
        if field == "name":
            header[draw.choice((draw.choice(names), "x", "", "model.x", "\ud800"))] = header.pop(name)
        elif field == "gone":
            header.pop(name)
        elif field == "more":
            header[name][draw.choice(("code", "x"))] = draw.choice(VALUES)
        elif field == "dtype":
            header[name]["dtype"] = draw.choice(("F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "C64", *OTHERS))
        else:
            whole = draw.choice(([0], [0, 0], [2**62, 2**62], [0, 2**62], [1] * 20, [2**40, 0, 2**40]))
            header[name][field] = draw.choice((whole, *VALUES))
    text = json.dumps(header).encode()
    return support.raw(text, data[8 + length :])


def fuzz_weights(folder: Path, family: str, count: int) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    within = 16 + int.from_bytes(data[:8], "little")
    try:
        for seed in range(count):
            draw = random.Random(f"{family} {seed}")
            path.write_bytes(relabelled(data, draw) if draw.random() < 0.6 else flipped(data, draw, within))
            attempt(folder, lambda: f"{family}, weights, seed {seed}")  # noqa: B023
    finally:
        path.write_bytes(data)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("family", sorted(GRIDS))
def test_a_few_mutated_configs_and_safetensors(family: str, victims: Callable[[str], Path]) -> None:
    fuzz_configs(victims(family), family, 8)
    fuzz_weights(victims(family), family, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("family", sorted(GRIDS))
def test_hundreds_of_mutated_safetensors_of_each_family(family: str, victims: Callable[[str], Path]) -> None:
    fuzz_weights(victims(family), family, 300)


FORMATS = ("gguf", "half gguf", "llama2c 0", "llama2c 1", "llama2c 2", "bin", "old bin", "params", "index", "tokens")


def make(kind: str, root: Path) -> tuple[Path, Path, dict[str, Any]]:
    """What is loaded, which file of it is mutated, and with which options."""
    source = support.checkpoint(root / "model")
    match kind.split():
        case ["gguf"]:
            path = writers.write_gguf(source, root / "a.gguf", "llama")
            return path, path, {}
        case ["half", "gguf"]:
            path = writers.write_gguf(source, root / "a.gguf", "llama", kinds={"blk.0.attn_v.weight": "F16"})
            return path, path, {}
        case ["llama2c", version]:
            path = writers.write_llama2c(source, root / "a.bin", version=int(version))
            return path, path, {}
        case ["bin"] | ["old", "bin"]:
            folder = writers.write_bin(source, root / "bin", old=kind == "old bin")
            return folder, folder / "pytorch_model.bin", {"pickle": True}
        case ["params"]:
            folder = writers.write_meta(source, root / "meta", slices=2)
            return folder, folder / "params.json", {"pickle": True}
        case ["index"]:
            from clearhead.checkpoint import export

            folder = export(support.tiny_model(), root / "shards", max_shard_size=3000)
            return folder, folder / "model.safetensors.index.json", {}
    path = writers.write_llama2c(source, root / "a.bin")
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)] + [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
    return path, writers.write_vocabulary([*pieces, ("▁a", -1.0)], root / "tok30.bin"), {}


def fuzz_format(kind: str, root: Path, count: int) -> None:
    path, file, options = make(kind, root)
    data = file.read_bytes()
    within = min(len(data), 300 if kind.startswith("llama2c") else 4000)
    for seed in range(count):
        draw = random.Random(f"{kind} {seed}")
        file.write_bytes(flipped(data, draw, within))
        attempt(path, lambda: f"{kind}, seed {seed}", **options)  # noqa: B023


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_files_of_other_formats(kind: str, tmp_path: Path) -> None:
    fuzz_format(kind, tmp_path, 12)


@pytest.mark.slow
@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("kind", FORMATS)
def test_thousands_of_mutated_files_of_other_formats(kind: str, tmp_path: Path) -> None:
    fuzz_format(kind, tmp_path, 1500)
