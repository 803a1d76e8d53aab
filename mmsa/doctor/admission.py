"""The diagnosis of a store is kept beside it, and decides whether a run trains on it."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from pydantic_core import from_json

from mmsa.data.prepare import announce
from mmsa.data.store import Store
from mmsa.dataset.dataset import Dataset
from mmsa.doctor.examination import Diagnosis, examine
from mmsa.doctor.finding import Finding, counted
from mmsa.errors import DataError
from mmsa.files import content_of, written

_SHOWN = 2
_FATAL = ("empty_fold", "never_trained")
"""Errors with which no run trains, whatever `loading.doctor`."""


def diagnosed(store: Store, dataset: Dataset) -> tuple[Diagnosis, bool]:
    """The diagnosis that is kept beside a store, made first where there is none; and whether it was made now.

    Args:
        store: the prepared data set.
        dataset: what states its title, sizes, ranges and kinds.
    """
    path = _place(store, dataset)
    with suppress(OSError, ValueError, KeyError, AttributeError):  # there is none yet, or it was cut short
        if path.stat().st_mtime_ns >= store.path.stat().st_mtime_ns:
            return Diagnosis.from_json(from_json(content_of(path))), False
    diagnosis = examine(store, dataset)
    keep(diagnosis, store, dataset)
    return diagnosis, True


def keep(diagnosis: Diagnosis, store: Store, dataset: Dataset) -> None:
    """Keep a diagnosis beside its store, where one may write there."""
    with suppress(OSError), written(_place(store, dataset)) as file:
        file.write(json.dumps(diagnosis.as_json()).encode())


def admit(store: Store, dataset: Dataset, command: str, progress: bool) -> list[str]:
    """A run's lines about the doctor's findings in its data, without those in modalities that it does not read.

    The built-in corpus is not examined: its oddities are planted.

    Args:
        store: the prepared data set.
        dataset: with the modalities that the run reads, and `loading.doctor`.
        command: shows all findings; empty where no command knows the data set.
        progress: print warnings that are found now, and those that no command shows.

    Raises:
        DataError: there are errors, and `loading.doctor` stops on them.
    """
    if store.report.get("planted"):
        return []
    diagnosis, new = diagnosed(store, dataset)
    concern = [finding for finding in diagnosis.findings if finding.modality in ("", *dataset.needed)]
    errors = [finding for finding in concern if finding.severity == "error"]
    warnings = [finding for finding in concern if finding.severity == "warning"]
    if errors and dataset.loading.doctor == "stop":
        raise DataError(_refusal(store, errors, command))
    if progress and (new or not command):
        for finding in (*errors, *warnings):
            announce(f"{finding.severity} {finding.code}: {finding.text}")
    counts = [counted(len(found), name) for found, name in ((errors, "error"), (warnings, "warning")) if found]
    shown = f": {command}" if command else ""
    return [f"the doctor has {' and '.join(counts)} of these data{shown}"] if counts else []


def _refusal(store: Store, errors: list[Finding], command: str) -> str:
    """The first errors, and the option to type."""
    said = [f"{error.code}: {error.text}\n  {error.advice}" for error in errors[:_SHOWN]]
    more = f"  all of it: {command}" if command else ""
    found = f"the doctor finds {counted(len(errors), 'error')} in {store.title}, which would make results wrong"
    warn = "  type dataset.doctor=warn to train on these data as they are"
    fatal = any(error.code in _FATAL for error in errors)
    return "\n".join([f"{found}:", *said, *more.splitlines(), *([] if fatal else [warn])])


def _place(store: Store, dataset: Dataset) -> Path:
    """Named by the store, its own folds, the doctor's code and the data set's statements, which decide the findings."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
    stated = (dataset.title, dict(dataset.kinds), dataset.nominal_range, dict(dataset.canonical_sizes))
    version = hashlib.sha256(f"{code} {stated} {store.parts or ''}".encode()).hexdigest()[:8]
    return store.path.with_name(f"{store.path.stem}-doctor-{version}.json")
