"""Predictions of a packed model: of records in memory, or of a file into a table."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.commands import quoted
from mmsa.errors import ConfigError, DataError, printable_lines
from mmsa.files import written
from mmsa.program import program
from mmsa.serving.card import is_packed
from mmsa.serving.packed import PackedModel, Predictions, load_packed
from mmsa.serving.utterances import Record, Say, as_list, of_records, opened

_FORMATS = (".csv", ".json")


def predict(model: PackedModel | str | Path, records: Record | Iterable[Record]) -> Predictions:
    """The predictions of a packed model, or of its folder, for one record or several, in their order.

    Raises:
        DataError: the folder is refused, or a record.
    """
    model = model if isinstance(model, PackedModel) else packed(Path(model))
    blocks = list(model.predictions(of_records(model.card, as_list(records))))
    by_seed = {seed: np.concatenate([block.by_seed[seed] for block in blocks]) for seed in model.models}
    ids = tuple(name for block in blocks for name in block.ids)
    return Predictions(ids, by_seed, blocks[0].columns, blocks[0].are_classes)


def packed(folder: Path) -> PackedModel:
    """The packed model of a folder.

    Raises:
        DataError: it is none.
    """
    if not is_packed(folder):
        kind = "a run" if (folder / "result.json").is_file() else "not a packed model"
        again = f"{program('mmsa')} pack {quoted(str(folder)) if kind == 'a run' else 'RUN'}"
        raise DataError(f"{folder} is {kind}, and a packed model is required.\n  type {again}, and name the new folder")
    return load_packed(folder)


def predict_file(folder: Path, path: Path, output: Path | None, options: Sequence[str], say: Say) -> int:
    """Predict the utterances of a file, into a CSV or JSON, or onto the screen as CSV.

    Args:
        folder: of the packed model.
        path: a source that `mmsa prepare` reads, or a store; labels need not be there in named arrays.
        output: FILE.csv or FILE.json, written as a whole; None is the screen.
        options: of the data set, as for training, where the source is no store and no named arrays.
        say: takes remarks.

    Returns:
        The number of utterances.

    Raises:
        ConfigError: the output is another kind of file, or an option is refused.
        DataError: the model is refused, or the file.
    """
    if output is not None and output.suffix not in _FORMATS:
        instead = quoted(str(output.with_suffix(".csv")))
        raise ConfigError(f"--output {output}: .csv or .json is required.\n  type --output {instead}")
    model = packed(folder)
    if not path.exists():
        raise DataError(f"--input {path}: there is no such file.\n  type --input FILE.npz, or another source or store")
    count = 0

    def counted(made: Iterator[Predictions]) -> Iterator[Predictions]:
        nonlocal count
        for block in made:
            count += len(block.ids)
            yield block

    with opened(model.card, path, options, say) as store:
        made = counted(model.predictions(store))
        lines = _as_json(made) if output is not None and output.suffix == ".json" else _as_csv(made)
        if output is None:
            shown = printable_lines if sys.stdout.isatty() else str  # a pipe gets the ids as they are
            for line in lines:
                print(shown(line), end="")  # noqa: T201  (the table itself)
        else:
            with written(output) as file:
                file.writelines(line.encode() for line in lines)
    return count


def table(one: Predictions) -> list[dict[str, Any]]:
    """Per utterance its columns, in the order of a CSV."""
    head = _head(one)
    return [{"id": name, **dict(zip(head, values, strict=True))} for name, values in _rows(one)]


def _head(one: Predictions) -> list[str]:
    """The columns after the id: the prediction, the spread, and that of each seed."""
    columns = one.columns or ("",)
    parts = ["prediction"]
    if one.spread is not None:
        parts += ["spread", *(f"seed_{seed}" for seed in one.by_seed)]
    return [f"{part} {column}".rstrip() for part in parts for column in columns]


def _rows(one: Predictions) -> Iterator[tuple[str, list[Any]]]:
    parts = [one.values]
    if one.spread is not None:
        parts += [one.spread, *one.by_seed.values()]
    flat = [part.reshape(len(one.ids), -1).tolist() for part in parts]
    for row, name in enumerate(one.ids):
        yield name, [value for part in flat for value in part[row]]


def _as_csv(made: Iterator[Predictions]) -> Iterator[str]:
    """One line per utterance, below the names."""
    for number, block in enumerate(made):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not number:
            writer.writerow(["id", *_head(block)])
            yield _taken(text)
        for name, values in _rows(block):
            writer.writerow([name, *values])
            yield _taken(text)


def _taken(text: io.StringIO) -> str:
    line = text.getvalue()
    text.seek(0)
    text.truncate()
    return line


def _as_json(made: Iterator[Predictions]) -> Iterator[str]:
    """A list of one object per utterance, each in a line."""
    before = "["
    yield before
    first = True
    for block in made:
        for row in table(block):
            yield ("\n" if first else ",\n") + json.dumps(row)
            first = False
    yield "\n]\n"
