"""Preparing a data set once: hashes of the sources, the build under a lock, its progress, and the integrity summary."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import Progress as RichProgress

from mmsa.data.store import FOLDS, Prepared, Store, temporary_name, write_store
from mmsa.errors import DataError, printable
from mmsa.files import stale
from mmsa.locks import locked

_HASHES = "source-hashes.json"
_CHUNK = 1 << 22
_SHOWN = 5
_NAMED = 3


class Progress(Protocol):
    """Passes items through and may show how far it is."""

    def __call__(self, items: Iterable[Any], title: str, total: int) -> Iterator[Any]: ...


def announce(line: str) -> None:
    """One line to standard error."""
    print(line, file=sys.stderr)  # noqa: T201  (bars take what is printed, and let it stand above them)


def silent(items: Iterable[Any], title: str, total: int) -> Iterator[Any]:
    """The Progress that shows nothing."""
    return iter(items)


@contextmanager
def progress_bar(shown: bool) -> Iterator[Progress]:
    """A Progress that draws bars on a terminal's standard error and nothing elsewhere."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal and sys.stderr.isatty()):
        yield silent
        return
    with RichProgress(console=console, transient=True) as bars:
        yield lambda items, title, total: iter(bars.track(items, total=total, description=title))


def hash_files(files: Mapping[str, Path], folder: Path, progress: Progress = silent) -> dict[str, str]:
    """SHA-256 of every file by its role; a file whose path, size and times are known is not read again.

    Args:
        files: path by role.
        folder: where the known hashes are kept.
        progress: shown per 4 MiB.

    Raises:
        DataError: a file cannot be read.
    """
    cache = folder / _HASHES
    known = _known_hashes(cache)
    hashes = {}
    for role, path in files.items():
        stat = path.stat()
        place = str(path.resolve())
        # The time of the last change to the entry too: a copy may bring its own time of modification.
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = known.get(place)
        if entry is None or entry[:-1] != state:
            with readable(path):
                entry = known[place] = [*state, _sha256(path, stat.st_size, progress)]
            with suppress(OSError):  # a folder that may only be read; it only saves time
                _keep_hash(cache, place, entry)
        hashes[role] = entry[-1]
    return hashes


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """The error for a file that cannot be read, with the command that helps."""
    try:
        yield
    except OSError as error:
        allow = f"chmod u+r {shlex.quote(str(path))}, or " if isinstance(error, PermissionError) else ""
        raise DataError(
            f"{path} cannot be read: {error.strerror}.\n  type {allow}dataset.source=PATH of a copy"
        ) from error


def _keep_hash(cache: Path, place: str, entry: list[Any]) -> None:
    with locked(_lock_file(cache)) as alone:
        _clear_leftovers(cache, alone)
        temporary = temporary_name(cache)
        temporary.write_text(json.dumps({**_known_hashes(cache), place: entry}, indent=0))
        os.replace(temporary, cache)


def _known_hashes(cache: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads(cache.read_text())
    except (FileNotFoundError, ValueError):  # none yet, or cut short: it only saves time
        return {}
    return known if isinstance(known, dict) else {}


def _sha256(path: Path, size: int, progress: Progress) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in progress(iter(lambda: file.read(_CHUNK), b""), f"hashing {path.name}", -(-size // _CHUNK)):
            digest.update(chunk)
    return digest.hexdigest()


def build_once(
    path: Path,
    build: Callable[[], Prepared],
    *,
    dataset: str,
    sources: dict[str, str],
    options: dict[str, Any],
) -> Store:
    """Open the store at `path`; make it first if it is absent, in one process at a time.

    Args:
        path: the store, in an existing folder.
        build: reads the source.
        dataset, sources, options: as of `store_fingerprint`.
    """
    if path.exists():
        return Store.open(path)
    with locked(_lock_file(path)) as alone:
        if not path.exists():  # another process may have made it while this one waited
            _clear_leftovers(path, alone)
            write_store(path, build(), dataset=dataset, sources=sources, options=options)
    return Store.open(path)


def kept_stores(
    folder: Path, dataset: str, options: Mapping[str, Any], of_family: Mapping[str, Any], glove: str | None
) -> list[Store]:
    """The stores of a data set in a folder, the newest first.

    Args:
        folder: of the stores.
        dataset: its name.
        options: the preparation options that they have.
        of_family: those of the stores that were made from the files of a family.
        glove: SHA-256 of the GloVe file that they have, or None.

    Raises:
        DataError: none can be opened, and one is damaged or of an older version.
    """
    kept = []
    unreadable = None
    for path in folder.glob(f"{dataset}-*.h5"):
        try:
            store = Store.open(path)
        except DataError as error:  # no obstacle to using another
            unreadable = error
            continue
        asked = of_family if "family" in store.report else options
        if store.dataset == dataset and store.options == asked and store.sources.get("glove") == glove:
            kept.append((path.stat().st_mtime_ns, path.name, store))
    if not kept and unreadable is not None:
        raise unreadable
    return [store for *_, store in sorted(kept, key=lambda entry: entry[:2], reverse=True)]


def _lock_file(path: Path) -> Path:
    # Where a file system has no locks, two builders waste time, but each renames a whole file.
    return path.with_name(f".{path.name}.lock")


def _clear_leftovers(path: Path, alone: bool) -> None:
    """Remove the leftovers of killed writers of a file; without a lock only those too old to be in use."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        if alone or stale(leftover):
            leftover.unlink(missing_ok=True)


def add_integrity(prepared: Prepared, *, nominal_range: tuple[float, float], target: str = "sentiment") -> None:
    """Add to the report what every reader shares: sizes per fold, all-zero modalities, labels beyond the range.

    Args:
        prepared: rows of every fold; its report is extended.
        nominal_range: lowest and highest nominal label.
        target: the labels.
    """
    folds = np.array(prepared.folds, dtype=str)
    videos = np.array(prepared.videos, dtype=str)
    labels = prepared.targets[target]
    low, high = nominal_range
    beyond = (labels < low - 1e-6) | (labels > high + 1e-6)
    prepared.report.update(
        utterances={fold: int((folds == fold).sum()) for fold in FOLDS},
        videos={fold: len(set(videos[folds == fold].tolist())) for fold in FOLDS},
        all_zero={m: int((~ragged.touched(ragged.filled_steps())).sum()) for m, ragged in prepared.features.items()},
        beyond_nominal={
            "count": int(beyond.sum()),
            "nominal_range": [low, high],
            "largest": float(np.abs(labels[beyond]).max()) if beyond.any() else None,
        },
    )


def check_labels(prepared: Prepared, target: str, bound: tuple[float, float], source: Path, title: str) -> None:
    """Refuse labels beyond the bound."""
    labels, (low, high) = prepared.targets[target], bound
    refused = (labels < low - 1e-6) | (labels > high + 1e-6)
    if refused.any():
        first = int(refused.argmax())
        raise DataError(
            f"dataset.source={source}: {int(refused.sum())} labels lie outside [{low:g}, {high:g}], the bound of "
            f"{title}; the first is {labels[first]:g} of {prepared.ids[first]}. Is it another data set's file?"
        )


def describe(store: Store, kinds: Mapping[str, str]) -> list[str]:
    """A summary of a store in at most 15 short lines.

    Args:
        store: the prepared data set.
        kinds: kind of each target.
    """
    report, canonical = store.report, store.report.get("canonical", {})
    lines = [f"{store.title}, data {store.fingerprint}: {store.path}"]
    for fold in FOLDS:
        published = f" (published {canonical[fold]})" if fold in canonical else ""
        videos = [video for video, of in zip(store.videos, store.folds, strict=True) if of == fold]
        lines.append(f"{fold:<5} {len(videos):>6} utterances of {len(set(videos))} videos{published}")
    widths = ", ".join(f"{modality} {ragged.width}" for modality, ragged in store.features.items())
    targets = [f"{name} ({kind})" for name, kind in kinds.items()]
    more = f" and {len(targets) - _SHOWN} more" if len(targets) > _SHOWN else ""
    lines.append(f"targets and their kinds: {', '.join(targets[:_SHOWN])}{more}")
    lines.append(f"widths: {widths or 'no features'}")
    for ragged in list(store.features.values())[:1]:
        steps = ragged.lengths
        lines.append(f"steps per utterance: {steps.min()} to {steps.max()}, median {np.median(steps):g}")
    if "glove" in report:
        lines += _coverage(report["glove"], report.get("files", {}).get("glove", "a file"))
    if report.get("drawn_vectors"):
        lines.append(drawn_vectors_line(report["drawn_vectors"]))
    lines.append(f"values that were not finite, set to 0: {listed(report.get('non_finite', {}))}")
    lines.append(f"utterances with nothing but zeros: {listed(report.get('all_zero', {}))}")
    if beyond := report.get("beyond_nominal"):
        low, high = beyond["nominal_range"]
        largest = f", the largest {beyond['largest']:g}" if beyond["largest"] is not None else ""
        lines.append(f"labels beyond [{low:g}, {high:g}]: {beyond['count']}{largest}")
    lines.append(f"dropped utterances: {listed_names(report.get('dropped', {}))}")
    if any((skipped := report.get("skipped_videos", {})).values()):
        lines.append(f"skipped videos: {listed_names(skipped)}")
    if report.get("pauses_removed"):
        lines.append(f"pauses removed: {report['pauses_removed']}")
    return lines


def drawn_vectors_line(number: int) -> str:
    """A note on text whose source has words and no vectors."""
    return (
        f"text: the source has no word vectors; each of its {number} different words has a fixed random one, "
        "without meaning (dataset.glove=FILE gives GloVe's)"
    )


def _coverage(glove: Mapping[str, Any], file: str) -> list[str]:
    """How much of the corpus has a word vector, and which words are most often without one."""
    tokens, types = glove["tokens"], glove["types"]
    lines = [
        f"word vectors of {file}: {glove['tokens_found']} of {tokens} words "
        f"({glove['tokens_found'] / max(1, tokens):.1%}), {glove['types_found']} of {types} different ones "
        f"({glove['types_found'] / max(1, types):.1%})"
    ]
    if glove["most_frequent_absent"]:
        lines.append(f"most frequent without: {listed(dict(glove['most_frequent_absent']))}")
    return lines


def listed(counts: Mapping[str, int]) -> str:
    """Names with their counts."""
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def listed_names(groups: Mapping[str, Sequence[str]]) -> str:
    """How many there are of each group, and the first of them by name."""
    parts = []
    for reason, names in groups.items():
        first = ", ".join(printable(str(name))[:60] for name in names[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts += [f"{reason} {len(names)} ({first}{more})"] if first else []
    return ", ".join(parts) or "none"
