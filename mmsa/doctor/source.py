"""What the doctor says of a source itself: what it is, and what its reader had to take for granted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmsa.doctor.finding import Finding, counted, listed, named
from mmsa.doctor.known_files import PUBLISHER


def of_source(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    """Known files, and what was taken for granted of ids, padding, lengths and modalities.

    Args:
        numbers: of `mmsa.doctor.examination.Diagnosis`.
    """
    yield from _of_files(numbers)
    yield from _of_ids(numbers["reading"]["ids"])
    yield from _of_steps(numbers["reading"])


def _of_files(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    for source in numbers["sources"].values():
        if source["known"] is None:
            continue
        if source["known_dataset"] != numbers["dataset"]:
            yield Finding(
                "warning",
                "other_data_set",
                f"{source['file']} is {source['known']} by the beginning of its SHA-256, and was read as "
                f"{numbers['title']}.",
                f"Type mmsa prepare {source['known_dataset']} --source PATH",
            )
        else:
            yield Finding(
                "note",
                "known_file",
                f"{source['file']} is {source['known']}: its SHA-256 begins as {PUBLISHER} lists it.",
            )


def _of_ids(odd: Mapping[str, int]) -> Iterator[Finding]:
    unseen = "each counts as a video of its own, so that a video in two folds would not be seen"
    if count := odd.get("absent", 0):
        yield Finding(
            "warning",
            "ids_absent",
            f"{counted(count, 'utterance')} without an id: {unseen}.",
            "Give every utterance an id such as video$_$3 in the source.",
        )
    if count := odd.get("own_video", 0):
        yield Finding("note", "ids_without_video", f"{counted(count, 'id')} without a video's name: {unseen}.")
    if count := odd.get("numbered_by_start", 0):
        text = f"{counted(count, 'id')} without a segment's number: they are numbered by their start in the video."
        yield Finding("note", "numbered_by_start", text)


def _of_steps(reading: Mapping[str, Any]) -> Iterator[Finding]:
    for modality, sides in reading["padding"].items():
        if assumed := [fold for fold, side in sides.items() if side.endswith("(assumed)")]:
            side = sides[assumed[0]].removesuffix(" (assumed)")
            text = f"{modality} is taken to be padded on the {side}, as its format has it; its rows do not tell"
            yield Finding("note", "padding_assumed", f"{text} ({counted(len(assumed), 'fold')}).")
    if beyond := {modality: count for modality, count in reading["beyond_length"].items() if count}:
        yield Finding(
            "warning",
            "beyond_length",
            f"steps with values beyond the stated lengths were left out: {listed(beyond)}.",
            "Look whether the lengths belong to these arrays; what a transformer makes of padding looks the same.",
        )
    if reading["without_steps"]:
        text = f"{named(reading['without_steps'])}: 0 steps in all utterances, so that the store does not hold it."
        yield Finding("warning", "without_steps", text)
    if lacking := {modality: count for modality, count in reading["without_context"].items() if count}:
        yield Finding("note", "without_context", f"punchlines without a context: {listed(lacking)}.")
