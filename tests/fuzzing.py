"""Damage to files, from a seed."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The same with one to four changes: bytes, a piece cut out, doubled, moved, replaced, or the end cut off."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start = int(rng.integers(0, len(changed)))
        length = int(rng.integers(1, 12))
        piece = bytes(changed[start : start + length])
        elsewhere = int(rng.integers(0, len(changed)))
        kind = rng.integers(0, 7)
        if kind == 0:
            changed[start] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[start] = int(rng.integers(0, 256))
        elif kind == 2:
            changed[start : start + length] = rng.bytes(length)
        elif kind == 3:
            del changed[start : start + length]
        elif kind == 4:
            changed[elsewhere:elsewhere] = piece
        elif kind == 5:
            changed[elsewhere : elsewhere + length] = piece
        elif rng.random() < 0.3:
            del changed[start:]
        if not changed:
            break
    return bytes(changed)


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The same, each time with another damage: one byte where it is not empty, or as of `mutated`."""
    rng = np.random.default_rng(seed)
    filled = np.flatnonzero(np.frombuffer(content, np.uint8))
    for i in range(count):
        changed = bytearray(content)
        changed[int(rng.choice(filled))] = int(rng.integers(0, 256))
        yield bytes(changed) if i % 2 else mutated(content, rng)


NAMES = [
    "../../x", "/tmp/absolute", "..", "", " ", "a\nb", "a\r\x1b[2Kb", "\x1b[31mred",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07",
    "\x1b]52;c;YQ==\x07", "\x9b31m", "\u202egnp.x", "\u2066a\u2069", "\x00", "<script>alert(1)</script>",
    "</td></table>", "\\input{/etc/passwd}", "$x^2$", "$$", "a|b", "| a |", "`id`", "```", "[x](javascript:1)",
    "![x](http://x/y)", "[x]: y", "=cmd()", "=1+1", "@SUM(1)", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C x'!A0", "\t=1",
    "${oc.env:HOME}", "${a}", "%s%n", "{0.__class__}", "*", "**/*", "?", "~", "_x_", ":warning:", "[bold]x[/bold]",
    "valid/mae", "mlflow.runName", "x" * 3000, "\ud7ff\uffff", "é" * 300, "1e999", "nan", "null", "true",
    "!!python/name:os.system", "&a", "*a", "<<",
]  # fmt: skip
"""Texts that a terminal, a page, a spreadsheet, a tracker or a path would take for more than a name."""


def odd_value(rng: np.random.Generator) -> Any:
    """A value, of those that JSON and YAML can write, that is not where it belongs."""
    deep: Any = 1
    for _ in range(int(rng.integers(1, 60))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    values: list[Any] = [
        *(None, True, False, -1, 0, 1, 2**31, 2**63, -(2**64), 10**399, 1e300, -1e300, 1e100, 0.5),
        *(
            math.nan,
            math.inf,
            -math.inf,
            [],
            {},
            [[]],
            [None],
            [1, "a"],
            {"a": None},
            {"": 1},
            deep,
            "text",
            "1",
            "0.5",
        ),
        *(list(NAMES[:5]), dict.fromkeys(NAMES[:9], 1.0), ["mae", "mae"], [0] * 500, {str(i): i for i in range(300)}),
    ]
    name = NAMES[int(rng.integers(0, len(NAMES)))]
    values += [name] * (len(values) // 2) + [[name], {name: 1.0}, {name: {name: name}}]
    return values[int(rng.integers(0, len(values)))]


def disarranged(content: Any, rng: np.random.Generator, odd: Callable[[np.random.Generator], Any] = odd_value) -> Any:
    """The same with one value, somewhere in it, replaced by an odd one, left out, renamed or doubled."""
    if isinstance(content, dict | list | tuple) and content and rng.random() < 0.9:
        changed = dict(content) if isinstance(content, dict) else list(content)
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        key, fate = keys[int(rng.integers(0, len(keys)))], rng.random()
        if fate < 0.8:
            changed[key] = disarranged(content[key], rng, odd)
        elif fate < 0.9:
            del changed[key]
        elif isinstance(changed, list):
            changed.append(changed[key])
        else:
            changed[NAMES[int(rng.integers(0, len(NAMES)))]] = changed.pop(key)
        return tuple(changed) if isinstance(content, tuple) else changed
    return odd(rng)


RAW = [
    "9" * 400,
    "9" * 5000,
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "0x" + "f" * 9000,
    "1" + ":59" * 3000,
    "0o" + "7" * 400,
]
RAW += ["[" * 100_000, "{'a':" * 50_000, "- " * 100_000, "? " * 50_000, "[" * 150 + "]" * 150, '"\\ud800"', '"\\u0000"']
RAW += [
    "!!timestamp x",
    "!!bool x",
    "!!float ''",
    "!!int ''",
    "2001-99-99",
    "!!set {a}",
    "!!binary x",
    "&a [*a]",
    "\x1b[31m",
]
RAW += ["2001-01-01 00:00:00 +99:99", ".inf", "{[a]: 1}", "{null: 1, 1: 2, 1.5: 3}", "!!omap [{a: 1}]", "!!pairs [a]"]
"""Values as a file of JSON or YAML may have them, and as nobody means them."""

WHOLE = [b"", b"[]", b'"text"', b"null", b"0", b"{}", b"\xff\xfe{\x00}\x00", b"\xe9", b"\x00" * 99, b"{" * 100_000]
WHOLE += [
    b"a:\n" + b"".join(b" " * i + b"a:\n" for i in range(1, 1300)),
    b"x" * (2**24 + 1),
    b"\xef\xbb\xbf{}",
    b"---\n---\n",
]
WHOLE += [b"a,a,a\n1,2,3\n", b"a\n1,2\n", b'"' * 99, b'"' + b"x" * 200_000, b"id,fold\n" + b"=cmd(),\x1b[31m\n" * 9]
"""Contents of a file that are of another kind."""
PLACES = ["folder", "pipe", "device", "link", "broken link", "missing", "unreadable"]


def spoil(path: Path, rng: np.random.Generator, load: Callable[[bytes], Any], dump: Callable[[Any], str]) -> None:
    """Damage a file of values: one of them, its text, its bytes, all of it, or what it is at all.

    Args:
        path: the file.
        rng: decides.
        load, dump: of its values.
    """
    whole, kind = path.read_bytes(), rng.random()
    if kind < 0.6:
        content = load(whole)
        for _ in range(int(rng.integers(1, 3))):
            content = disarranged(content, rng)
        path.write_text(dump(content), encoding="utf-8", errors="surrogatepass")
    elif kind < 0.75:
        values = list(re.finditer(rb"(?<=[:,\n] )[^\s,{}\[\]]+|(?<=,)[^,\n]+", whole)) or list(
            re.finditer(rb".+", whole)
        )
        place = values[int(rng.integers(0, len(values)))]
        raw = RAW[int(rng.integers(0, len(RAW)))].encode()
        path.write_bytes(whole[: place.start()] + raw + whole[place.end() :])
    elif kind < 0.9:
        path.write_bytes(mutated(whole, rng))
    elif kind < 0.96:
        path.write_bytes(WHOLE[int(rng.integers(0, len(WHOLE)))])
    else:
        path.unlink()
        what = PLACES[int(rng.integers(0, len(PLACES)))]
        if what == "folder":
            path.mkdir()
        elif what == "pipe":
            os.mkfifo(path)
        elif what in ("device", "link", "broken link"):
            path.symlink_to({"device": "/dev/zero", "link": "/etc/passwd", "broken link": "nowhere"}[what])
        elif what == "unreadable":
            path.write_bytes(whole)
            path.chmod(0)


class Watch:
    """What happened while it was on: processes, connections, and files that were written outside of a folder.

    Args:
        folder: in which a file may be written.
    """

    _on: ClassVar[Watch | None] = None
    _hooked: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = str(folder.resolve()), list[str]()

    def __enter__(self) -> Watch:
        if not Watch._hooked:
            sys.addaudithook(Watch._hook)
            Watch._hooked = True
        Watch._on = self
        return self

    def __exit__(self, *error: object) -> None:
        Watch._on = None

    @staticmethod
    def _hook(event: str, arguments: tuple[Any, ...]) -> None:
        if Watch._on is not None and (event in Watch._WRITES or event.startswith(Watch._ALARMING)):
            Watch._on._see(event, arguments)

    _WRITES = (
        "open",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
    )
    _OURS = re.compile(r"^subprocess.Popen \('git', |/matplotlib'")  # the state of our code, and the folder of fonts
    _ALARMING = (
        "subprocess.",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "socket.connect",
        "ctypes.dlopen",
        "pty.",
    )

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "ctypes.dlopen" and arguments == (None,):  # this program, whose C library keeps memory
            return
        if event in Watch._WRITES:
            flags = arguments[2] if event == "open" else os.O_WRONLY
            places = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or all(self._inside(place) for place in places):
                return
        said = f"{event} {str(arguments)[:200]}"
        if not Watch._OURS.search(said):
            self.seen.append(said)

    def _inside(self, place: Any) -> bool:
        named = isinstance(place, str | bytes | os.PathLike)
        return not named or os.path.realpath(os.fsdecode(place)).startswith((self.folder, "/dev/null"))
