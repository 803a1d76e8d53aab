"""What MLflow loads and serves of a packed model; MLmodel files name this module."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.errors import DataError, MmsaError
from mmsa.serving.packed import PackedModel, load_packed
from mmsa.serving.predict import predict, table
from mmsa.serving.utterances import Record


class Scorer:
    """Answers MLflow's requests.

    Args:
        model: a packed model.
    """

    def __init__(self, model: PackedModel) -> None:
        self._model = model
        self._lock = threading.Lock()  # a server asks from several threads, and encoders keep what they have read

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """A row per utterance, in the columns of `mmsa predict`.

        Args:
            data: a list of records, as of `mmsa.predict`; or a data frame, or a mapping of columns, of a row per
                utterance. None and NaN stand for a modality that an utterance lacks.

        Raises:
            mlflow.exceptions.MlflowException: a record is refused, with the reason; a server answers it with 400.
        """
        from mlflow.exceptions import MlflowException

        try:
            records = _records(data)
            with self._lock:
                return table(predict(self._model, records))
        except MmsaError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


def _load_pyfunc(path: str) -> Scorer:
    """The model in a folder, as MLflow asks for it."""
    return Scorer(load_packed(Path(path)))


def _records(data: Any) -> list[Record]:
    """The utterances of a request."""
    if hasattr(data, "columns"):  # a data frame
        if not data.columns.is_unique:
            raise DataError("two columns have the same name.\n  give each modality once")
        data = data.to_dict("records")
    if isinstance(data, dict) and data:
        columns = [_plain(column) for column in data.values()]
        if not all(isinstance(column, list) for column in columns) or len(set(map(len, columns))) > 1:
            raise DataError("the columns need a value per utterance each.\n  give a list of utterances instead")
        data = [dict(zip(data, row, strict=True)) for row in zip(*columns, strict=True)]
    if not isinstance(data, list):
        raise DataError("a list of utterances is required.\n  give one mapping of modalities for each")
    return [_without_gaps(record) if isinstance(record, dict) else record for record in data]


def _without_gaps(record: dict[Any, Any]) -> Record:
    """A record without the cells that a table has only because another row has them."""
    plain = {name: _plain(value) for name, value in record.items()}
    return {n: v for n, v in plain.items() if not (v is None or (isinstance(v, float) and math.isnan(v)))}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
