"""Files over http and https: their size, and their bytes, resumed where a try before this one ended."""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from itertools import chain
from typing import IO, Any, TypeVar, cast
from urllib.parse import urlsplit

from mmsa.data.prepare import Progress
from mmsa.errors import printable
from mmsa.readers.mistaken import HDF5_START

TIMEOUT = 20.0
"""Seconds without an answer, or without another byte, after which a connection is given up."""
PAUSES = (2.0, 8.0)
"""Seconds before the second try and before the third, which is the last."""
SCHEMES = ("http", "https")

_CHUNK = 1 << 18
_Answer = TypeVar("_Answer")


class Fault(Exception):
    """Why a file did not come; `passing` where another try may help, `host` where nobody answers there."""

    def __init__(self, reason: str, passing: bool = False, host: str | None = None) -> None:
        super().__init__(reason)
        self.passing = passing
        self.host = host


@dataclass
class Remote:
    """A file to fetch: bytes and time of its last change as the server states them, and why it did not come."""

    name: str
    address: str
    size: int | None = None
    modified: float = 0.0
    fault: str | None = None


def several_tries(action: Callable[[], _Answer]) -> _Answer:
    """What an action returns; after a passing fault it is tried again, three times in all.

    Raises:
        Fault: of the last try.
    """
    for pause in PAUSES:
        try:
            return action()
        except Fault as fault:
            if not fault.passing:
                raise
        time.sleep(pause)
    return action()


def head(address: str) -> tuple[int, float]:
    """Bytes of a file, and when it was last changed (seconds since 1970; 0.0 where the server does not state it).

    Raises:
        Fault: the server does not answer, answers an error, or does not state the size.
    """
    with _ask(address, "HEAD") as answer:
        stated = answer.headers.get("Content-Length", "")
        modified = answer.headers.get("Last-Modified")
    if not re.fullmatch(r"[0-9]{1,15}", stated):
        raise Fault("the server does not state its size")
    try:
        return int(stated), parsedate_to_datetime(modified).timestamp() if modified else 0.0
    except (ValueError, OverflowError):  # no date
        return int(stated), 0.0


def go_on(file: Remote, output: IO[bytes], bar: Progress) -> None:
    """Fetch the rest of a partial file; a server without that ability sends all of it.

    Args:
        file: its size is known.
        output: the partial file, opened to append; it is emptied where it is older than the server's file.
        bar: shown per 256 KiB.

    Raises:
        Fault: less comes than the size, or more, or something else; what came of the file stays.
    """
    size = cast(int, file.size)
    state = os.fstat(output.fileno())
    start = state.st_size if state.st_size <= size and state.st_mtime >= file.modified else 0
    if start == size:
        return
    with _ask(file.address, "GET", start) as answer:
        stated = answer.headers.get("Content-Range", "").strip()
        if answer.status == 206 and not re.fullmatch(rf"bytes {start}-\d+/({size}|\*)", stated):
            raise Fault("sends another part than it was asked for")
        start = start if answer.status == 206 else 0
        chunks = _chunks(answer, file.address)
        first = next(chunks, b"")
        if start == 0 and not HDF5_START.startswith(first[: len(HDF5_START)]):
            kind = printable(answer.headers.get("Content-Type", "unknown type"))[:60]
            raise Fault(f"it is not an HDF5 file ({kind})")
        if start == 0 and first:  # only now: an error page must not cost the bytes fetched before
            output.truncate(0)
        came = start
        try:
            for chunk in bar(chain([first], chunks), f"fetching {file.name}", -(-(size - start) // _CHUNK)):
                came += len(chunk)
                if came > size:
                    raise Fault(f"the server sent more than the {size} bytes stated")
                output.write(chunk)
        finally:
            output.flush()  # the next try looks how much is there
    if came < size:
        raise Fault(f"the connection ended after {came} of {size} bytes", passing=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, never from https back to http, with the method that was asked for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in SCHEMES or (req.type == "https" and scheme != "https"):
            raise urllib.error.HTTPError(req.full_url, code, f"redirects to {newurl}, refused", headers, fp)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.method = req.get_method()
        return request


def _ask(address: str, method: str, start: int = 0) -> Any:
    """The answer to a request; only http and https are spoken, and certificates are verified."""
    headers = {"User-Agent": "mmsa", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        request = urllib.request.Request(address, method=method, headers=headers)
        if request.type not in SCHEMES:
            raise ValueError(f"unknown url type: {request.type}")
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        passing = error.code >= 500 or error.code in (408, 429)
        raise Fault(f"HTTP {error.code} {printable(str(error.reason))[:200]}", passing) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> Fault:
    host = urlsplit(address).hostname
    reason = printable(" ".join(str(getattr(error, "reason", error)).split()))[:120]
    return Fault(f"{host} cannot be reached ({reason or type(error).__name__})", passing=True, host=host)


def _chunks(answer: Any, address: str) -> Iterator[bytes]:
    """The body in pieces; only here is an OSError the network's, and not the disk's."""
    while True:
        try:
            chunk = answer.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise _unreachable(address, error) from error
        if not chunk:
            return
        yield chunk
