"""A packed model on the Hugging Face hub: what a hub on this machine receives."""

from __future__ import annotations

import base64
import json
import shlex
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from mmsa import cli
from mmsa.errors import ConfigError, MmsaError
from tests.house.test_docs import commands
from tests.serving.test_page import PAGE
from tests.test_former import former

__all__ = ["former"]


class Hub(BaseHTTPRequestHandler):
    """Takes files into repositories, as the hub does with small ones; its server has what it got."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], body))  # type: ignore[attr-defined]
        if self.headers["Authorization"] != "Bearer hf_right":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path.endswith("/preupload/main"):
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer({"files": files})
        address = f"http://{self.headers['Host']}/me/reviews"
        return self.answer({"url": address, "name": "me/reviews", "commitUrl": f"{address}/commit/1", "commitOid": "1"})

    def do_GET(self) -> None:
        old = [{"type": "file", "path": f"model-seed-{n}.safetensors", "oid": "0", "size": 1} for n in (1, 2)]
        self.answer(old if "/tree/" in self.path else {"id": "me/reviews", "sha": "0", "siblings": []})

    def answer(self, content: Any, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *about: Any) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def committed(server: HTTPServer) -> tuple[dict[str, bytes], list[str]]:
    """The files that a commit brought, and those that it removed."""
    (body,) = [body for path, _, body in server.asked if path.endswith("/commit/main")]  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in body.splitlines()]
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }
    return files, [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]


def test_the_hub_gets_the_folder_with_its_licence_by_the_line_of_the_page(
    former: Path, hub: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(former)
    (former / "outputs" / "runs" / "whole").rename("outputs/runs/RUN")
    (line,) = [line for line in commands("mmsa", PAGE) if "--push" in line]
    cli.command(shlex.split(line.replace("USER/NAME", "me/reviews"))[1:])
    made = former / "shared"
    files, removed = committed(hub)
    assert files == {path.name: path.read_bytes() for path in made.iterdir()}
    assert removed == ["model-seed-1.safetensors", "model-seed-2.safetensors"], "of an ensemble that was there before"
    assert yaml.safe_load(files["README.md"].decode().split("---\n")[1])["license"] == "cc-by-4.0"
    assert b"license: other" not in files["README.md"]
    created = json.loads(hub.asked[0][2])  # type: ignore[attr-defined]
    assert created["name"] == "reviews" and (created.get("private") or created.get("visibility") == "private")
    assert f"pushed: http://127.0.0.1:{hub.server_port}/me/reviews" in capsys.readouterr().out


def test_what_cannot_be_pushed_is_refused_before_anything_is_packed(
    former: Path, hub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["pack", str(former / "outputs" / "runs" / "whole")]
    for words, match in (
        (["--push", "me/reviews"], r"--push needs the licence of the model.*\n  type --license mit"),
        (["--push", "me/reviews", "--license", "other"], "--push needs the licence"),
        (["--push", "reviews", "--license", "mit"], r"the name of a repository is required.\n  type --push USER/NAME"),
        (["--license", "MIT"], r"a name such as cc-by-4.0 is required.\n  type --license mit"),
    ):
        with pytest.raises(ConfigError, match=match):
            cli.command([*line, *words])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(
            ConfigError, match=r"needs the package huggingface_hub.\n  type pip install huggingface_hub"
        ):
            cli.command([*line, "--push", "me/reviews", "--license", "mit"])
    assert not hub.asked  # type: ignore[attr-defined]
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(MmsaError, match=r"the hub has not taken me/reviews: .*401.*\n  type hf auth login") as refused:
        cli.command([*line, "--push", "me/reviews", "--license", "mit"])
    assert "hf_wrong" not in str(refused.value)
    assert not list((former / "outputs" / "models").iterdir())
