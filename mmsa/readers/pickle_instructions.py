"""What each instruction of a pickle does to the machine; those that are not here are refused by their names."""

from __future__ import annotations

import codecs
import pickletools
import re
from collections.abc import Callable
from pickle import UnpicklingError
from struct import Struct

from mmsa.readers.pickle_machine import SET, Machine, RefusedError

_STOP = ord(".")
_BYTE, _WORD, _LENGTH = Struct("<B"), Struct("<I"), Struct("<Q")
_LONGEST_NUMBER = 64
# Python 2's repr writes no other escape; the decoder would warn of them.
_FOREIGN_ESCAPE = re.compile(rb"\\(?![nrt'\"]|x[0-9a-f]{2})")


def run(machine: Machine) -> object:
    """The object of the machine's pickle.

    Raises:
        RefusedError: something that is not data is named or asked for.
        UnpicklingError, EOFError, ArithmeticError, LookupError, TypeError, ValueError: the file is damaged.
    """
    while (code := machine.next_code()) != _STOP:
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise _unknown(code)
        operation(machine)
    return machine.result()


def _unknown(code: int) -> Exception:
    for operation in pickletools.opcodes:
        if operation.code == chr(code):
            return RefusedError(f"the instruction {operation.name}")
    return UnpicklingError(f"0x{code:02x} is no instruction")


def _whole(text: bytes) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise UnpicklingError(f"a number of {len(text)} digits is not admitted")
    return int(text)


def _int_line(machine: Machine) -> None:
    text = machine.line()
    machine.push(text == b"01" if text in (b"00", b"01") else _whole(text))


def _float_line(machine: Machine) -> None:
    text = machine.line()
    if len(text) > _LONGEST_NUMBER:
        raise UnpicklingError(f"a number of {len(text)} digits is not admitted")
    machine.push(float(text))


def _long(form: Struct) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        count = machine.number(form)
        if count > 9:  # 64 bits without a sign
            raise UnpicklingError(f"a number of {count} bytes is not admitted")
        machine.push(int.from_bytes(machine.take(count), "little", signed=True))

    return operation


def _sized(form: Struct, decode: Callable[[bytes], object]) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        machine.push(decode(machine.take(machine.number(form))))

    return operation


def _fixed(form: Struct) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.number(form))


def _constant(value: object) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


def _quoted(machine: Machine) -> None:
    text = machine.line().strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise UnpicklingError("a string without quotes is not admitted")
    if _FOREIGN_ESCAPE.search(text[1:-1].replace(rb"\\", b"")):
        raise UnpicklingError("a string with a foreign escape is not admitted")
    machine.push(codecs.escape_decode(text[1:-1])[0].decode("latin1"))


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _append_all(machine: Machine) -> None:
    values = machine.since_mark()
    machine.top(list).extend(values)


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.mapping([key, value], machine.top(dict))


def _set_items(machine: Machine) -> None:
    entries = machine.since_mark()
    machine.mapping(entries, machine.top(dict))


def _add_items(machine: Machine) -> None:
    entries = machine.since_mark()
    machine.elements(entries, machine.top(set))


def _duplicate(machine: Machine) -> None:
    value = machine.pop()
    machine.push(value)
    machine.push(value)


def _global(machine: Machine) -> None:
    machine.resolve(machine.line().decode(), machine.line().decode())


def _outside(machine: Machine) -> None:
    if machine.persistent is None:
        raise _unknown(ord("Q"))
    machine.push(machine.persistent(machine.pop()))


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.resolve(module, name)


def _skip(count: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        machine.take(count)

    return operation


def _drop_to_mark(machine: Machine) -> None:
    machine.since_mark()


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _escaped(machine: Machine) -> None:
    text = machine.line().decode("raw-unicode-escape", errors="replace")
    # Two halves of a character make one; a half by itself is no text.
    machine.push(text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace"))


def _latin(content: bytes) -> str:
    """Python 2's strings, bytes and text alike, as the field's own loaders take them."""
    return content.decode("latin1")


_OPERATIONS: dict[int, Callable[[Machine], None]] = {
    ord(code): operation
    for code, operation in {
        "\x80": _skip(1),  # protocol
        "\x95": _skip(8),  # frame
        "(": Machine.mark,
        "0": Machine.drop,
        "1": _drop_to_mark,
        "2": _duplicate,
        "N": _constant(None),
        "\x88": _constant(True),
        "\x89": _constant(False),
        "I": _int_line,
        "J": _fixed(Struct("<i")),
        "K": _fixed(_BYTE),
        "M": _fixed(Struct("<H")),
        "L": lambda m: m.push(_whole(m.line().removesuffix(b"L"))),
        "\x8a": _long(_BYTE),
        "\x8b": _long(_WORD),
        "F": _float_line,
        "G": _fixed(Struct(">d")),
        "S": _quoted,
        "T": _sized(Struct("<i"), _latin),
        "U": _sized(_BYTE, _latin),
        "V": _escaped,
        "X": _sized(_WORD, _text),
        "\x8c": _sized(_BYTE, _text),
        "\x8d": _sized(_LENGTH, _text),
        "B": _sized(_WORD, bytes),
        "C": _sized(_BYTE, bytes),
        "\x8e": _sized(_LENGTH, bytes),
        "\x96": _sized(_LENGTH, bytes),
        "]": lambda m: m.container([]),
        "l": lambda m: m.container(m.since_mark()),
        "a": _append,
        "e": _append_all,
        ")": lambda m: m.push(()),
        "t": lambda m: m.container(tuple(m.since_mark())),
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "}": lambda m: m.container({}),
        "d": lambda m: m.container(m.mapping(m.since_mark(), {})),
        "s": _set_item,
        "u": _set_items,
        "\x8f": lambda m: m.container(set(), SET),
        "\x90": _add_items,
        "\x91": lambda m: m.container(m.elements(m.since_mark(), set()), SET),
        "p": lambda m: m.keep(_whole(m.line())),
        "q": lambda m: m.keep(m.number(_BYTE)),
        "r": lambda m: m.keep(m.number(_WORD)),
        "\x94": Machine.keep_next,
        "g": lambda m: m.recall(_whole(m.line())),
        "h": lambda m: m.recall(m.number(_BYTE)),
        "j": lambda m: m.recall(m.number(_WORD)),
        "c": _global,
        "\x93": _stack_global,
        "Q": _outside,
        "R": Machine.reduce,
        "b": Machine.give_state,
    }.items()
}
