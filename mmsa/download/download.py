"""Fetching computational sequences: sizes first, resumed where it stopped, kept only when whole."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from rich.filesize import decimal

from mmsa.data.hdf5 import opened
from mmsa.data.prepare import Progress, announce, hash_files, progress_bar
from mmsa.dataset.dataset import Dataset
from mmsa.dataset.folds import mmsdk_names
from mmsa.dataset.sequences import roles
from mmsa.download.transfer import SCHEMES, Fault, Remote, go_on, head, several_tries
from mmsa.errors import ConfigError, DataError, printable
from mmsa.locks import Lock, LockError
from mmsa.program import program

SHA256: Mapping[str, str] = {}
"""SHA-256 by file name, where one is published; of the sequences none is."""
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.csd")


def source_folder(dataset: Dataset, data: Path) -> Path:
    """Where a data set's fetched files lie; `data` is the folder of the stores."""
    return data / "sources" / dataset.name


def addresses(dataset: Dataset, mirror: str | None = None) -> dict[str, str]:
    """Address of every sequence that has to be fetched, by its role.

    Args:
        dataset: its `sequences`, modalities, feature sets and GloVe file say which; of several names for one role the
            first that mmsdk lists is taken.
        mirror: address of a folder with files of these names; None takes the addresses that mmsdk lists.

    Raises:
        ConfigError: the mirror is no http or https address, or the data set is not fetched but has a source.
        DataError: no addresses are known, of the data set or of a feature set.
    """
    base = None if mirror is None else _checked(mirror)
    again = f"{program('mmsa')} prepare {dataset.name}"
    if not dataset.sdk_name:
        raise DataError(
            f"--download: no addresses of {dataset.title} are known. {dataset.origin}\n"
            f"  type {again}{'' if dataset.name == 'synthetic' else ' --source FOLDER_OR_FILE'}"
        )
    if dataset.source is not None:
        raise ConfigError(
            f"--download fetches the source, and --source names one, {dataset.source}.\n"
            f"  type {again} --download, or the other alone"
        )
    listed = _recipe(dataset.sdk_name)
    chosen = {}
    for role in roles(dataset, dataset.modalities):
        names = _accepted(dataset, role)
        name = next((name for name in names if name in listed), names[0] if base else None)
        if name is None or not _FILE_NAME.fullmatch(f"{name}.csd"):
            raise DataError(
                f"--download: mmsdk lists no address for {role}: {', '.join(names)}. It lists {', '.join(listed)}.\n"
                f"  type dataset.feature_sets={{{role}:NAME}} with one of them, or --mirror URL of a host that has it"
            )
        chosen[role] = f"{base}/{quote(name)}.csd" if base else listed[name]
    return chosen


def download(
    dataset: Dataset, data: Path, mirror: str | None = None, arguments: Sequence[str] = (), progress: bool = True
) -> Path:
    """Fetch the sequences that are not yet whole in the data set's folder of sources: that folder.

    Args:
        dataset: see `addresses`.
        data: folder of the stores.
        mirror: see `addresses`.
        arguments: further ones of `mmsa prepare`, for the line to type where a file does not come.
        progress: show a bar on a terminal.

    Raises:
        ConfigError: see `addresses`.
        DataError: there are no addresses, too little space, or files that did not come; what came stays.
    """
    found = addresses(dataset, mirror)
    folder = source_folder(dataset, data)
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        Remote(_file_name(address), address)
        for role, address in found.items()
        if not any(_is_whole(folder / f"{name}.csd") for name in _accepted(dataset, role))
    ]
    _measure(files)
    _check_space(files, folder)
    with progress_bar(progress) as bar:
        for file in files:
            if file.fault is None:
                _fetch(file, folder, bar)
        came = {file.name: folder / file.name for file in files if file.fault is None}
        for name, digest in hash_files(came, data, bar).items():
            announce(f"{name}: SHA-256 {digest}" + (", as published" if name in SHA256 else ", none is published"))
    failed = [file for file in files if file.fault is not None]
    if failed:
        again = f"{program('mmsa')} {shlex.join(['prepare', dataset.name, '--source', str(folder), *arguments])}"
        lines = [f"  {file.name}, {_bytes(file.size)}: {file.fault}" for file in failed]
        raise DataError(
            "\n".join([f"{dataset.title}: {len(failed)} of {len(found)} files could not be fetched.", *lines])
            + f"\n  put them into {folder}, or try --mirror URL\n  type {again}"
        )
    return folder


def _accepted(dataset: Dataset, role: str) -> tuple[str, ...]:
    return (dataset.feature_sets[role],) if role in dataset.feature_sets else dataset.sequences[role]


def _recipe(dataset: str) -> dict[str, str]:
    """Address by sequence name as mmsdk lists them."""
    defined = mmsdk_names(dataset, f"{dataset.lower()}.py")
    groups = [group for name, group in defined.items() if isinstance(group, dict) and not name.startswith("_")]
    listed = [address for group in groups for address in group.values()]
    return {_file_name(address).removesuffix(".csd"): address for address in listed}


def _file_name(address: str) -> str:
    return unquote(urlsplit(address).path).rpartition("/")[2]


def _checked(mirror: str) -> str:
    """The mirror's address without a slash at its end."""
    try:
        parts = urlsplit(mirror)
        good = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in mirror or "?" in mirror or "#" in mirror or not re.fullmatch(r"[!-~]+", mirror):
        shown = re.sub(r"//[^/]*@", "//…@", printable(mirror))
        raise ConfigError(
            f"--mirror {shown} is refused: the http or https address of a folder is required, without a password.\n"
            "  type --mirror https://HOST/FOLDER"
        )
    return mirror.rstrip("/")


def _is_whole(path: Path) -> bool:
    try:
        # HDF5 states where a file ends, so one that was cut short does not open. Without a lock: we may hold our own.
        with opened(path, locking=False):
            return True
    except OSError:  # absent, cut short, or something else
        return False


def _measure(files: list[Remote]) -> None:
    """Ask for every file's size; a host that does not answer for one file is not asked for the others."""
    silent: dict[str | None, str] = {}
    for file in files:
        host = urlsplit(file.address).hostname
        if host in silent:
            file.fault = silent[host]
            continue
        try:
            file.size, file.modified = several_tries(partial(head, file.address))
        except Fault as fault:
            file.fault = str(fault)
            if fault.host is not None:
                silent[host] = str(fault)


def _check_space(files: list[Remote], folder: Path) -> None:
    """Print the sizes and the free space; refuse files that do not fit."""
    if all(file.size is None for file in files):
        return
    needed = 0
    announce(f"Fetching into {folder}:")
    for file in files:
        part = _part(file, folder)
        there = min(part.stat().st_size if part.exists() else 0, file.size or 0)
        needed += (file.size or 0) - there
        announce(f"  {file.name}, {_bytes(file.size)}" + (f", {_bytes(there)} of it are there" if there else ""))
    free = shutil.disk_usage(folder).free
    announce(f"  in all {_bytes(needed)}; {_bytes(free)} are free")
    if needed > free:
        raise DataError(
            f"{folder} needs {_bytes(needed)} more, and {_bytes(free)} are free; nothing was fetched.\n"
            "  type --data FOLDER on a disk with that much space"
        )


def _fetch(file: Remote, folder: Path, bar: Progress) -> None:
    """Fetch one file, or note in it why it did not come."""
    part = _part(file, folder)
    lock = Lock(part)
    try:
        if not lock.acquire(blocking=False):
            file.fault = "another process is fetching it"
            return
    except LockError:  # a file system may have no locks
        announce(f"{folder} has no locks: do not fetch into it twice at a time")
    try:
        with open(part, "ab") as output:
            several_tries(partial(go_on, file, output, bar))
        _accept(file, part)
    except Fault as fault:
        file.fault = str(fault)
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        lock.release()


def _accept(file: Remote, part: Path) -> None:
    """Give a fetched file its name, if it is what it should be; what can never become whole is removed."""
    if not _is_whole(part):
        part.unlink(missing_ok=True)
        raise Fault(f"the {file.size} bytes received are not a whole HDF5 file")
    if file.name in SHA256:
        with open(part, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != SHA256[file.name]:
            part.unlink(missing_ok=True)
            raise Fault(f"its SHA-256 is {digest}, {SHA256[file.name]} is published")
    os.replace(part, part.with_suffix(""))


def _part(file: Remote, folder: Path) -> Path:
    if not _FILE_NAME.fullmatch(file.name):  # it would leave the folder
        raise DataError(f"--download: {file.address!r} names no file.\n  type --mirror URL")
    return folder / f"{file.name}.part"


def _bytes(count: int | None) -> str:
    return "size unknown" if count is None else decimal(count)
