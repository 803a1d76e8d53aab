"""Where a result comes from: code, machine, versions and data."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from mmsa.data.store import FOLDS, Store
from mmsa.errors import DataError
from mmsa.occupancy import run_folders
from mmsa.record import DataRecord, Git, RunRecord
from mmsa.run_folder import SWEEP_VARIABLE

PACKAGES = ("torch", "lightning-fabric", "numpy", "hydra-core", "omegaconf", "mlflow", "h5py")
CODE = Path(__file__).resolve().parent


def git_state(folder: Path = CODE) -> Git:
    """Commit of the checkout that holds this code, and whether it has uncommitted changes.

    Either is None where git does not answer, and both where the code is not under its control: a package may be
    installed into a folder of somebody else's repository.

    Args:
        folder: of the code.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's name its own

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, env=ours, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "--", "."):
        return Git()
    changes = git("status", "--porcelain")
    return Git(commit=git("rev-parse", "HEAD"), dirty=None if changes is None else bool(changes))


def environment(device: str, threads: int, devices: str = "1") -> dict[str, str]:
    """Versions of Python and of the libraries, and the machine.

    Args:
        device: on which is computed, such as "cuda:0".
        threads: of the processor, in each process.
        devices: how many computed, such as "2", or "2, later 1" of a run that was resumed on another number.
    """
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    from torch import backends, cuda

    found |= {"cpus": str(os.cpu_count()), "processor": _processor(), "instructions": backends.cpu.get_cpu_capability()}
    found |= {"device": device, "threads": str(threads)} | ({"devices": devices} if devices != "1" else {})
    return found | ({"gpu": cuda.get_device_name(device)} if device.startswith("cuda") else {})


def devices(number: int, former: RunRecord | None) -> str:
    """The numbers of devices on which a run has trained so far, and trains now."""
    before = former.environment.get("devices", "1") if former else str(number)
    return before if before.rpartition(" ")[2] == str(number) else f"{before}, later {number}"


def source_of_multirun(outputs: Path, dataset: str) -> Mapping[str, str]:
    """The hashes of a data set's source, as the first run of this multirun has read it; none before that, or alone."""
    sweep = os.environ.get(SWEEP_VARIABLE)
    began = (sweep or "")[: len("20260101-000000")]  # as the names of folders of runs do
    for folder in run_folders(outputs) if sweep else []:
        if folder.name >= began:
            with suppress(DataError):
                record = RunRecord.read(folder)
                if (record.sweep, record.dataset) == (sweep, dataset):
                    return record.data.hashes
    return {}


def data_record(store: Store, source: str | None = None) -> DataRecord:
    """The record of a store and of the folds that are read of it.

    Args:
        store: the store.
        source: name of the file or folder that it was made from, where it is known by another than the store's.
    """
    own = store.parts
    return DataRecord(
        fingerprint=store.fingerprint,
        store=str(store.path.resolve()),
        source=source or store.source_name,
        hashes=store.sources,
        utterances={name: int(np.sum(np.asarray(store.folds) == name)) for name in FOLDS},
        num_folds=own.num_folds if own else None,
        held_out=own.held_out if own else None,
        parts=own.hash if own else None,
    )


def _processor() -> str:
    """Its model, on which the order of sums depends; Python's platform knows none on Linux."""
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        known = ""
    found = re.search(r"^model name\s*:\s*(.+)$", known, flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
