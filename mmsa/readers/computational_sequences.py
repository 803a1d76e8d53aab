"""Reader of CMU computational sequences: words, word vectors, audio, visual and labels -> word-aligned utterances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mmsa.data.allowance import Allowance
from mmsa.data.prepare import Progress, silent
from mmsa.data.ragged import Ragged, offsets_of
from mmsa.data.store import FOLDS, PAUSE, Prepared
from mmsa.errors import ConfigError, DataError
from mmsa.readers.align import EPSILON, mean_onto, overlapping
from mmsa.readers.segments import are_segments, read_segments, targets_of
from mmsa.readers.sequence_file import SequenceFile
from mmsa.readers.spool import Spool

_ROW = 64  # bytes of memory of a row or a word, about, without its text


def find_sequences(
    folder: Path, names: Mapping[str, tuple[str, ...]], chosen: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Path]:
    """The file of every role that `folder` holds, by file name, else by the name of the root group.

    Args:
        folder: holds .csd files.
        names: per role the accepted names, the usual one first; the first that is there is taken.
        chosen: per role the one name to take, any that is there.

    Raises:
        ConfigError: a sequence is chosen for an unknown role.
        DataError: a chosen sequence is missing; or a role is not found by file name and a file cannot be read.
    """
    if unknown := sorted(chosen.keys() - names.keys()):
        raise ConfigError(
            f"dataset.feature_sets is refused: {', '.join(unknown)} is none of {', '.join(names)}.\n"
            f"  type dataset.feature_sets={{{next(iter(names))}:{chosen[unknown[0]]}}} or another of them"
        )
    asked = {role: (chosen[role],) if role in chosen else accepted for role, accepted in names.items()}
    by_file = {path.stem: path for path in sorted(folder.glob("*.csd")) if path.is_file()}
    by_root: dict[str, Path] = {}
    if not all(any(name in by_file for name in accepted) for accepted in asked.values()):
        for path in by_file.values():
            with SequenceFile(path) as sequence:
                by_root.setdefault(sequence.name, path)
    held = by_root | by_file
    present = {role: [name for name in accepted if name in held] for role, accepted in asked.items()}
    for role, name in chosen.items():
        if not present[role]:
            raise DataError(
                f"{folder} has no sequence {name}, which dataset.feature_sets chooses for {role}. "
                f"It has: {', '.join(sorted(held)) or 'none'}.\n"
                f"  type dataset.feature_sets={{{role}:NAME}} with one of them"
            )
    return {role: held[there[0]] for role, there in present.items() if there}


def read_sequences(
    files: Mapping[str, Path],
    *,
    fold_of: Mapping[str, str],
    keep_pauses: bool = False,
    modalities: Sequence[str] = ("text", "audio", "visual"),
    label_columns: Sequence[str] = (),
    folder: Path | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Align every modality to the words and cut the words into the labelled utterances.

    Each word takes the unweighted mean of the frames that overlap it, zeros where there are none; each utterance takes
    the words that overlap it, so a word may be in two. A mean that is not finite becomes 0 and is counted. A video that
    any of the sequences lacks is skipped, as in the SDK. One video is in memory at a time; the features of the result
    are mapped from a file without a name.

    Where the SDK's modalities would no longer share their steps, this differs from it: a word that an utterance cuts
    keeps all its modalities, and words that overlap keep their order in all of them, where the SDK asks and sorts by
    the frames of each modality. An interval that ends before it starts counts for nothing.

    Files that the SDK has aligned (`mmsa.readers.segments`) are read as they are.

    Args:
        files: path by role: words, labels, and every modality.
        fold_of: fold (train, valid, test) by video; the others are skipped and reported.
        keep_pauses: keep the steps whose word is `sp`.
        modalities: roles to read.
        label_columns: a name for every label column, each of which becomes a target (N,); () takes 1 column as
            `sentiment`, 7 as `sentiment` and `emotions` (N, 6).
        folder: has room for the aligned steps until they are in the store; None takes the system's temporary folder.
        progress: shown per video.

    Raises:
        DataError: a file is damaged or does not hold what its role states.
    """
    with ExitStack() as stack:
        opened = {role: stack.enter_context(SequenceFile(files[role])) for role in ("words", *modalities, "labels")}
        spools = {modality: stack.enter_context(Spool(folder)) for modality in modalities}
        size = sum(sequence.path.stat().st_size for sequence in opened.values())
        allowance = Allowance(files["words"].parent, size)
        present = {role: set(sequence.videos) for role, sequence in opened.items()}
        if are_segments(opened, fold_of):
            return read_segments(opened, fold_of, keep_pauses, label_columns, allowance.pay, progress)
        skipped: dict[str, list[str]] = {"in no fold": sorted(present["labels"] - set(fold_of))}
        if present["labels"] and not present["labels"] & set(fold_of):
            raise DataError(
                f"{files['labels']}: none of {len(present['labels'])} videos is in the published folds: "
                f"{', '.join(skipped['in no fold'][:3])}.\n  type dataset=NAME with its data set"
            )
        chosen = sorted(present["labels"] & set(fold_of), key=lambda video: (FOLDS.index(fold_of[video]), video))
        for role in opened:
            skipped[f"absent from {role}"] = [video for video in chosen if video not in present[role]]
            chosen = [video for video in chosen if video in present[role]]
        aligner = _Aligner(opened, spools, keep_pauses, tuple(label_columns), allowance.pay)
        for video in progress(chosen, "aligning videos", len(chosen)):
            aligner.add(video, fold_of[video])
        prepared = aligner.prepared()
    prepared.report["skipped_videos"] = {reason: videos for reason, videos in skipped.items() if videos}
    prepared.report["fold_videos_absent"] = sorted(set(fold_of) - present["labels"])
    return prepared


@dataclass
class _Aligner:
    """Gathers the utterances of one video after the other; the steps of each modality go into its spool."""

    opened: Mapping[str, SequenceFile]
    spools: Mapping[str, Spool]
    keep_pauses: bool
    label_columns: tuple[str, ...]
    pay: Callable[[float], None]

    def __post_init__(self) -> None:
        self.ids: list[str] = []
        self.videos: list[str] = []
        self.folds: list[str] = []
        self.words: list[list[str]] = []
        self.labels: list[np.ndarray] = []
        self.lengths: list[np.ndarray] = []
        by_modality = ("non_finite", "steps_without_frames")
        self.report: dict[str, Any] = {"dropped": {}, **{key: dict.fromkeys(self.spools, 0) for key in by_modality}}
        self.report["non_finite_utterances"] = {modality: [] for modality in self.spools}
        self.report |= {"pauses_removed": 0, "words_too_short": 0}

    def add(self, video: str, fold: str) -> None:
        """Align one video and keep its utterances."""
        word_intervals, tokens = self.opened["words"].words(video)
        order = np.argsort(word_intervals[:, 0], kind="stable")
        word_intervals, tokens = word_intervals[order], [tokens[k] for k in order]
        too_short = ~(word_intervals[:, 1] - word_intervals[:, 0] > EPSILON)  # they overlap nothing
        self.report["words_too_short"] += int(too_short.sum())
        spans, labels = self.opened["labels"].labels(video, self.label_columns)
        self.pay((len(video) + _ROW) * len(spans))
        rows, counts = overlapping(word_intervals, spans, self.pay)
        groups = np.repeat(np.arange(len(spans)), counts)
        spoken = np.array([token != PAUSE for token in tokens], dtype=bool)[rows]
        finite = np.isfinite(labels).all(axis=1)
        kept = finite[groups] & (spoken | self.keep_pauses)
        self.report["pauses_removed"] += 0 if self.keep_pauses else int((finite[groups] & ~spoken).sum())
        lengths = np.bincount(groups[kept], minlength=len(spans))
        for k in np.flatnonzero(lengths == 0):
            if not spans[k, 1] - spans[k, 0] > EPSILON:
                reason = "zero-length interval"
            elif not finite[k]:
                reason = "label not finite"
            else:
                reason = "only pauses" if counts[k] else "no words"
            self.report["dropped"].setdefault(reason, []).append(f"{video}[{k}]")
        rows = rows[kept]
        self.pay(sum(_ROW + len(tokens[row]) for row in rows))
        for modality, spool in self.spools.items():
            spool.append(self._align(modality, video, word_intervals, rows, groups[kept]))
        offsets = offsets_of(lengths)
        for k in np.flatnonzero(lengths):
            self.ids.append(f"{video}[{k}]")
            self.words.append([tokens[row] for row in rows[offsets[k] : offsets[k + 1]]])
        used = lengths > 0
        self.videos += [video] * int(used.sum())
        self.folds += [fold] * int(used.sum())
        self.labels.append(labels[used])
        self.lengths.append(lengths[used])

    def _align(
        self, modality: str, video: str, word_intervals: np.ndarray, rows: np.ndarray, groups: np.ndarray
    ) -> np.ndarray:
        """(P, D) float32 steps of the video's utterances, and the counts of values set to 0."""
        intervals, features = self.opened[modality].frames(video)
        width = features.shape[1]
        self.pay(features.nbytes + 4 * width * len(rows))
        means, covered = mean_onto(intervals, features, word_intervals, self.pay)
        wrong = ~np.isfinite(means)
        means[wrong] = 0.0
        wrong_steps = wrong.sum(axis=1)[rows]
        self.report["non_finite"][modality] += int(wrong_steps.sum())
        mended = np.unique(groups[wrong_steps > 0]).tolist()
        self.report["non_finite_utterances"][modality] += [f"{video}[{k}]" for k in mended]
        self.report["steps_without_frames"][modality] += int((~covered[rows]).sum())
        return means[rows]

    def prepared(self) -> Prepared:
        """Everything that was added."""
        targets = targets_of(self.labels, self.label_columns, self.opened["labels"].path)
        offsets = offsets_of(np.concatenate([[], *self.lengths]))
        features = {modality: Ragged(spool.array(), offsets) for modality, spool in self.spools.items()}
        return Prepared(self.ids, self.videos, self.folds, targets, features, self.words, self.report)
