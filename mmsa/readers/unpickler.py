"""The standard library's unpickler, in its Python form, without what a hostile file could use.

Only the instructions listed here are followed. None imports anything, calls anything but what a reader admits by name,
or looks anything up on an object, and every container is paid for from a budget that grows with the file's size.
"""

from __future__ import annotations

import codecs
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from mmsa.errors import printable

_FLOOR = 1 << 26
_FACTOR = 32
_ROOM_TO_COUNT = 1 << 16
_CONTAINER, _SET, _ENTRY = 200, 400, 100  # bytes of memory, about, with those of a second look
_KEYS = frozenset({type(None), str, bytes, bool, int, float})
_LONGEST_KEY = 1 << 16
_INT64 = range(-(1 << 63), 1 << 64)
_NOTHING = object()
# Python 2's repr writes no other escape; the decoder would warn of them.
_FOREIGN_ESCAPE = re.compile(rb"\\(?![nrt'\"]|x[0-9a-f]{2})")


class RefusedError(Exception):
    """The file names an object, or asks for an instruction, that is not admitted."""


class Name(NamedTuple):
    """An admitted name on the stack: no object that can be called, only what `makers` look up."""

    module: str
    name: str


class Unpickler(pickle._Unpickler):
    """Builds the object of one pickle.

    Args:
        file: its `read` and `readline` allocate no more than the file has, as a map's or BytesIO's.
        size: bytes of the whole file.
    """

    makers: ClassVar[Mapping[Name, Callable[..., object] | None]] = {}
    """Per admitted name what it makes of its arguments; None where the name may only be mentioned."""
    stack: list[Any]
    append: Callable[[object], None]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(self, file: Any, size: int) -> None:
        super().__init__(file, encoding="latin1")  # Python 2's strings, as the field's own loaders take them
        self._size = size
        self._objects = self.room = _FLOOR + _FACTOR * size
        """Bytes that the content may fill in all when every mention of an object counts."""
        self._arrays = _FLOOR + size
        self.most = max(_ROOM_TO_COUNT, size)
        """The largest number of elements that an array may state."""
        self.memo = _Memo(self.most)

    def load(self) -> object:
        """The object that the instructions leave.

        Raises:
            RefusedError: something that is not data is named or asked for.
            UnpicklingError, EOFError, ArithmeticError, LookupError, TypeError, ValueError: the file is damaged.
        """
        try:
            return super().load()
        except (EOFError, struct.error) as error:
            raise EOFError("it ends too early") from error
        except (AttributeError, IndexError) as error:
            raise pickle.UnpicklingError("an instruction does not find the object that it is for") from error

    def pay(self, objects: int = 0, array_bytes: int = 0) -> None:
        """Take memory from the budget."""
        self._objects -= objects
        self._arrays -= array_bytes
        if self._objects < 0 or self._arrays < 0:
            raise pickle.UnpicklingError(f"its content would need far more memory than its {self._size} bytes hold")

    def mapping(self, entries: list[Any], into: dict[Any, Any]) -> dict[Any, Any]:
        """Add keys and values in turn."""
        if len(entries) % 2 or type(into) is not dict:
            raise pickle.UnpicklingError("a key has no value or no dict")
        self.pay(_ENTRY * (len(entries) // 2))
        into.update(zip(map(_key, entries[::2]), entries[1::2], strict=True))
        return into

    def elements(self, entries: list[Any], into: set[Any]) -> set[Any]:
        """Add elements to a set."""
        if type(into) is not set:
            raise pickle.UnpicklingError("an element has no set")
        self.pay(_ENTRY * len(entries))
        into.update(map(_key, entries))
        return into

    def find_class(self, module: str, name: str) -> Name:
        """An admitted name, which stands for what it names."""
        found = Name(module, name)
        if found not in self.makers:
            raise RefusedError(printable(f"{module[:80]}.{name[:80]}"))
        return found

    def persistent_load(self, pid: object) -> object:
        """An object outside the pickle, by its description."""
        raise RefusedError("the instruction BINPERSID")

    def give_state(self, state: object, target: object) -> None:
        """Complete an object."""
        raise pickle.UnpicklingError("a state is set on an object without one")

    def pop_mark(self) -> list[Any]:
        """The objects after the last mark, which goes with them."""
        values: list[Any] = super().pop_mark()  # type: ignore[misc]
        self._objects += _CONTAINER
        return values

    def push(self, value: object) -> None:
        """Put an object on the stack as it is by then, for what made the object may have gone back over a mark."""
        self.append(value)

    def reduce(self, arguments: object, name: object) -> object:
        """The object that an admitted name makes of its arguments."""
        maker = self.makers.get(name) if isinstance(name, Name) else None
        if maker is None or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("a name that is not admitted is called")
        return maker(self, *arguments)


class _Memo(list[Any]):
    """Objects by their numbers, `most` the largest: a list, since an entry of a dict takes twelve times the memory."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, index: Any, value: object) -> None:
        if index > self._most:
            raise pickle.UnpicklingError(f"a file with {index} objects would be larger")
        self.extend([_NOTHING] * (index + 1 - len(self)))
        super().__setitem__(index, value)

    def __getitem__(self, index: Any) -> Any:
        if index < 0 or super().__getitem__(index) is _NOTHING:
            raise IndexError(index)
        return super().__getitem__(index)


def _key(value: object) -> object:
    """A key or set element: of such a kind that no number of them collides, recurses or is long to compare."""
    if type(value) not in _KEYS:
        raise pickle.UnpicklingError(f"a key of type {type(value).__name__} is not admitted")
    if isinstance(value, str | bytes) and len(value) > _LONGEST_KEY:
        raise pickle.UnpicklingError(f"a key of {len(value)} characters is not admitted")
    return value


def _whole(number: int) -> int:
    if number in _INT64:
        return number
    raise pickle.UnpicklingError("a whole number of more than 64 bits is not admitted")


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _escaped(line: bytes) -> str:
    text = line.decode("raw-unicode-escape", errors="replace")
    # Two halves of a character make one; a half by itself is no text.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")


def _quoted(text: bytes) -> str:
    """The string of a Python 2 repr."""
    quote, inner = text[:1], text[1:-1]
    if len(text) < 2 or quote != text[-1:] or quote not in b"'\"" or _FOREIGN_ESCAPE.search(inner.replace(rb"\\", b"")):
        raise pickle.UnpicklingError("a string that Python 2 would not write is not admitted")
    return codecs.escape_decode(inner)[0].decode("latin1")


_Load = Callable[[Any], object]
_CODES = {instruction.name: ord(instruction.code) for instruction in pickletools.opcodes}


class _Instructions(dict[int, _Load]):
    """The action per instruction; the others are refused by their names."""

    def __missing__(self, code: int) -> _Load:
        for name, known in _CODES.items():
            if code == known:
                raise RefusedError(f"the instruction {name}")
        raise pickle.UnpicklingError(f"0x{code:02x} is no instruction")


def _standard(names: str) -> dict[str, _Load]:
    """The standard library's actions, by the names of the instructions."""
    return {name: pickle._Unpickler.dispatch[_CODES[name]] for name in names.split()}


def _paid(load: _Load, cost: int = _CONTAINER) -> _Load:
    """The same after its memory has been paid."""
    return lambda unpickler: (unpickler.pay(cost), load(unpickler))


def _changed(load: _Load, change: Callable[[Any], object]) -> _Load:
    """The same with another object made of the one that it puts on the stack."""

    def operation(unpickler: Unpickler) -> None:
        load(unpickler)
        unpickler.stack[-1] = change(unpickler.stack[-1])

    return operation


_BYTES = _standard("BINBYTES SHORT_BINBYTES BINBYTES8")
_CONTAINERS = _standard("MARK LIST TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST EMPTY_DICT")
_LOADS: dict[str, _Load] = {
    # These set nothing aside by a number of the file, and cost no more than their own bytes.
    **_standard("PROTO STOP POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 FLOAT BINFLOAT"),
    **_standard("BINSTRING SHORT_BINSTRING EMPTY_TUPLE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET"),
    **_BYTES,
    **_standard("APPEND APPENDS"),  # of all that is made here, lists alone have `append` and `extend`
    **_standard("GLOBAL STACK_GLOBAL BINPERSID"),  # they call what stands above
    **{name: _changed(load, _whole) for name, load in _standard("INT LONG LONG1 LONG4").items()},
    **{name: _paid(load) for name, load in _CONTAINERS.items()},
    "BYTEARRAY8": _BYTES["BINBYTES8"],  # bytes will do, for which nothing is set aside
    "BINUNICODE": _changed(_BYTES["BINBYTES"], _text),
    "SHORT_BINUNICODE": _changed(_BYTES["SHORT_BINBYTES"], _text),
    "BINUNICODE8": _changed(_BYTES["BINBYTES8"], _text),
    "UNICODE": lambda u: u.push(_escaped(u.readline()[:-1])),
    "STRING": lambda u: u.push(_quoted(u.readline().strip())),
    "FRAME": lambda u: u.read(8),  # its length, of which no use is made
    "DICT": _paid(lambda u: u.push(u.mapping(u.pop_mark(), {}))),
    "SETITEM": lambda u: u.mapping([u.stack.pop(-2), u.stack.pop()], u.stack[-1]),
    "SETITEMS": lambda u: u.mapping(u.pop_mark(), u.stack[-1]),
    "EMPTY_SET": _paid(lambda u: u.push(set()), _SET),
    "FROZENSET": _paid(lambda u: u.push(u.elements(u.pop_mark(), set())), _SET),
    "ADDITEMS": lambda u: u.elements(u.pop_mark(), u.stack[-1]),
    "MEMOIZE": lambda u: u.memo.append(u.stack[-1]),
    "REDUCE": _paid(lambda u: u.push(u.reduce(u.stack.pop(), u.stack.pop()))),
    "BUILD": lambda u: u.give_state(u.stack.pop(), u.stack[-1]),
}
Unpickler.dispatch = _Instructions((_CODES[name], load) for name, load in _LOADS.items())  # type: ignore[assignment]
