"""POM: 903 film reviews of one speaker each, rated as a whole in sentiment, persuasion and personality."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.dataset.dataset import Dataset, Found
from mmsa.dataset.sequences import SDK_ORIGIN, Sequences, read_aligned
from mmsa.errors import DataError
from mmsa.readers.computational_sequences import find_sequences
from mmsa.readers.sequence_file import SequenceFile, write_sequence

_MORE_LABELS = {
    "persuasion": ("POM_Labels_Video_Level_Persuasion",),
    "trait": ("POM_Labels_Video_Level_Personality_Traits",),
}
"""Further sequences of labels: the target's name, with a number where there are several columns -> names."""
_STEM = "POM_Labels"


class Pom(Dataset):
    """POM with the SDK's standard folds of 600, 100 and 203 videos; a whole video is an utterance.

    The targets are "sentiment" and, where their sequences are there, "persuasion" and "trait". The SDK does not name
    the columns of these, so several are numbered in the order of the file: "trait_1", "trait_2". A video that one of
    the sequences lacks is skipped and reported. The SDK states no scale: labels outside 1 to 7 are kept and reported.

    Reference: Park et al., Computational analysis of persuasiveness in social multimedia, ICMI 2014.
    """

    name = "pom"
    title = "POM"
    nominal_range = (1.0, 7.0)
    stated_bound = (-float("inf"), float("inf"))
    kinds: ClassVar[Mapping[str, str]] = {"sentiment": "number"}
    label_columns: ClassVar[tuple[str, ...]] = ("sentiment",)
    canonical_sizes: ClassVar[Mapping[str, int]] = {"train": 600, "valid": 100, "test": 203}
    format = Sequences()
    sdk_name = "POM"
    sdk_folds: ClassVar[Mapping[str, int]] = {"train": 600, "valid": 100, "test": 203}
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "words": ("POM_TimestampedWords",),
        "text": ("POM_TimestampedWordVectors",),
        "audio": ("POM_COVAREP",),
        "visual": ("POM_Facet_42", "POM_Facet_41", "POM_OpenFace2"),
        "labels": ("POM_Labels_Video_Level_Sentiment",),
    }
    origin = f"{SDK_ORIGIN}."

    def may_have(self, target: str) -> bool:
        """The sequences of the source decide."""
        return True

    def find(self, source: Path) -> Found:
        """Recognise a source, the further sequences of labels with it."""
        found = super().find(source)
        more = find_sequences(source, _MORE_LABELS) if "labels" in found.files else {}
        if not more:
            return found
        labels = {"labels": found.files["labels"], **more}

        def read(folder: Path, progress: Progress) -> Prepared:
            with TemporaryDirectory(prefix=f".{self.name}.", dir=folder) as place:
                joined = Path(place, f"{_STEM}.csd")
                columns, lacking = _join(labels, joined)
                prepared = read_aligned(self, source, {**found.files, "labels": joined}, columns, folder, progress)
            prepared.report["skipped_videos"] |= {f"absent from {role}": sorted(ids) for role, ids in lacking.items()}
            return prepared

        return replace(found, files={**found.files, **more}, read=read)


def _join(files: Mapping[str, Path], path: Path) -> tuple[tuple[str, ...], dict[str, set[str]]]:
    """Write the columns of several sequences side by side: the columns' names, and the videos that a sequence lacks.

    Raises:
        DataError: a file is damaged, or labels a video in more than one interval.
    """
    with ExitStack() as stack:
        opened = {role: stack.enter_context(SequenceFile(file)) for role, file in files.items()}
        first = opened["labels"]
        videos = set(first.videos)
        lacking = {role: videos - set(sequence.videos) for role, sequence in opened.items()}
        shared = sorted(videos.difference(*lacking.values()))
        rows = {}
        for video in shared:
            read = {role: sequence.read(video) for role, sequence in opened.items()}
            for role, (_, values) in read.items():
                wide = opened[role].width
                if values.shape != (1, wide) or values.dtype.kind not in "fiu" or (role == "labels" and wide != 1):
                    columns = 1 if role == "labels" else wide
                    raise DataError(
                        f"{files[role]}: video {video} needs one row of {columns} labels, got {values.dtype} "
                        f"{values.shape}.\n  type rm {files[role]}, or download it again"
                    )
            labels = np.concatenate([values.astype(np.float32) for _, values in read.values()], axis=1)
            rows[video] = (read["labels"][0], labels)
        names = [name for role, sequence in opened.items() for name in _columns(role, sequence.width)]
    write_sequence(path, _STEM, rows)
    return tuple(names), {role: lost for role, lost in lacking.items() if lost}


def _columns(role: str, width: int) -> list[str]:
    if role == "labels":
        return ["sentiment"]
    return [role] if width == 1 else [f"{role}_{number}" for number in range(1, width + 1)]
