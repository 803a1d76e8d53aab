"""The runs behind a table in one archive, from which the table comes out again elsewhere."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from mmsa.analysis.rendering import Style, rendered
from mmsa.analysis.runs import Run
from mmsa.analysis.selection import Selection
from mmsa.analysis.shape import Shape
from mmsa.analysis.tables import Result, make_tables
from mmsa.errors import ConfigError, DataError, printable, printable_lines
from mmsa.files import content_of, written
from mmsa.run_folder import check_own

FILES = ("result.json", "config.yaml", "overrides.json", "history.csv", "predictions.csv")
"""Of each run; weights, figures and logs stay in its folder."""
_TABLES: dict[str, Style] = {"txt": "table", "md": "markdown", "csv": "csv", "tex": "latex"}


def write_archive(path: Path, asked: Selection, shape: Shape, made: Sequence[Result], again: str) -> int:
    """Write a zip with the records of runs, their tables, and how to make both again; equal input gives equal bytes.

    Args:
        path: of the archive.
        asked, shape: of the table.
        made: what it shows; runs that are in none of its rows are left out.
        again: the command that makes the table in the unpacked folder.

    Returns:
        The number of runs.

    Raises:
        ConfigError: the file exists already, or its folder does not.
        DataError: a file of a run cannot be read.
    """
    if path.exists() or not path.parent.is_dir():
        why = "exists already" if path.exists() else f"there is no folder {path.parent}"
        raise ConfigError(f"--archive {path}: {why}.\n  type --archive NEW.zip")
    shown = {run.folder for one in made for group in one.groups for run in group.runs}
    runs = [run for run in asked.finished().runs if run.folder in shown]
    tables = make_tables(runs, shape, warned=True)
    with written(path) as file, ZipFile(file, "w", ZIP_DEFLATED) as archive:
        _add(archive, "README.md", _about(runs, again).encode())
        for kind, style in _TABLES.items():
            _add(archive, f"table.{kind}", f"{rendered(tables, style)}\n".encode())
        for folder, run in zip(_places(runs), runs, strict=True):
            for name, content in _contents(run.folder).items():
                _add(archive, f"runs/{folder}/{name}", content)
    return len(runs)


def _contents(folder: Path) -> dict[str, bytes]:
    """The files of a run that are there."""
    check_own(folder)  # a link would take another file along
    try:
        return {name: content_of(folder / name) for name in FILES if (folder / name).exists()}
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read: {error}.\n  name other runs") from error


def _places(runs: Sequence[Run]) -> list[str]:
    """The names of the runs' folders; of two with one name, in other folders, the second gets a number."""
    seen: Counter[str] = Counter()
    names = []
    for run in runs:
        name = printable(run.folder.resolve().name)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def _add(archive: ZipFile, name: str, content: bytes) -> None:
    entry = ZipInfo(name)  # of 1980: no time changes its bytes
    entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
    archive.writestr(entry, content)


def _about(runs: Sequence[Run], again: str) -> str:
    """The contents, and the lines to type."""
    training = dict.fromkeys(f"mmsa train {shlex.join(run.overrides)}" for run in runs if not run.is_import)
    files = dict.fromkeys(f"{run.called}, from {run.imported.file}" for run in runs if run.is_import)
    states = {f"{run.git.commit}{', with changes' if run.git.dirty else ''}" for run in runs if run.git.commit}
    data = dict.fromkeys(f"{run.dataset} {run.data.fingerprint}" for run in runs)
    lines = [
        "# Runs behind a table",
        "",
        f"Runs of mmsa: {len(runs)}. Unpack, and in the folder type for the same table:",
    ]
    lines += ["", f"    {again}", "", "In `runs` each has its configuration, record, history and predictions with the"]
    lines += ["labels of the validation and test folds; no weights, and nothing else of the data.", ""]
    lines += [f"Data: {', '.join(data)}. Code: {', '.join(sorted(states)) or 'unknown'}.", ""]
    for head, ones in (("Trained by:", training), ("Not trained here:", files)):
        lines += [head, "", *(f"    {one}" for one in ones), ""] if ones else []
    return printable_lines("\n".join(lines))
