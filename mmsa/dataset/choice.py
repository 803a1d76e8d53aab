"""The prepared store for a run without a source: the only one that fits, else the user is asked."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mmsa.data.store import Store
from mmsa.errors import DataError, MmsaError

_LISTED = 6
"""Stores that are named at most, so that the lines fit a screen."""
Current = Mapping[Path, bool | None]
"""By a store's path: whether the source that it was made from leads to it today; False where a file of it has changed,
None where files are gone or others are there."""


def only_one(stores: Sequence[Store], current: Current, title: str, folder: Path) -> Store:
    """The only one of these stores that may be meant.

    A store is not meant where there is another of the same source as it is now.

    Args:
        stores: those that fit, the newest first.
        current: of each.
        title: of the data set.
        folder: of the stores.

    Raises:
        DataError: several may be meant, or the source of the only one has changed since.
    """
    renewed = {source_of(store) for store in stores if current[store.path]}
    first, *others = stores = [s for s in stores if current[s.path] or source_of(s) not in renewed]
    if not others and current[first.path] is not False:
        return first
    changed = dict.fromkeys(source_of(store) for store in stores if current[store.path] is False)
    if others:
        why = f"{len(stores)} prepared stores of {title} in {folder} fit"
    else:
        why = (
            f"{os.path.basename(source_of(first))} has changed since the prepared {title} in {folder} was made from it"
        )
    rows = [(shlex.quote(naming(from_here(source))), "prepares it as it is now") for source in changed]
    rows += [_row(store, current[store.path]) for store in stores]
    more = ""
    if len(rows) > _LISTED:
        more = f"\n  and {len(rows) - _LISTED + 1} more, older ones: ls -lt {shlex.quote(str(folder))}"
        rows = rows[: _LISTED - 1]
    width = max(len(line) for line, _ in rows)
    shown = "\n".join(f"  {line:<{width}}  # {said}" for line, said in rows)
    raise DataError(f"{why}. Add one of these to the command:\n{shown}{more}")


def is_current(store: Store, leads_to: Callable[[Path], tuple[Path, Mapping[str, str]]]) -> bool | None:
    """Whether its source leads to a store, as `Current` has it.

    Args:
        store: the store.
        leads_to: gives for a source the path of its store and the hashes of its files by role.
    """
    source = source_of(store)
    if not (source and os.path.exists(source)):
        return None
    try:
        path, hashes = leads_to(Path(source))
    except (MmsaError, OSError):  # something else lies there, or it cannot be read
        return None
    if path.name == store.path.name:
        return True
    return None if of_one_source(hashes, store.sources) else False


def prepared_otherwise(store: Store, options: Mapping[str, Any], of_family: Mapping[str, Any]) -> DataError:
    """The error for a named store with other options than these, or another GloVe file."""
    asked, held, source = of_family if "family" in store.report else options, store.options, source_of(store)
    differ = [f"{key}={held.get(key)}" for key in {**asked, **held} if held.get(key) != asked.get(key)]
    there = os.path.exists(source)
    instead = shlex.quote(naming(from_here(source))) if there else "dataset.source=PATH of its source"
    return DataError(
        f"dataset.source={store.path} was prepared otherwise than the options say: "
        f"{', '.join(differ) or 'another GloVe file, or none'}.\n  type {instead}, to prepare it as they say"
    )


def way_to(store: Store, current: bool | None) -> str:
    """The dataset.source that leads to a store: its source, unless that is changed or gone."""
    return from_here(source_of(store) if current else str(store.path))


def source_of(store: Store) -> str:
    """Path of a store's source; empty where an older version did not keep it."""
    return str(store.report.get("source", ""))


def of_one_source(hashes: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Whether the files that both have, beside GloVe's, are equal, and there are any."""
    shared = (hashes.keys() & others.keys()) - {"glove"}
    return bool(shared) and all(hashes[role] == others[role] for role in shared)


def naming(path: str) -> str:
    """dataset.source=PATH, in quotes where -m would take the path for several."""
    quoted = path.replace('"', r"\"")
    return f'dataset.source="{quoted}"' if "," in path else f"dataset.source={path}"


def from_here(path: str) -> str:
    """A path as it is typed in the working directory: relative to it where it is below it."""
    return os.path.relpath(path) if path.startswith(f"{os.getcwd()}{os.sep}") else path


def _row(store: Store, current: bool | None) -> tuple[str, str]:
    """The option for a store, and its description."""
    made = datetime.fromtimestamp(store.path.stat().st_mtime)
    about = f"{made:%Y-%m-%d %H:%M}, {len(store.ids):,} utterances, data {store.fingerprint}"
    if not current:
        source = source_of(store)
        state = " as it was then" if os.path.exists(source) else ", which is not there now" if source else ""
        about = f"{store.source_name or 'an unknown file'}{state}: {about}"
    return shlex.quote(naming(way_to(store, current))), about
