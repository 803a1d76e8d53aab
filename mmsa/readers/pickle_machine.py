"""The machine that a pickle's instructions drive: a stack, a memo, and a budget of memory.

Python's own unpickler is not used, restricted or not: it sets aside memory for whatever number a file states, and
hashes keys of any depth on the C stack. Here nothing is imported, called or looked up on an object, and every container
is paid for from a budget that grows with the file's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pickle import UnpicklingError
from struct import Struct
from typing import Any, NamedTuple

from mmsa.errors import printable

_FLOOR = 1 << 26
_FACTOR = 32
_ROOM_TO_COUNT = 1 << 16
_CONTAINER, SET, _ENTRY = 200, 400, 100  # bytes of memory, about, with those of looking at it once more
_KEYS = frozenset({str, bytes, bool, float})
_INT64 = range(-(1 << 63), 1 << 64)


class RefusedError(Exception):
    """The file names an object, or asks for an instruction, that is not admitted."""


class Name(NamedTuple):
    """An admitted name on the stack: no object that can be called, only what `makers` look up."""

    module: str
    name: str


class Machine:
    """Builds the object of one pickle.

    Args:
        data: the file, as bytes or mapped.
        makers: per admitted name what it makes of its arguments; None where the name may only be mentioned.
        build: gives an object its state, or refuses.
        persistent: what an object that lies outside the pickle is, by its description; None refuses such objects.
        size: bytes of the whole file where the pickle is only a part of it.
    """

    def __init__(
        self,
        data: Any,
        makers: Mapping[Name, Callable[..., object] | None],
        build: Callable[[Machine, object, object], None],
        persistent: Callable[[object], object] | None = None,
        size: int | None = None,
    ) -> None:
        self._data = data
        self._size = len(data)
        self.persistent = persistent
        budget = self._size if size is None else size
        self._at = 0
        self._makers = makers
        self._build = build
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: list[Any] = []
        self._objects = self.room = _FLOOR + _FACTOR * budget
        """Bytes that the content may fill in all when every mention of an object counts."""
        self._arrays = _FLOOR + budget
        self.most = max(_ROOM_TO_COUNT, budget)
        """The largest number of elements that an array may state."""
        self.blank: dict[int, object] = {}
        """Arrays that wait for their state, by their identity."""

    @property
    def position(self) -> int:
        """Bytes that have been read."""
        return self._at

    def next_code(self) -> int:
        """The number of the next instruction."""
        at = self._at
        if at >= self._size:
            raise EOFError("it ends too early")
        self._at = at + 1
        code: int = self._data[at]
        return code

    def result(self) -> object:
        """The object that the instructions have left."""
        if self.blank:
            raise UnpicklingError("an array without its state is not admitted")
        return self.pop()

    def pay(self, objects: int = 0, array_bytes: int = 0) -> None:
        """Take memory from the budget."""
        self._objects -= objects
        self._arrays -= array_bytes
        if self._objects < 0 or self._arrays < 0:
            raise UnpicklingError(f"its content would need far more memory than its {self._size} bytes hold")

    def push(self, value: object) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack:
            raise UnpicklingError("an instruction finds no object")
        return self._stack.pop()

    def top(self, kind: type) -> Any:
        """The last object, which has to be of this kind."""
        if not self._stack or type(self._stack[-1]) is not kind:
            raise UnpicklingError(f"an instruction finds no {kind.__name__}")
        return self._stack[-1]

    def mark(self) -> None:
        self.pay(_CONTAINER)
        self._marked.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        """The objects after the last mark, which goes with them."""
        if not self._marked:
            raise UnpicklingError("an instruction finds no mark")
        values, self._stack = self._stack, self._marked.pop()
        self._objects += _CONTAINER
        return values

    def take(self, count: int) -> bytes:
        at = self._at
        if not 0 <= count <= self._size - at:
            raise EOFError("it ends too early")
        self._at = at + count
        taken: bytes = self._data[at : at + count]
        return taken

    def number(self, form: Struct) -> Any:
        (value,) = form.unpack(self.take(form.size))
        return value

    def line(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise EOFError("it ends too early")
        taken = self.take(end - self._at)
        self._at += 1
        return taken

    def keep(self, index: int) -> None:
        """Note the last object under this number."""
        if not self._stack or index < 0:
            raise UnpicklingError("an instruction finds no object")
        missing = index + 1 - len(self._memo)
        if missing > 0:
            self.pay(8 * missing)
            self._memo += [_NOTHING] * missing
        self._memo[index] = self._stack[-1]

    def keep_next(self) -> None:
        if not self._stack:
            raise UnpicklingError("an instruction finds no object")
        self._memo.append(self._stack[-1])

    def recall(self, index: int) -> None:
        if not 0 <= index < len(self._memo) or self._memo[index] is _NOTHING:
            raise UnpicklingError(f"object {index} is referred to and not there")
        self.push(self._memo[index])

    def resolve(self, module: object, name: object) -> None:
        """Push an admitted name."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnpicklingError("a name is damaged")
        found = Name(module, name)
        if found not in self._makers:
            raise RefusedError(printable(f"{module[:80]}.{name[:80]}"))
        self.push(found)

    def reduce(self) -> None:
        """Make what the name under the arguments stands for."""
        arguments, name = self.pop(), self.pop()
        maker = self._makers.get(name) if isinstance(name, Name) else None
        if maker is None or not isinstance(arguments, tuple):
            raise UnpicklingError("what is no admitted name is called")
        self.pay(_CONTAINER)
        self.push(maker(self, *arguments))

    def give_state(self) -> None:
        state = self.pop()
        if not self._stack:
            raise UnpicklingError("an instruction finds no object")
        self._build(self, self._stack[-1], state)

    def mapping(self, entries: list[Any], into: dict[Any, Any]) -> dict[Any, Any]:
        """Add keys and values in turn."""
        if len(entries) % 2:
            raise UnpicklingError("a key has no value")
        self.pay(_ENTRY * (len(entries) // 2))
        for i in range(0, len(entries), 2):
            into[_key(entries[i])] = entries[i + 1]
        return into

    def elements(self, entries: list[Any], into: set[Any]) -> set[Any]:
        """Add elements to a set."""
        self.pay(_ENTRY * len(entries))
        into.update(_key(entry) for entry in entries)
        return into

    def container(self, value: object, cost: int = _CONTAINER) -> None:
        self.pay(cost)
        self.push(value)

    def tuple_of(self, count: int) -> None:
        self.container(tuple([self.pop() for _ in range(count)][::-1]))

    def drop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.since_mark()


_NOTHING = object()


def _key(value: object) -> object:
    """A key or set element: of such a kind that no number of them collides or recurses."""
    if value is None or type(value) in _KEYS or (type(value) is int and value in _INT64):
        return value
    raise UnpicklingError(f"a key of type {type(value).__name__} is not admitted")
