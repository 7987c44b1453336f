"""The hub's client brings its own HTTP client; ours must not ask for another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clearhead.checkpoint import hub, load
from clearhead.errors import CheckpointError, UnknownModelError, UnsafeFileError
from tests.checkpoint import support


def test_a_misspelt_name_is_one_line_without_the_libraries_of_the_tests() -> None:
    """In the environment that `make explore` builds there is no httpx, and an unknown name is still answered."""
    code = (
        "import sys\n"
        "sys.modules['httpx'] = sys.modules['transformers'] = None\n"
        "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "import clearhead\n"
        "try:\n    clearhead.load('nosuch')\n"
        "except clearhead.ClearheadError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "minilm, alice" in done.stdout and len(done.stdout.splitlines()) == 1


def test_one_file_of_a_model_offered_in_many_sizes_is_asked_for_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    asked: list[tuple[str, str, str | None]] = []
    (tmp_path / "a.Q4_0.gguf").write_bytes(b"GGUF")

    def hf_hub_download(repository: str, file: str, *, revision: str | None, etag_timeout: float) -> str:
        asked.append((repository, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    with pytest.raises(UnsafeFileError, match="no GGUF file"):
        load("who/what-GGUF/a.Q4_0.gguf", revision="v2")
    assert asked == [("who/what-GGUF", "a.Q4_0.gguf", "v2")]
    for name in ("who/what/../a.gguf", "who/what/deep/a.gguf", "what/a.bin/x"):
        with pytest.raises(UnknownModelError):
            load(name)


def test_pickles_are_asked_of_the_hub_only_with_the_flag_and_without_safetensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    asked: list[list[str]] = []
    folder = support.checkpoint(tmp_path / "model")

    def snapshot_download(name: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    load("who/what", pickle=True)
    assert asked == [hub.FILES]
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="--pickle"):
        load("who/what")
    assert asked == [hub.FILES, hub.FILES]
    with pytest.raises(CheckpointError, match="no weights"):
        load("who/what", pickle=True)
    assert asked[3:] == [hub.PICKLES]
