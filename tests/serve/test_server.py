"""The server as it is started: the port, what it prints, how it ends."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request

import pytest

from clearhead.errors import ClearheadError, InputError, MissingDependencyError, ServeError
from clearhead.serve import server
from clearhead.serve.explorer import Explorer
from tests.serve.running import running
from tests.serve.stub import load


def test_a_port_in_use_names_a_free_one() -> None:
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=rf"^port {port} of 127.0.0.1 is in use; port \d+ is free\.$") as told:
            server.serve("no-such-model", port=port)  # told before any model is looked for
        free = int(re.findall(r"\d+", str(told.value))[-1])
        assert free != port
        server.listen("127.0.0.1", free).close()


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 65536, "port 65536 is none"),
        ("127.0.0.1", -1, "port -1 is none"),
        ("no.such.host.invalid", 8000, "is no address of this machine"),
        ("a..b", 8000, "is no address of this machine"),
        ("192.0.2.1", 8000, "is no address of this machine"),
    ],
)
def test_a_place_that_cannot_be_served(host: str, port: int, words: str) -> None:
    with pytest.raises(ServeError, match=words) as told:
        server.listen(host, port)
    assert "\n" not in str(told.value)


def test_a_socket_is_free_again_after_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearhead.serve.explorer._from_checkpoint", load)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for text, kind in (("", InputError), ("word " * 500, ClearheadError)):
        with pytest.raises(kind):
            server.serve("encoder", text=text, port=port, open_browser=False)
    server.listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9/"),
        ("0.0.0.0", "http://127.0.0.1:9/"),
        ("::", "http://[::1]:9/"),
        ("::1", "http://[::1]:9/"),
        ("box.lan", "http://box.lan:9/"),
    ],
)
def test_the_address_can_be_opened(host: str, url: str) -> None:
    assert server.address(host, 9) == url


def test_what_is_printed_says_how_the_numbers_come_about() -> None:
    kept = Explorer(load, "encoder", ()).first_look("a text")
    line = "encoder: 2 × 3 heads (encoder); float32 on cpu; kernel: fused flash attention (CPU)"
    assert server.describe(kept) == line


def test_without_a_screen_no_browser_is_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("a browser was opened"))
    server._open("http://127.0.0.1:9/")
    assert "open that address" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_library_is_named_with_its_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'clearhead[explore]'")):
        server.serve("encoder")


def test_importing_the_room_imports_nothing_heavy() -> None:
    code = "import sys, clearhead.serve; sys.exit(any(m in sys.modules for m in ('starlette', 'uvicorn', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_serves_until_ctrl_c_and_ends_cleanly() -> None:
    with running("encoder") as explorer:
        assert explorer.lines[0].startswith("encoder: 2 × 3 heads")
        with urllib.request.urlopen(explorer.url, timeout=20) as page:
            assert page.status == 200 and "server" not in {name.lower() for name in page.headers}
        with urllib.request.urlopen(f"{explorer.url}api/models", timeout=20) as answer:
            assert json.load(answer)["loaded"] == ["encoder"]  # the first look was had before
        assert explorer.interrupt() == 0
        assert explorer.lines[-1] == "The explorer is closed."
        assert not any("Traceback" in line or "Error" in line for line in explorer.lines), explorer.lines


def test_pickles_are_read_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(
        "clearhead.serve.explorer._from_checkpoint", lambda name, **more: (asked.append(more), load(name))[1]
    )
    Explorer(None, "encoder", ()).first_look("a text")
    Explorer(None, "encoder", (), pickle=True).first_look("a text")
    assert asked == [{}, {"pickle": True}]
