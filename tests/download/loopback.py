"""A server on this machine that holds files, and the odd ways in which it may answer for one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

Answer = Callable[["Handler", bytes], None]


@dataclass
class Host:
    """A server: what it holds, how it answers for one file, and what it was asked and has sent."""

    address: str
    files: dict[str, bytes]
    odd: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)

    def asked(self, name: str, method: str = "GET") -> list[str | None]:
        """The Range header of every request for a file."""
        return [span for how, path, span in self.requests if how == method and path == name]


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET, with Range; the server's attribute `host` says what."""

    def do_GET(self) -> None:
        host: Host = self.server.host  # type: ignore[attr-defined]
        name = self.path.rpartition("/")[2]
        host.requests.append((self.command, name, self.headers.get("Range")))
        if name in host.odd:
            host.odd[name](self, host.files[name])
        elif name not in host.files:
            self.send_error(404)
        else:
            whole(self, host.files[name])

    do_HEAD = do_GET

    def answer(self, body: bytes, status: int = 200, length: int | None = None, /, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            sent = self.server.host.sent  # type: ignore[attr-defined]
            name = self.path.rpartition("/")[2]
            sent[name] = sent.get(name, 0) + len(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def whole(handler: Handler, content: bytes, **headers: str) -> None:
    span = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    if span is None:
        handler.answer(content, **headers)
        return
    start = int(span[1])
    rest = content[start:]
    handler.answer(rest, 206, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}", **headers)


def without_range(handler: Handler, content: bytes) -> None:
    handler.answer(content)


def truncated(handler: Handler, content: bytes) -> None:
    """Ends each time after half of what was asked for."""
    start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
    rest = content[start:]
    span = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
    handler.answer(rest[: len(rest) // 2], 206 if start else 200, len(rest), **span)


def page(handler: Handler, content: bytes) -> None:
    handler.answer(b"<!DOCTYPE html><p>Too many requests", Content_Type="text/html")


def page_of_its_size(handler: Handler, content: bytes) -> None:
    handler.answer(b"<html>".ljust(len(content)), Content_Type="text/html")


def too_short(handler: Handler, content: bytes) -> None:
    """States a length that is not the file's."""
    handler.answer(content[: len(content) // 2])


def no_length(handler: Handler, content: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()


def another_part(handler: Handler, content: bytes) -> None:
    handler.answer(content if handler.command == "HEAD" else content[5:], 206, Content_Range="bytes 5-9/10")


def longer_than_stated(handler: Handler, content: bytes) -> None:
    handler.answer(content if handler.command == "HEAD" else content + b"x" * 9)


def to_a_file(handler: Handler, content: bytes) -> None:
    handler.answer(b"", 302, Location="file:///etc/passwd")


def to_ftp(handler: Handler, content: bytes) -> None:
    handler.answer(b"", 302, Location="ftp://127.0.0.1/data.csd")


def busy(handler: Handler, content: bytes) -> None:
    handler.answer(b"", 503)
