"""GGUF: every architecture against the same model's safetensors, packed numbers, tokenizers, and headers that lie."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gguf")
pytest.importorskip("transformers")

import gguf

from clearhead.checkpoint import Pretrained, export, load
from clearhead.checkpoint.formats.gguf_rows import ARCHITECTURES
from clearhead.checkpoint.places import spelled_out
from clearhead.errors import (
    CheckpointError,
    MissingDependencyError,
    TokenizerError,
    UnknownFamilyError,
    UnknownKeyError,
)
from clearhead.model.config import Llama3Scaling, LongRopeScaling, Rotary
from clearhead.text.tokenizer import Tokenizer
from tests.checkpoint import support, writers
from tests.parity import support as parity
from tests.parity.grids import grids

GRIDS = grids()
DERIVED: dict[str, Any] = {"layer_types": ..., "use_sliding_window": False, "max_window_layers": ...}
SAID: dict[str, dict[str, Any]] = {
    "qwen2": DERIVED,
    "qwen3": DERIVED,
    "smollm3": {**DERIVED, "num_hidden_layers": 4, "no_rope_layers": ..., "no_rope_layer_interval": 4},
    "gemma3": {"layer_types": ..., "num_hidden_layers": 6, "sliding_window": 3},
    "phi2": {"qk_layernorm": False},
    "stablelm": {"qk_layernorm": False},
}
"""What GGUF has no key for, and llama.cpp fixes; ... leaves a key to its default."""


def source(arch: str, folder: Path, **more: Any) -> Path:
    """A tiny model of transformers, as it saves it. Sizes are multiples of 32, so that blocks fit."""
    grid = GRIDS[ARCHITECTURES[arch].family]
    keys = grid.small().to_dict()
    sizes = {"hidden_size": 32, "n_embd": 32, "intermediate_size": 64, "n_inner": 64, "head_dim": 8}
    keys |= {key: value for key, value in sizes.items() if key in keys} | SAID.get(arch, {}) | more
    if "query_pre_attn_scalar" in keys:
        keys["query_pre_attn_scalar"] = keys["head_dim"]
    config = type(grid.small())(**{key: value for key, value in keys.items() if value is not ...})
    kind = grid.writes or next(iter(grid.classes))
    parity.tiny(grid.classes[kind], config).save_pretrained(folder)
    return folder


def same(one: Pretrained, other: Pretrained, tolerance: float = 0.0) -> None:
    first, second = one.model.state_dict(), other.model.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert float((tensor - second[name]).abs().max()) <= tolerance, name
    said, again = spelled_out(one.config), spelled_out(other.config)
    assert said.decoder is not None and again.decoder is not None
    for choice in ("position", "norm", "n_layers", "residual", "norm_place", "feedforward", "attention"):
        assert undropped(getattr(said.decoder, choice)) == undropped(getattr(again.decoder, choice)), choice
    assert said.head == again.head and said.embedding.scale == again.embedding.scale


def undropped(choice: Any) -> Any:
    """Without dropout and the last digits of float32, which GGUF's numbers are."""
    from dataclasses import fields, is_dataclass

    if is_dataclass(choice):
        return {f.name: undropped(getattr(choice, f.name)) for f in fields(choice) if f.name != "dropout"}
    if isinstance(choice, tuple):
        return tuple(map(undropped, choice))
    return torch.tensor(choice, dtype=torch.float32).item() if isinstance(choice, float) else choice


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_an_architecture_is_the_same_model(arch: str, tmp_path: Path) -> None:
    if ARCHITECTURES[arch].family not in GRIDS:
        pytest.skip(f"the family {ARCHITECTURES[arch].family} is not here")
    folder = source(arch, tmp_path / "model")
    path = writers.write_gguf(folder, tmp_path / "model.gguf", arch)
    loaded, known = load(path), load(folder)
    same(loaded, known, 1e-7 if arch.startswith("gemma") else 0.0)
    assert {account.fate for account in loaded.report.keys} <= {"read", "ignored"}
    assert "general.architecture" in {account.name for account in loaded.report.keys}
    ids = torch.randint(1, known.config.vocab_size, (2, 8))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, known.model(ids).logits, atol=1e-5, rtol=1e-5)
    same(load(export(loaded, tmp_path / "out")), loaded)


@pytest.mark.parametrize(("arch", "width"), [("llama", 8), ("qwen2", 8), ("qwen3", 128), ("gemma2", 256)])
def test_transformers_reads_the_same_from_the_file(arch: str, width: int, tmp_path: Path) -> None:
    """An oracle of its own: transformers' GGUF reader, where it leaves no key of the architecture unread."""
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    if ARCHITECTURES[arch].family not in GRIDS:
        pytest.skip(f"the family {ARCHITECTURES[arch].family} is not here")
    folder = source(arch, tmp_path / "model", **({"head_dim": width} if width > 8 else {}))

    def about(writer: Any) -> None:
        writer.add_name("tiny")
        writer.add_vocab_size(json.loads((folder / "config.json").read_text())["vocab_size"])

    path = writers.write_gguf(folder, tmp_path / "model.gguf", arch, more=about)
    ours = load(path)
    config = transformers.AutoConfig.for_model(**load_gguf_checkpoint(path)["config"])
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=theirs)["tensors"]
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()
    ids = torch.randint(1, ours.config.vocab_size, (2, 8))
    with torch.no_grad():
        parity.close(ours.model(ids).logits, theirs(ids).logits, arch)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return source("llama", tmp_path / "model")


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_packed_numbers_are_unpacked(kind: str, llama: Path, tmp_path: Path) -> None:
    names = ("token_embd.weight", "blk.0.attn_v.weight", "blk.1.ffn_down.weight", "blk.0.attn_q.weight")
    path = writers.write_gguf(llama, tmp_path / "packed.gguf", "llama", kinds=dict.fromkeys(names, kind))
    loaded, known = load(path), load(llama)
    state, exact = loaded.model.state_dict(), known.model.state_dict()
    _, tensors = writers.read(llama)
    qtype = gguf.GGMLQuantizationType[kind]
    packed = gguf.dequantize(gguf.quantize(tensors["model.layers.1.mlp.down_proj.weight"].numpy(), qtype), qtype)
    name = "decoder.blocks.1.feedforward.down.weight"
    assert torch.equal(state[name], torch.from_numpy(packed)) and not torch.equal(state[name], exact[name])
    for name, tensor in exact.items():
        assert float((state[name] - tensor).abs().max()) <= 0.1 * float(tensor.abs().max()), name
    assert any(kind in note for note in loaded.report.notes) is (kind not in ("F16", "BF16"))
    assert load(path, dtype="bfloat16").model.dtype == torch.bfloat16


def test_the_library_that_unpacks_is_named_where_it_is_absent(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = writers.write_gguf(llama, tmp_path / "plain.gguf", "llama")
    packed = writers.write_gguf(llama, tmp_path / "packed.gguf", "llama", kinds={"blk.0.attn_v.weight": "Q8_0"})
    monkeypatch.setitem(sys.modules, "gguf", None)
    load(plain)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clearhead\[gguf\]'"):
        load(packed)


def test_stretched_positions_are_had_back(llama: Path, tmp_path: Path) -> None:
    """Llama 3.1's scaling is a list of factors in the file; others are kept as they are."""
    import numpy as np

    from clearhead.model.positions import rotary_frequencies

    wanted = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)
    theta = 500_000.0
    support.change_config(llama, rope_parameters={"rope_type": "default", "rope_theta": theta})
    plain, _ = rotary_frequencies(Rotary(theta=theta), 8, 9)
    scaled, _ = rotary_frequencies(Rotary(theta=theta, scaling=wanted), 8, 9)
    factors = (plain / scaled).numpy().astype(np.float32)
    path = writers.write_gguf(
        llama, tmp_path / "a.gguf", "llama", more=lambda writer: writer.add_tensor("rope_freqs.weight", factors)
    )
    position = load(path).config.decoder.position  # type: ignore[union-attr]
    assert isinstance(position, Rotary) and position.scaling == wanted
    factors = np.array([1.0, 2.0, 3.0, 5.0], dtype=np.float32)
    path = writers.write_gguf(
        llama, tmp_path / "b.gguf", "llama", more=lambda writer: writer.add_tensor("rope_freqs.weight", factors)
    )
    position = load(path).config.decoder.position  # type: ignore[union-attr]
    assert isinstance(position, Rotary) and isinstance(position.scaling, LongRopeScaling)
    assert torch.allclose(rotary_frequencies(position, 8, 9)[0], plain / torch.from_numpy(factors))


def test_a_folder_of_one_gguf_is_that_file(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    path = writers.write_gguf(llama, tmp_path / "only" / "a.gguf", "llama")
    same(load(tmp_path / "only"), load(path))
    writers.write_gguf(llama, tmp_path / "only" / "b.gguf", "llama")
    with pytest.raises(CheckpointError, match=r"2 GGUF files; name one of them, such as .*a\.gguf"):
        load(tmp_path / "only")


def test_an_unknown_architecture_or_key_is_refused_by_name(llama: Path, tmp_path: Path) -> None:
    path = writers.write_gguf(
        llama, tmp_path / "a.gguf", "llama", more=lambda writer: writer.add_uint32("llama.expert_count", 8)
    )
    with pytest.raises(UnknownKeyError, match=r"llama\.expert_count=8"):
        load(path)
    path = writers.write_gguf(
        llama, tmp_path / "b.gguf", "llama", more=lambda writer: writer.add_string("somebody.note", "hello")
    )
    assert {account.name: account.fate for account in load(path).report.keys}["somebody.note"] == "ignored"

    def odd(writer: Any) -> None:
        import numpy as np

        writer.add_tensor("blk.0.odd.weight", np.ones(4, dtype=np.float32))

    with pytest.raises(UnknownKeyError, match=r"blk\.0\.odd\.weight"):
        load(writers.write_gguf(llama, tmp_path / "c.gguf", "llama", more=odd))
    writer = gguf.GGUFWriter(tmp_path / "d.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UnknownFamilyError, match="'mamba' has no row here; we read gemma"):
        load(tmp_path / "d.gguf")


# ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────────

TEXTS = ("Once upon a time, there was", "It's 2024!\n\nHow  are you?", "café 中 🙂", "", "  two  spaces", "<s> a")


def test_a_sentencepiece_vocabulary_is_read(llama: Path, tmp_path: Path, shared: Path) -> None:
    stories = shared / "models" / "stories260K-llama"
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentencepiece.SentencePieceProcessor(model_file=str(stories / "tokenizer.model"))
    count = model.get_piece_size()

    def tokens(writer: Any) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([model.id_to_piece(id) for id in range(count)])
        writer.add_token_scores([model.get_score(id) for id in range(count)])
        kinds = [6 if model.is_byte(id) else 3 if model.is_control(id) else 1 for id in range(count)]
        writer.add_token_types([2, *kinds[1:]])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_chat_template("{{ messages[0].content }}")

    known = load(stories)
    assert known.tokenizer is not None
    path = writers.write_gguf(stories, tmp_path / "stories.gguf", "llama", more=tokens)
    loaded = load(path)
    assert loaded.tokenizer is not None and loaded.config.tokens == known.config.tokens
    for text in TEXTS:
        ids = known.tokenizer.encode(text).ids
        assert loaded.tokenizer.encode(text).ids == ids, text
        assert loaded.tokenizer.decode(ids) == known.tokenizer.decode(ids)
    assert loaded.tokenizer.chat_template == "{{ messages[0].content }}"
    export(loaded, tmp_path / "out")
    again = load(tmp_path / "out").tokenizer
    assert again is not None and again.encode(TEXTS[0]).ids == known.tokenizer.encode(TEXTS[0]).ids


@pytest.mark.parametrize("pattern", ["gpt-2", "llama-bpe", "qwen2", "smollm"])
def test_a_byte_level_vocabulary_is_read(pattern: str, llama: Path, tmp_path: Path) -> None:
    trained = Tokenizer.train(
        ["Once upon a time there was a time", "It's 2024, it's 2025 now", "<|end|> of the time"],
        kind="byte-bpe",
        vocab_size=300,
    )
    vocabulary = json.loads(trained.backend.to_str())["model"]
    tokens = [*sorted(vocabulary["vocab"], key=vocabulary["vocab"].get), "<|end|>", "<|user|>"]

    def write(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pattern)
        writer.add_token_list(tokens)
        writer.add_token_types([1] * (len(tokens) - 2) + [3, 4])
        writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
        writer.add_eos_token_id(len(tokens) - 2)

    loaded = load(writers.write_gguf(llama, tmp_path / "a.gguf", "llama", more=write))
    assert loaded.tokenizer is not None and loaded.tokenizer.eos_id == len(tokens) - 2
    for text in TEXTS:
        assert loaded.tokenizer.decode(loaded.tokenizer.encode(text).ids) == text
    shown = loaded.tokenizer.encode("time<|end|> it's<|user|>2024", special=False)
    assert [one for one, special in zip(shown.tokens, shown.special, strict=True) if special] == ["<|end|>"]
    assert "<|user|>" in shown.tokens
    if pattern == "gpt-2":
        assert loaded.tokenizer.encode("Once upon a time").ids == trained.encode("Once upon a time").ids


def test_a_tokenizer_that_is_not_known_is_noted_and_a_damaged_one_refused(llama: Path, tmp_path: Path) -> None:
    def strange(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("viking")
        writer.add_token_list(["a", "b"])

    loaded = load(writers.write_gguf(llama, tmp_path / "a.gguf", "llama", more=strange))
    assert loaded.tokenizer is None and any("'viking'" in note for note in loaded.report.notes)

    def damaged(writer: Any) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["a", "a"])

    with pytest.raises(TokenizerError, match="stands twice"):
        load(writers.write_gguf(llama, tmp_path / "b.gguf", "llama", more=damaged))
