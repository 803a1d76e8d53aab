"""The doctor: faults, oddities and facts of a prepared data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from mmsa.data.naming import EMOTIONS, data_name
from mmsa.data.store import Store
from mmsa.dataset.dataset import Dataset
from mmsa.doctor.finding import SEVERITIES, Finding, Severity, counted
from mmsa.doctor.findings import judge
from mmsa.doctor.known_files import REMARKS, known_file, meaning
from mmsa.doctor.measures import duplicates, measure_modality, measure_rows, measure_target
from mmsa.doctor.origin import whose_videos
from mmsa.errors import printable
from mmsa.training.kinds import kind_of

_MAX_LINES = 28
_BRIEF = 5


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's diagnosis of a store.

    Args:
        findings: errors first, then warnings, then notes.
        numbers: JSON-able; everything that was counted.
    """

    findings: tuple[Finding, ...]
    numbers: dict[str, Any]

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def verdict(self) -> str:
        """How many findings there are of each severity."""
        return ", ".join(counted(len(self.of(severity)), severity) for severity in SEVERITIES)

    def going_on(self, modalities: Sequence[str]) -> list[str]:
        """The overrides of a run of these modalities that trains in spite of the errors."""
        concern = [finding for finding in self.of("error") if finding.modality in ("", *modalities)]
        unlearnt = {finding.modality for finding in concern if finding.code == "never_trained"}
        left = [modality for modality in modalities if modality not in unlearnt]
        typed = [f"dataset.modalities=[{','.join(left)}]"] if unlearnt else []
        others = any(finding.modality in ("", *left) and finding.code != "never_trained" for finding in concern)
        return [*typed, "dataset.doctor=warn"] if others else typed

    def as_json(self) -> dict[str, Any]:
        """Findings and numbers."""
        counts = {severity: len(self.of(severity)) for severity in SEVERITIES}
        return {"counts": counts, "findings": [asdict(finding) for finding in self.findings], **self.numbers}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Diagnosis:
        """The diagnosis of an `as_json`.

        Raises:
            ValueError, KeyError, AttributeError: it is none.
        """
        numbers = {name: value for name, value in content.items() if name not in ("counts", "findings")}
        return cls(TypeAdapter(tuple[Finding, ...]).validate_python(content["findings"]), numbers)


def examine(store: Store, dataset: Dataset) -> Diagnosis:
    """Measure a store in blocks, and judge it by what its data set states.

    Args:
        store: the prepared data set.
        dataset: its title, published sizes, nominal range and kinds of targets.
    """
    primary = next((name for name in dataset.stated_kinds if name in store.targets), next(iter(store.targets)))
    labels = next(iter(_columns(primary, store.targets[primary]).values()))
    modalities, contents = {}, {}
    for modality in store.features:
        measured, contents[modality] = measure_modality(store, modality, labels)
        modalities[modality] = {"meaning": meaning(store, modality), **measured}
    bounds = {primary: dataset.nominal_range}
    numbers = {
        "dataset": store.dataset,
        "title": dataset.title,
        "source": store.source_name,
        "store": store.path.name,
        "fingerprint": store.fingerprint,
        "options": store.options,
        "family": store.report.get("family"),
        "sources": {role: _source(store, role) for role in store.sources},
        **measure_rows(store, {} if store.parts else dataset.canonical_sizes),
        "origin": whose_videos(store, dataset),
        "modalities": modalities,
        "duplicates": duplicates(store, contents),
        "primary": primary,
        "targets": {
            column: measure_target(
                store, values, *bounds.get(name, (-np.inf, np.inf)), kind=kind_of(name, dataset.stated_kinds)
            )
            for name, target in store.targets.items()
            for column, values in _columns(name, target).items()
        },
        **{
            key: {reason: names for reason, names in store.report.get(key, {}).items() if names}
            for key in ("dropped", "skipped_videos")
        },
        "fold_videos_absent": store.report.get("fold_videos_absent", []),
        "drawn_vectors": store.report.get("drawn_vectors", 0),
        "reading": {
            key: store.report.get(key, {})
            for key in (
                *(
                    "ids",
                    "padding",
                    "beyond_length",
                    "beyond_length_utterances",
                    "without_steps",
                    "uneven",
                    "without_context",
                ),
                "non_finite_utterances",
            )
        },
        "card": [REMARKS[store.dataset]] if store.dataset in REMARKS else [],
    }
    return Diagnosis(tuple(judge(numbers)), numbers)


def diagnosis_lines(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis in at most 28 lines of the screen."""
    numbers = diagnosis.numbers
    lines = [f"{data_name(numbers['title'], numbers['source'])}, store {numbers['store']}: {diagnosis.verdict}"]
    for fold, part in numbers["folds"].items():
        published = f" (published {part['published']})" if part["published"] is not None else ""
        lines.append(f"{fold:<5} {part['utterances']:>6} utterances of {part['videos']} videos{published}")
    for modality, measured in list(numbers["modalities"].items())[:5]:
        steps = measured["steps"]
        of = f", {measured['meaning']}" if measured["meaning"] and len(measured["meaning"]) < 40 else ""
        lines.append(
            f"{printable(modality)}: {counted(measured['width'], 'column')}{of}; "
            f"{_number(steps['min'])} to {_number(steps['max'])} steps, median {_number(steps['median'])}"
        )
    return lines + _within(diagnosis.findings, _MAX_LINES - len(lines))


def brief(diagnosis: Diagnosis, command: str) -> list[str]:
    """The verdict and the first errors and warnings, in at most 6 lines; the command shows the others."""
    alarming = [finding for finding in diagnosis.findings if finding.severity != "note"]
    shown = [f"  {finding.severity} {finding.code}: {finding.text}" for finding in alarming]
    if len(shown) > _BRIEF:
        shown[_BRIEF - 1 :] = [f"  and {len(shown) - _BRIEF + 1} more: type {command}"]
    return [f"the doctor: {diagnosis.verdict}", *shown]


def _within(findings: Sequence[Finding], room: int) -> list[str]:
    """Findings in at most `room` lines; advice where it is more than a note."""
    lines: list[str] = []
    for i, finding in enumerate(findings):
        advised = [f"  {finding.advice}"] if finding.advice and finding.severity != "note" else []
        more = [f"{finding.severity} {finding.code}: {finding.text}", *advised]
        left = len(findings) - i
        if len(lines) + len(more) > room - (left > 1):
            return [*lines, f"and {counted(left, 'more finding')}"]
        lines += more
    return lines


def _source(store: Store, role: str) -> dict[str, Any]:
    sha256 = store.sources[role]
    known = known_file(sha256)
    return {
        "file": store.report.get("files", {}).get(role, role),
        "sha256": sha256,
        "known": known.name if known else None,
        "known_dataset": known.dataset if known else None,
    }


def _columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a target, each (N,), by name."""
    if values.ndim == 1:
        return {name: values}
    columns = values.reshape(len(values), -1).T
    named = EMOTIONS if name == "emotions" and len(columns) == len(EMOTIONS) else range(1, len(columns) + 1)
    return {f"{name} {of}": column for of, column in zip(named, columns, strict=True)}


def _number(value: float | None) -> str:
    return "no" if value is None else f"{value:g}"
