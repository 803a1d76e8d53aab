"""One CMU computational sequence (.csd, HDF5): /<root>/data/<video>/{intervals, features}, /<root>/metadata/<key>."""

from __future__ import annotations

import json
import math
import shlex
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from mmsa.data.allowance import Allowance
from mmsa.data.hdf5 import DAMAGE, array, entry, opened, read
from mmsa.data.naming import EMOTIONS
from mmsa.data.prepare import readable
from mmsa.errors import DataError, printable
from mmsa.readers.mistaken import HDF5_START, mistaken

# The fields that the SDK asks for on standard input when one is absent. The last one is an accident
# of its template (a missing comma joins two names), but it is asked for like the others.
_METADATA = {
    "root name": "",
    "computational sequence description": "",
    "computational sequence version": "1.0",
    "dimension names": None,
    "alignment compatible": True,
    "dataset name": "",
    "dataset version": "1.0",
    "creator": "mmsa",
    "contact": "none",
    "featureset bib citation": "none",
    "dataset bib citation": "none",
    "md5": None,
    "dimension namescomputational sequence version": None,
}


def write_sequence(path: Path, name: str, videos: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write one computational sequence with complete metadata, so that the SDK loads it without asking.

    Args:
        path: the file, replaced if it exists.
        name: root group.
        videos: per video its intervals (n, 2) in seconds and its features (n, d), floats or byte strings.
    """
    with h5py.File(path, "w") as file:
        for video, (intervals, features) in videos.items():
            group = file.create_group(f"{name}/data/{video}")
            group.create_dataset("intervals", data=intervals)
            group.create_dataset("features", data=features)
        identity = str(uuid.uuid5(uuid.NAMESPACE_OID, name))  # fixed, so that equal content makes equal bytes
        metadata = {**_METADATA, "root name": name, "dataset name": name, "uuid": identity}
        for key, value in metadata.items():
            file.create_dataset(f"{name}/metadata/{key}", data=[json.dumps(value)], dtype=h5py.string_dtype())


_SHOWN = 8
_SINGLE = (2,)  # intervals of a video of one frame whose arrays lack the axis of frames: the SDK takes it as well
_METADATA_CACHE = 1 << 17


class SequenceFile:
    """An open computational sequence, whatever the name of its root group; no link to another file is followed.

    Args:
        path: the .csd file.

    Raises:
        DataError: the file is missing, truncated, or not a computational sequence.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path} is no file. Put the computational sequence there.")
        try:
            self._file = opened(path)
        except OSError as error:
            with readable(path):
                instead = mistaken(path, HDF5_START)
            if instead is not None:
                raise DataError(instead) from error
            reason = str(error).strip().split("\n")[0]
            raise DataError(f"{path} cannot be read as HDF5: {reason}. Download it again.") from error
        # HDF5 would keep up to 32 MiB of what it knows about groups, of which each is opened once.
        cache = self._file.id.get_mdc_config()
        cache.set_initial_size, cache.initial_size, cache.min_size, cache.max_size = True, *(_METADATA_CACHE,) * 3
        self._file.id.set_mdc_config(cache)
        roots: list[str] = []
        try:
            roots = [str(root) for root in self._file]
            if len(roots) != 1:
                raise KeyError(f"{len(roots)} root groups")
            self.name = roots[0]
            self._data = entry(entry(self._file, self.name), "data")
            if not isinstance(self._data, h5py.Group):
                raise ValueError("data is no group")
            self.videos = [str(video) for video in self._data]
        except DAMAGE as error:
            self._file.close()
            held = printable(", ".join(roots[:_SHOWN])[:200]) or "none"
            raise DataError(
                f"{path} is not a computational sequence: one root group holding `data` is required, got {held}."
            ) from error
        if odd := next((name for name in (self.name, *self.videos) if not name.isprintable()), None):
            self._file.close()
            raise DataError(f"{path} holds a name that cannot be printed: {printable(odd[:80])}. Download it again.")

    def __enter__(self) -> SequenceFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @cached_property
    def width(self) -> int:
        """Features per frame of the first video that has a frame; 0 if none has.

        Raises:
            DataError: an entry is damaged.
        """
        return next(filter(None, map(self._width_of, self.videos)), 0)

    def _width_of(self, video: str) -> int:
        """Features per frame of a video; 0 if it has no frame."""
        try:
            group = entry(self._data, video)
            shape = array(group, "features").shape
            if array(group, "intervals").shape == _SINGLE:
                shape = (1, *shape)
        except DAMAGE as error:
            raise self._unreadable(video, error) from error
        return math.prod(shape[1:]) if shape and shape[0] else 0

    def uneven(self, what: str) -> DataError:
        """The error for videos of different numbers of columns: it names those that differ from most.

        Args:
            what: the columns.
        """
        widths = {video: width for video in self.videos if (width := self._width_of(video))}
        usual = Counter(widths.values()).most_common(1)[0][0]
        odd = [video for video, width in widths.items() if width != usual]
        named = ", ".join(f"video {video[:80]} has {widths[video]}" for video in odd[:_SHOWN])
        more = f" and {len(odd) - _SHOWN} more differ" if len(odd) > _SHOWN else ""
        said = f"{self.path}: {named}{more} {what}, {len(widths) - len(odd)} others {usual}. "
        if len(odd) > _SHOWN:
            return DataError(f"{said}Are they of another version's file? Download it again.")
        place, group, videos = map(json.dumps, (str(self.path), f"{self.name}/data", odd))
        leave_out = f'import h5py; data = h5py.File({place}, "r+")[{group}]; [data.pop(video) for video in {videos}]'
        return DataError(
            f"{said}A video that one file lacks is skipped: take it out of a copy of this file, or of this one:\n"
            f"  type python -c {shlex.quote(leave_out)}"
        )

    def read(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """One video's intervals (n, 2) float64 in seconds and features (n, d) as stored; n may be 0.

        Raises:
            DataError: the entry is damaged or its shapes disagree.
        """
        try:
            group, allowance = entry(self._data, video), Allowance(self.path, self._file.id.get_filesize())
            intervals, features = (read(array(group, name), allowance) for name in ("intervals", "features"))
        except DAMAGE as error:
            raise self._unreadable(video, error) from error
        if intervals.size == 0 and features.size == 0:  # in any shape, without the number of features
            return np.zeros((0, 2)), np.zeros((0, self.width), dtype=features.dtype)
        if intervals.shape == _SINGLE:
            intervals, features = intervals[None], features[None]
        elif features.ndim == 1:
            features = features[:, None]
        if intervals.ndim != 2 or intervals.shape[1] != 2 or features.shape[:1] != intervals.shape[:1]:
            raise DataError(
                f"{self.path}: video {video} needs intervals (n, 2) and features (n, d), "
                f"got {intervals.shape} and {features.shape}."
            )
        if intervals.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: video {video} needs intervals in seconds, got {intervals.dtype}.")
        return intervals.astype(np.float64), features.reshape(len(features), math.prod(features.shape[1:]))

    def frames(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """As `read`, of a sequence of numbers, as many in every frame.

        Raises:
            DataError: they are not so.
        """
        intervals, features = self.read(video)
        if features.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: numbers are required, got {features.dtype} in {video}.")
        if not self.width:
            raise DataError(f"{self.path} has no frame in any video. Download the file again.")
        if features.shape[1] != self.width:
            raise self.uneven("features per frame")
        return intervals, features

    def words(self, video: str) -> tuple[np.ndarray, list[str]]:
        """As `read`, of a sequence of words.

        Raises:
            DataError: they are none.
        """
        intervals, features = self.read(video)
        if len(features) and (features.dtype.kind not in "SUO" or features.shape[1] != 1):
            raise DataError(
                f"{self.path}: one word per interval is required, got {features.dtype} {features.shape} in {video}."
            )
        tokens = [_decoded(token) for token in features.ravel()]
        if any("\0" in token for token in tokens):
            raise DataError(f"{self.path}: a word of {video} holds a zero character. Is it damaged?")
        return intervals, tokens

    def labels(self, video: str, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `read`, of a sequence of labels, in float32.

        Args:
            video: its video.
            columns: their names; () takes 1 column, or 7 (sentiment and six emotions).

        Raises:
            DataError: there are other columns.
        """
        spans, labels = self.read(video)
        wide = labels.shape[1]
        accepted = (len(columns),) if columns else (1, 1 + len(EMOTIONS))
        if len(labels) and (labels.dtype.kind not in "fiu" or wide not in accepted):
            stated = f"{len(columns)} label columns ({', '.join(columns)}) are"
            required = stated if columns else "1 label column, or 7 (sentiment and six emotions), is"
            raise DataError(f"{self.path}: {required} required, got {labels.dtype} {labels.shape} in {video}.")
        if wide != self.width:
            raise self.uneven("label columns")
        return spans, labels.astype(np.float32)

    def _unreadable(self, video: str, error: Exception) -> DataError:
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        return DataError(f"{self.path}: video {video[:80]} cannot be read ({reason}). Download the file again.")


def _decoded(token: bytes | str) -> str:
    text = token.decode("utf-8", errors="replace") if isinstance(token, bytes) else str(token)
    return sys.intern(text)  # a corpus has hundreds of thousands of words, and some thousand different ones
