"""Reader of CMU computational sequences: words, word vectors, audio, visual and labels -> word-aligned utterances."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mmsa.data.prepare import Progress, silent
from mmsa.data.readers.align import EPSILON, mean_onto, overlapping
from mmsa.data.readers.sequence_file import SequenceFile
from mmsa.data.store import FOLDS, Prepared, Ragged
from mmsa.errors import DataError

PAUSE = "sp"
_EMOTIONS = 6


def find_sequences(folder: Path, names: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    """The file of every role that `folder` holds, by file name, else by the name of the root group.

    Args:
        folder: holds .csd files.
        names: per role the accepted names, the usual one first; the first that is there is taken.

    Raises:
        DataError: a role is not found by file name and a file cannot be read.
    """
    by_file = {path.stem: path for path in sorted(folder.glob("*.csd"))}
    by_root: dict[str, Path] = {}
    if not all(any(name in by_file for name in accepted) for accepted in names.values()):
        for path in by_file.values():
            with SequenceFile(path) as sequence:
                by_root.setdefault(sequence.name, path)
    found = {}
    for role, accepted in names.items():
        for name in accepted:
            if name in by_file or name in by_root:
                found[role] = by_file.get(name) or by_root[name]
                break
    return found


def read_sequences(
    files: Mapping[str, Path],
    *,
    fold_of: Mapping[str, str],
    keep_pauses: bool = False,
    modalities: Sequence[str] = ("text", "audio", "visual"),
    progress: Progress = silent,
) -> Prepared:
    """Align every modality to the words and cut the words into the labelled utterances.

    Each word takes the unweighted mean of the frames that overlap it, zeros where there are none; each utterance takes
    the words that overlap it, so a word may be in two. A mean that is not finite becomes 0 and is counted. A video that
    any of the sequences lacks is skipped, as in the SDK. One point differs from the SDK: a word that an utterance cuts
    keeps all its modalities, where the SDK asks each modality's frames for an overlap of their own.

    Args:
        files: path by role: words, labels, and every modality.
        fold_of: fold (train, valid, test) by video; the others are skipped and reported.
        keep_pauses: keep the steps whose word is `sp`.
        modalities: roles to read.
        progress: shown per video.

    Raises:
        DataError: a file is damaged or does not hold what its role states.
    """
    with ExitStack() as stack:
        opened = {role: stack.enter_context(SequenceFile(files[role])) for role in ("words", *modalities, "labels")}
        aligner = _Aligner(opened, tuple(modalities), keep_pauses)
        present = {role: set(sequence.videos) for role, sequence in opened.items()}
        skipped: dict[str, list[str]] = {"in no fold": sorted(present["labels"] - set(fold_of))}
        chosen = sorted(present["labels"] & set(fold_of), key=lambda video: (FOLDS.index(fold_of[video]), video))
        for role in opened:
            skipped[f"absent from {role}"] = [video for video in chosen if video not in present[role]]
            chosen = [video for video in chosen if video in present[role]]
        for video in progress(chosen, "aligning videos", len(chosen)):
            aligner.add(video, fold_of[video])
        prepared = aligner.prepared()
    prepared.report["skipped_videos"] = {reason: videos for reason, videos in skipped.items() if videos}
    prepared.report["fold_videos_absent"] = sorted(set(fold_of) - present["labels"])
    return prepared


class _Aligner:
    """Gathers the utterances of one video after the other.

    Args:
        opened: sequence by role.
        modalities: roles that become features.
        keep_pauses: keep the steps whose word is `sp`.
    """

    def __init__(self, opened: Mapping[str, SequenceFile], modalities: tuple[str, ...], keep_pauses: bool) -> None:
        self._opened = opened
        self._keep_pauses = keep_pauses
        self._ids: list[str] = []
        self._videos: list[str] = []
        self._folds: list[str] = []
        self._words: list[list[str]] = []
        self._labels: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._blocks: dict[str, list[np.ndarray]] = {modality: [] for modality in modalities}
        self._dropped: defaultdict[str, list[str]] = defaultdict(list)
        self._non_finite = Counter(dict.fromkeys(modalities, 0))
        self._non_finite_utterances = Counter(dict.fromkeys(modalities, 0))
        self._imputed = Counter(dict.fromkeys(modalities, 0))
        self._pauses_removed = 0
        self._short_words = 0

    def add(self, video: str, fold: str) -> None:
        """Align one video and keep its utterances."""
        word_intervals, tokens = self._read_words(video)
        spans, labels = self._read_labels(video)
        rows, counts = overlapping(word_intervals, spans)
        groups = np.repeat(np.arange(len(spans)), counts)
        spoken = np.array([token != PAUSE for token in tokens], dtype=bool)[rows]
        finite = np.isfinite(labels).all(axis=1)
        kept = finite[groups] & (spoken | self._keep_pauses)
        self._pauses_removed += 0 if self._keep_pauses else int((finite[groups] & ~spoken).sum())
        lengths = np.bincount(groups[kept], minlength=len(spans))
        self._note_dropped(video, spans, counts, finite, lengths)
        rows = rows[kept]
        for modality, blocks in self._blocks.items():
            blocks.append(self._align(modality, video, word_intervals, rows, groups[kept]))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        for k in np.flatnonzero(lengths):
            self._ids.append(f"{video}[{k}]")
            self._words.append([tokens[row] for row in rows[offsets[k] : offsets[k + 1]]])
        used = lengths > 0
        self._videos += [video] * int(used.sum())
        self._folds += [fold] * int(used.sum())
        self._labels.append(labels[used])
        self._lengths.append(lengths[used])

    def _align(
        self, modality: str, video: str, word_intervals: np.ndarray, rows: np.ndarray, groups: np.ndarray
    ) -> np.ndarray:
        """(P, D) float32 steps of the video's utterances, and the counts of what was mended in them."""
        intervals, features = self._opened[modality].read(video)
        if features.dtype.kind not in "fiu":
            raise DataError(f"{self._opened[modality].path}: numbers are required, got {features.dtype} in {video}.")
        blocks = self._blocks[modality]
        if blocks and blocks[0].shape[1] != features.shape[1]:
            raise DataError(
                f"{self._opened[modality].path}: video {video} has {features.shape[1]} features per frame, "
                f"the videos before it {blocks[0].shape[1]}. Is it another version's file?"
            )
        means, covered = mean_onto(intervals, features, word_intervals)
        wrong = ~np.isfinite(means)
        means[wrong] = 0.0
        wrong_steps = wrong.sum(axis=1)[rows]
        self._non_finite[modality] += int(wrong_steps.sum())
        self._non_finite_utterances[modality] += len(np.unique(groups[wrong_steps > 0]))
        self._imputed[modality] += int((~covered[rows]).sum())
        return means[rows]

    def _read_words(self, video: str) -> tuple[np.ndarray, list[str]]:
        """Intervals (n, 2) of the words, by start, and the words."""
        intervals, features = self._opened["words"].read(video)
        if features.dtype.kind not in "SUO" or features.shape[1:] != (1,):
            raise DataError(
                f"{self._opened['words'].path}: one word per interval is required, "
                f"got {features.dtype} {features.shape} in {video}."
            )
        order = np.argsort(intervals[:, 0], kind="stable")
        self._short_words += int((~(intervals[:, 1] - intervals[:, 0] > EPSILON)).sum())  # they overlap nothing
        return intervals[order], [_decoded(token) for token in features[order, 0]]

    def _read_labels(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """Intervals (n, 2) and labels (n, 1 or 7) of the utterances."""
        spans, labels = self._opened["labels"].read(video)
        wide = labels.shape[1]
        if labels.dtype.kind not in "fiu" or wide not in (1, 1 + _EMOTIONS):
            raise DataError(
                f"{self._opened['labels'].path}: 1 label column, or 7 (sentiment and six emotions), is required, "
                f"got {labels.dtype} {labels.shape} in {video}."
            )
        if self._labels and self._labels[0].shape[1] != wide:
            raise DataError(
                f"{self._opened['labels'].path}: video {video} has {wide} label columns, others another number."
            )
        return spans, labels.astype(np.float32)

    def _note_dropped(
        self, video: str, spans: np.ndarray, counts: np.ndarray, finite: np.ndarray, lengths: np.ndarray
    ) -> None:
        """Say why each label row that becomes no utterance does not."""
        for k in np.flatnonzero(lengths == 0):
            if not spans[k, 1] - spans[k, 0] > EPSILON:
                reason = "zero-length interval"
            elif not finite[k]:
                reason = "label not finite"
            else:
                reason = "only pauses" if counts[k] else "no words"
            self._dropped[reason].append(f"{video}[{k}]")

    def prepared(self) -> Prepared:
        """Everything that was added."""
        labels = np.concatenate(self._labels) if self._labels else np.zeros((0, 1), dtype=np.float32)
        targets = {"sentiment": labels[:, 0].copy()}
        if labels.shape[1] > 1:
            targets["emotions"] = labels[:, 1:].copy()
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *self._lengths]))]).astype(np.int64)
        features = {}
        for modality in self._blocks:
            blocks = self._blocks[modality] or [np.zeros((0, 1), dtype=np.float32)]
            features[modality] = Ragged(np.concatenate(blocks), offsets)
            self._blocks[modality] = []  # the largest data sets fit twice in memory only one modality at a time
        report = {
            "dropped": dict(self._dropped),
            "non_finite": dict(self._non_finite),
            "non_finite_utterances": dict(self._non_finite_utterances),
            "steps_without_frames": dict(self._imputed),
            "pauses_removed": self._pauses_removed,
            "words_too_short": self._short_words,
        }
        return Prepared(self._ids, self._videos, self._folds, targets, features, self._words, report)


def _decoded(token: bytes | str) -> str:
    return token.decode("utf-8", errors="replace") if isinstance(token, bytes) else str(token)
