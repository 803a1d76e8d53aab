"""A file that is no data by mistake is called what it is, and nothing that is no file is waited for."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsa.data import prepare
from mmsa.dataset.custom import Custom
from mmsa.errors import DataError
from mmsa.readers.restricted_pickle import load_pickle
from mmsa.readers.sequence_file import SequenceFile
from mmsa.readers.torch_file import load_torch
from tests.dataset.corpora import Tiny, tiny_sequences, write_corpus

READERS: dict[str, Callable[[Path], object]] = {
    ".pkl": load_pickle,
    ".csd": SequenceFile,
    ".pt": load_torch,
    ".npz": lambda path: Custom(str(path)).settled(),
}


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"1")
    return buffer.getvalue()


MISTAKEN = {
    "web page": (b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>", "is a web page"),
    "web page with a preface": (b"\xef\xbb\xbf\r\n<!-- a -->\n<HTML lang=en>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git-lfs.*\n  type git lfs pull"),
    "gzip": (gzip.compress(b"data"), r"by gzip.*\n  type mv .* && gzip -d .*\.gz'$"),
    "bzip2": (bz2.compress(b"data"), r"by bzip2.*\n  type mv .* && bzip2 -d .*\.bz2'$"),
    "xz": (lzma.compress(b"data"), r"by xz.*\n  type mv .* && xz -d .*\.xz'$"),
    "tar": (bytes(257) + b"ustar\x0000", r"tar archive.*\n  type tar xf "),
}


@pytest.mark.parametrize("kind", MISTAKEN)
@pytest.mark.parametrize("suffix", READERS)
def test_it_is_called_what_it_is(tmp_path: Path, suffix: str, kind: str) -> None:
    content, said = MISTAKEN[kind]
    path = tmp_path / f"two words{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as refused:
        READERS[suffix](path)
    assert str(path) in str(refused.value) and len(str(refused.value).splitlines()) <= 2


def test_archives_and_arrays_are_no_pickles(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    for content, said in (
        (zipped("x.pkl"), "zip archive.*\n  type unzip "),
        (zipped("fold.npy"), "named arrays.*\n  type dataset=custom"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x93NUMPY\x01\x00", "one array"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            load_pickle(path)


def test_a_file_that_is_packed_under_its_own_name_is_not_renamed(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl.gz"
    path.write_bytes(gzip.compress(b"data"))
    with pytest.raises(DataError, match=r"\n  type gzip -d \S*/x.pkl.gz$"):
        load_pickle(path)


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"x{suffix}"
    put(path, kind)
    with pytest.raises(DataError, match=r"is no file|does not exist"):
        READERS[suffix](path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself", "device"])
def test_a_sequence_that_is_no_file_is_absent(tmp_path: Path, kind: str) -> None:
    files = write_corpus(tmp_path / "source", tiny_sequences())
    files["audio"].unlink()
    put(files["audio"], kind)
    with pytest.raises(DataError, match=r"lacks audio: TINY_Audio\.csd"):
        Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False)


def put(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "link to itself" else Path("/dev/zero"))


def test_a_web_page_s_own_text_may_be_data(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, page=np.array(["<!DOCTYPE html>"]))
    with pytest.raises(DataError, match="the array page is none of"):
        Custom(str(path)).settled()


def test_what_the_system_does_not_let_be_read_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04N.")

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(prepare, "_sha256", refuse)
    with pytest.raises(DataError, match=r"cannot be read: Permission denied.\n  type chmod u\+r .*x.pkl, or dataset"):
        Tiny(str(path)).prepare(tmp_path / "stores")
    said = r"cannot be read: Input/output error.\n  type dataset.source=PATH"
    with pytest.raises(DataError, match=said), prepare.readable(path):
        raise OSError(5, "Input/output error")


def test_a_packed_file_under_any_name_is_called_what_it_is_as_a_source(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"data"))
    with pytest.raises(DataError, match=r"compressed by gzip.*\n  type gzip -d"):
        Tiny(str(path)).prepare(tmp_path / "stores")
    other = tmp_path / "notes.txt"
    other.write_text("data")
    with pytest.raises(DataError, match="neither a folder nor a pickle"):
        Tiny(str(other)).prepare(tmp_path / "stores")


@pytest.mark.parametrize("suffix", [".csd", ".npz"])
def test_files_that_may_not_be_read_are_no_traceback(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"PK")

    def refuse(place: object, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"cannot be read: Permission denied.\n  type chmod u\+r "):
        READERS[suffix](path)
