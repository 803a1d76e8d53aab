"""Whatever its instructions, a pickle takes memory in proportion to its size and ends in an object or a clear error."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import sys
import tracemalloc
from pathlib import Path

import pytest

from mmsa.errors import DataError
from mmsa.readers import unpickler
from mmsa.readers.restricted_pickle import ArrayUnpickler, load_pickle
from mmsa.readers.unpickler import RefusedError
from tests.readers.test_hostile_pickles import array_of, named, short, whole

REFUSED = "PERSID INST OBJ NEWOBJ NEWOBJ_EX EXT1 EXT2 EXT4 NEXT_BUFFER READONLY_BUFFER"


def pickled(path: Path, instructions: bytes) -> Path:
    path.write_bytes(b"\x80\x04" + instructions + b".")
    return path


def test_instructions_are_admitted_one_by_one() -> None:
    names = {
        instruction.name for instruction in pickletools.opcodes if ord(instruction.code) in unpickler.Unpickler.dispatch
    }
    assert {instruction.name for instruction in pickletools.opcodes} - names == set(REFUSED.split())


FLOODS = {
    "nothings": b"N",
    "the same": b"2",
    "numbers": b"M\xff\xff",
    "fractions": b"F1\n",
    "texts": b"\x8c\x02ab",
    "texts of Python 2": b"U\x02\xff\xff",
    "escaped texts": b"V\\U0001f600\n",
    "kept": b"\x94",
    "kept by number": b"q\x05",
    "recalled": b"h\x00",
    "marks": b"(",
    "lists": b"]",
    "marked lists": b"(l",
    "dictionaries": b"}",
    "marked dictionaries": b"(d",
    "sets": b"\x8f",
    "frozen sets": b"(\x91",
    "tuples": b")",
    "marked tuples": b"(t",
    "tuples in tuples": b"\x85",
    "names": named("builtins", "int"),
    "calls": b"h\x00)R",
    "arrays": array_of("u1", whole(0), b"C\x00"),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("gathered", [False, True])
def test_a_flood_takes_memory_in_proportion(
    tmp_path: Path, flood: str, gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpickler, "_FLOOR", 1 << 16)
    start = named("collections", "OrderedDict") + b"q\x000](N"
    repeated = FLOODS[flood] * (40_000 // len(FLOODS[flood]))
    path = pickled(tmp_path / "x.pkl", start + repeated + (b"e" if gathered else b""))
    tracemalloc.start()
    try:
        load_pickle(path)
    except DataError as error:
        assert str(path) in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 48 * path.stat().st_size


def test_a_mark_costs_nothing_once_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickler, "_FLOOR", 1 << 16)
    path = pickled(tmp_path / "x.pkl", b"](" + b"(K\x01K\x02K\x03K\x04t" * 10_000 + b"e")
    assert load_pickle(path) == [(1, 2, 3, 4)] * 10_000


STACKS = {
    "nothing": b"",
    "a mark": b"(",
    "a mark and a number": b"(K\x01",
    "two marks": b"(N(",
    "one number": b"K\x00",
    "two texts": short("a") * 2,
    "a list": b"]K\x00N",
    "a tuple": b")K\x00N",
    "a dictionary": b"}K\x00N",
    "a set": b"\x8f(N",
    "a text": short("a") + b"(N",
    "bytes": b"C\x01a(N",
    "a name": named("builtins", "set") + b"(N",
    "a name and a list": named("builtins", "set") + b"]",
    "a name and a tuple": named("builtins", "set") + b")",
    "a type": named("numpy", "dtype") + short("f4") + b"\x85RN",
    "an array": array_of("f4", whole(1), b"C\x041234") + b"K\x00N",
    "an array and a mark": array_of("O", whole(1), b"]Na") + b"(K\x00N",
}


CODES = [ord(instruction.code) for instruction in pickletools.opcodes] + [0, 255]
ARGUMENTS = (b"", b"\x00", b"\x01" + bytes(7), b"\xff" * 9, b"1\n", b"os\nsystem\n")
STATED = (RefusedError, pickle.UnpicklingError, EOFError, ArithmeticError, LookupError, TypeError, ValueError)


@pytest.mark.parametrize("stack", STACKS)
def test_any_instruction_on_any_stack_ends_in_an_object_or_a_stated_error(stack: str) -> None:
    modules = set(sys.modules)
    for code in CODES:
        for argument in ARGUMENTS:
            content = b"\x80\x04" + STACKS[stack] + bytes([code]) + argument + b"."
            with contextlib.suppress(*STATED):
                ArrayUnpickler(io.BytesIO(content), len(content)).load()
    assert set(sys.modules) == modules


def written(number: int) -> list[bytes]:
    """The instructions that write a whole number as one."""
    content = number.to_bytes(20, "little", signed=True)
    digits = str(number).encode()
    return [b"I" + digits + b"\n", b"L" + digits + b"L\n", b"\x8a\x14" + content, b"\x8b\x14\x00\x00\x00" + content]


@pytest.mark.parametrize("number", [-(2**63) - 1, 2**64, 2**61 - 1 << 61, 10**40])
def test_whole_numbers_that_could_collide_as_keys_are_refused_wherever_they_stand(tmp_path: Path, number: int) -> None:
    for instruction in written(number):
        with pytest.raises(DataError, match="more than 64 bits"):
            load_pickle(pickled(tmp_path / "x.pkl", instruction))
    for near in (-(2**63), 2**64 - 1):
        assert [load_pickle(pickled(tmp_path / "x.pkl", instruction)) for instruction in written(near)] == [near] * 4


def test_the_length_of_a_frame_sets_nothing_aside(tmp_path: Path) -> None:
    assert load_pickle(pickled(tmp_path / "x.pkl", b"\x95" + b"\xff" * 8 + b"]\x95" + bytes(8) + b"Na")) == [None]


@pytest.mark.parametrize("recalled", [b"g-1\n", b"h\x03", b"h\x04", b"j\xff\xff\xff\xff", b"g5\n"])
def test_what_was_never_kept_is_not_there(tmp_path: Path, recalled: bytes) -> None:
    kept = b"]q\x02q\x05q\x010"
    assert load_pickle(pickled(tmp_path / "x.pkl", kept + b"h\x05")) == []
    with pytest.raises(DataError, match="does not find the object"):
        load_pickle(pickled(tmp_path / "x.pkl", b"]q\x02q\x010" + recalled))
