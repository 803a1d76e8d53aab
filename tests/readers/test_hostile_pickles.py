"""What is no data in a pickle is named and never run, and what would fill the memory is refused."""

from __future__ import annotations

import collections
import copyreg
import os
import pickle
import struct
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mmsa.errors import DataError
from mmsa.readers.restricted_pickle import load_pickle
from tests.readers.test_restricted_pickle import dumped


class Calls:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "(os|posix|nt).system"), (subprocess.getoutput, "subprocess.getoutput"), (eval, "builtins.eval")],
)
@pytest.mark.parametrize("inside", ["alone", "array", "nested"])
def test_a_call_is_named_and_not_made(tmp_path: Path, function: object, name: str, inside: str) -> None:
    made = tmp_path / "made"
    argument = f"open({str(made)!r}, 'w').close()" if function is eval else f"touch {made}"
    call = Calls(function, argument)
    content = {"alone": call, "array": np.array([call, None], dtype=object), "nested": {"train": [{"text": call}]}}[
        inside
    ]
    with pytest.raises(DataError, match=name):
        load_pickle(dumped(tmp_path / "x.pkl", content))
    assert not made.exists()


@pytest.mark.parametrize(
    "function", [getattr, np.load, np.fromfile, np.frombuffer, np.memmap, print, collections.Counter]
)
def test_nothing_else_is_admitted_even_from_numpy(tmp_path: Path, function: object) -> None:
    with pytest.raises(DataError, match="was not loaded"):
        load_pickle(dumped(tmp_path / "x.pkl", Calls(function)))


@pytest.mark.parametrize(
    "content",
    [
        Calls(np.ndarray, (2,), np.dtype("O"), b"\1" * 16),
        Calls(np.ndarray, (2,)),
        Calls(np.dtype, [("field", "O")]),
        Calls(np.dtype, "O,O"),
        Calls(np.ndarray((0,)).__reduce__()[0], np.dtype, (0,), b"b"),
    ],
)
def test_arrays_that_would_read_memory_of_their_choice_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError):
        load_pickle(dumped(tmp_path / "x.pkl", content))


def test_an_array_of_objects_over_raw_bytes_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(np.zeros(1), protocol=3)
    assert content.count(b"f8") == 1
    path = tmp_path / "x.pkl"
    path.write_bytes(content.replace(b"f8", b"O8"))
    with pytest.raises(DataError, match="array of objects"):
        load_pickle(path)


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def named(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def array_of(kind: str, shape: bytes, content: bytes, order: str = "|", fields: bytes = b"NNN") -> bytes:
    """The instructions of an array: its shape and content as instructions of their own."""
    blank = named("numpy._core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
    dtype = (
        named("numpy", "dtype") + short(kind) + b"\x89\x88\x87R(K\x03" + short(order) + fields + b"J\xff\xff\xff\xff"
    )
    return blank + b"(K\x01" + shape + dtype + b"J\xff\xff\xff\xffK\x00tb" + b"\x89" + content + b"tb"


def whole(*numbers: int) -> bytes:
    """The instructions of a tuple."""
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", number) for number in numbers) + b"t"


MANIFOLD = b")q\x01" + b"".join(b"(" + (b"h" + bytes([i])) * 9 + b"tq" + bytes([i + 1]) for i in range(1, 20))
"""The instructions of tuples of the same tuples, whose text would fill any memory; the last is object 20."""

REFUSED: dict[str, tuple[bytes, str]] = {
    "extension": (b"\x82\xf0(X\x02\x00\x00\x00idtR", "EXT1"),
    "persistent id": (b"Pfile\n", "PERSID"),
    "persistent object": (b"NQ", "BINPERSID"),
    "instance": (b"(ios\nsystem\n", "INST"),
    "object of a class": (b"(" + named("numpy", "dtype") + short("f4") + b"o", "OBJ"),
    "new object": (named("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
    "new object with names": (named("collections", "OrderedDict") + b")}\x92", "NEWOBJ_EX"),
    "buffer from elsewhere": (b"\x97", "NEXT_BUFFER"),
    "attribute of an admitted name": (named("numpy", "ndarray.__class__"), "numpy.ndarray.__class__"),
    "name of another module": (named("numpy.core.multiarray", "fromfile"), "fromfile"),
    "name that moves the cursor": (named("os\x1b[2J", "system\n"), r"os\\x1b\[2J\.system\\n"),
    "rot13": (named("_codecs", "encode") + short("x") + short("rot13") + b"\x86R", "rot13"),
    "unpacking": (named("_codecs", "encode") + b"C\x01x" + short("zlib") + b"\x86R", "zlib"),
    "state of a dictionary": (b"}}b", "state"),
    "state of a class": (named("numpy", "ndarray") + b"}b", "state"),
    "call of a dictionary": (b"})R", "not admitted is called"),
    "call of what is only mentioned": (named("numpy", "ndarray") + b"K\x02\x85R", "not admitted is called"),
    "class as content": (named("numpy", "ndarray"), "by itself"),
    "factory as content": (b"]" + named("builtins", "int") + b"a", "by itself"),
    "array without a state": (array_of("f4", whole(1), b"C\x041234").split(b"(K\x01")[0], "without its state"),
    "state given twice": (array_of("f4", whole(1), b"C\x041234") + b"}b", "state"),
    "structured array": (array_of("f4", whole(1), b"C\x041234", fields=b"N}N"), "structured"),
    "type that is several": (array_of("f4,O", whole(1), b"C\x041234"), "not admitted"),
    "type of a shape": (array_of("(3,)f4", whole(1), b"C\x041234"), "not admitted"),
    "dates": (array_of("M8[s]", whole(1), b"C\x0812345678"), "not admitted"),
    "raw type": (array_of("V4", whole(1), b"C\x041234"), "not admitted"),
    "addresses": (array_of("O", whole(1), b"C\x0812345678"), "array of objects"),
    "negative shape": (array_of("f4", whole(-1), b"C\x041234"), "shape"),
    "shape too large": (array_of("f4", whole(1 << 40), b"C\x041234"), "larger than the file"),
    "shape that overflows": (array_of("f4", whole(1 << 62, 1 << 62, 0), b"C\x00"), "larger than the file"),
    "empty rows without end": (array_of("f4", whole(1 << 40, 0), b"C\x00"), "larger than the file"),
    "texts of no length": (array_of("U0", whole(1 << 40), b"C\x00"), "larger than the file"),
    "text without end": (array_of("U99999999", whole(0), b"C\x00"), "far more memory"),
    "too little content": (array_of("f4", whole(2), b"C\x041234"), "does not fill"),
    "no characters": (array_of("U1", whole(1), b"C\x04\xff\xff\xff\x7f", order="<"), "text is damaged"),
    "bytes without end": (b"\x8e" + struct.pack("<Q", 1 << 45), "too early"),
    "bytes to fill without end": (b"\x96" + struct.pack("<Q", 1 << 45), "too early"),
    "text without an end": (b"X\xff\xff\xff\x7f", "too early"),
    "memo without end": (b"Nr\xff\xff\xff\x7f", "2147483647 objects would be larger"),
    "memo without end in text": (b"Np4000000000\n", "4000000000 objects would be larger"),
    "memo below 0": (b"Np-4\n", "negative PUT"),
    "number without end": (b"\x8b\xff\xff\xff\x7f", "too early"),
    "long number": (b"\x8b\x00\x00\x10\x00" + b"\x01" * (1 << 20), "more than 64 bits"),
    "hexadecimal digits without end": (b"I0x" + b"f" * (1 << 20) + b"\n", "more than 64 bits"),
    "digits without end": (b"I" + b"9" * 5000 + b"\n", "digits"),
    "sets without end": (b"(" + b"\x8f" * 200_000 + b"t", "far more memory"),
    "lists without end": (b"(" + b"]" * 420_000 + b"t", "far more memory"),
    "marks without end": (b"(" * 420_000, "far more memory"),
    "one array many times": (
        b"\x8e" + struct.pack("<Q", 1 << 20) + bytes(1 << 20) + b"q\x010("
        + array_of("u1", whole(1 << 20), b"h\x01") * 100 + b"t",
        "far more memory",
    ),
    "tuples as a key": (b"})" + b"\x85" * 60_000 + b"Ns", "a key of type tuple"),
    "tuples in a set": (b"\x8f()" + b"\x85" * 60_000 + b"\x90", "a key of type tuple"),
    "large number as a key": (b"}\x8a\x09" + b"\x01" * 9 + b"Ns", "more than 64 bits"),
    "long key": (b"}X\x01\x00\x01\x00" + b"a" * 65537 + b"Ns", "a key of 65537 characters"),
    "long key in a set": (b"\x8f(B\x01\x00\x01\x00" + b"a" * 65537 + b"\x90", "a key of 65537 characters"),
    "name as a key": (b"}" + named("builtins", "int") + b"Ns", "a key of type Name"),
    "array as a key": (b"}" + array_of("f4", whole(1), b"C\x041234") + b"Ns", "a key of type ndarray"),
    "item of a list": (b"]NaK\x00Ns", "no dict"),
    "items of an array": (array_of("f4", whole(1), b"C\x041234") + b"(K\x00K\x01u", "no dict"),
    "key without a value": (b"}(Nu", "no value"),
    "element of a list": (b"](N\x90", "no set"),
    "entry of a tuple": (b")Na", "does not find the object"),
    "entries of an array": (array_of("f4", whole(1), b"C\x041234") + b"(Ne", "does not find the object"),
    "state of a list": (b"]}b", "state"),
    "call with a list": (named("builtins", "set") + b"]R", "not admitted is called"),
    "type without an end": (MANIFOLD + named("numpy", "dtype") + b"h\x14\x85R", "a tuple is not admitted"),
    "encoding without an end": (
        MANIFOLD + named("_codecs", "encode") + short("x") + b"h\x14\x86R", "encode with a tuple"
    ),
    "tuples in tuples": (b")" + b"\x85" * 60_000, "nested more than"),
    "lists in lists": (b"(" * 30 + b"l" * 30, "nested more than"),
    "list in itself": (b"]q\x01h\x01a", "within itself"),
    "dictionary in itself": (b"}q\x01Nh\x01s", "within itself"),
    "array in itself": (array_of("O", whole(1), b"]h\x01a").replace(b"\x87R(K", b"\x87Rq\x01(K", 1), "within itself"),
    "lists of the same lists": (b"]q\x01" + b"".join(
        b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(1, 20)
    ), "far more memory"),
    "one text encoded many times": (
        b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x01("
        + (named("_codecs", "encode") + b"h\x01" + short("latin1") + b"\x86R") * 450 + b"t",
        "far more memory",
    ),
    "one long text in a long list": (
        b"](X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"N" * 100_000 + b"e", "far more memory"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_instructions_are_refused_by_name_in_bounded_memory(tmp_path: Path, name: str) -> None:
    instructions, said = REFUSED[name]
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04" + instructions + b".")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=said) as refused:
            load_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 500 + len(str(path))


def test_an_extension_that_this_process_knows_is_refused_as_well(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copyreg.add_extension("posix", "system", 240)
    request.addfinalizer(lambda: copyreg.remove_extension("posix", "system", 240))
    path = dumped(tmp_path / "x.pkl", Calls(os.system, f"touch {tmp_path / 'made'}"))
    assert b"\x82\xf0" in path.read_bytes()
    with pytest.raises(DataError, match="EXT1"):
        load_pickle(path)
    assert not (tmp_path / "made").exists()
