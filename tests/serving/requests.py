"""Requests to a served model that reads text (3), audio (2) and visual (2) with one step per word each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ONE = {"text": [[1, 2, 3]], "audio": [[1.5, 2]]}  # whole numbers among the others
_LONG = {"id": "v[1]", "text": [[0.5, 0, 1], [1, 0, 0]]}

GOOD: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "dataframe_records": (json.dumps({"dataframe_records": [_ONE, _LONG]}), [_ONE, _LONG]),
    "dataframe_split": (
        json.dumps({"dataframe_split": {"columns": list(_LONG), "data": [list(_LONG.values())]}}),
        [_LONG],
    ),
    "inputs": (json.dumps({"inputs": [_LONG, _ONE]}), [_LONG, _ONE]),
    "inputs by column": (json.dumps({"inputs": {name: [value] for name, value in _LONG.items()}}), [_LONG]),
}
"""Form -> the request, and the records that it is of."""


def _of(record: str) -> str:
    return f'{{"dataframe_records": [{record}]}}'


BAD = [
    (_of('{"text": [[1, 2]]}'), "record 0: text has 2 numbers per step, and the model reads 3"),
    (_of('{"text": [[NaN, 2, 3]]}'), "record 0: text: 1 values are not finite"),
    (_of('{"text": [[1, 2, 1e999]]}'), "1 values are not finite"),
    ('{"inputs": [{"text": [[Infinity, 2, 3]]}]}', "1 values are not finite"),
    (_of('{"text": [[1, 2, 3]], "smell": [[1]]}'), "'smell' is no modality of the model"),
    (_of('{"id": "v1"}'), "record 0 has no modality of the model.\n  give one or more of text, audio, visual"),
    (_of('{"text": NaN}'), "record 0 has no modality"),
    (_of('{"text": [[1, 2, 3], [1]]}'), "record 0: text must hold numbers (its rows differ in shape)"),
    (_of('{"text": [["a", "b", "c"]]}'), "must hold numbers"),
    (_of('{"text": "a fine film"}'), "is words, and the model reads vectors of "),
    (_of('{"text": [[1, 2, 3]], "audio": [[1, 2], [1, 2]]}'), "modalities with one step per word"),
    ('{"dataframe_split": {"columns": ["text", "text"], "data": [[[[1, 2, 3]], null]]}}', "have the same name"),
    ('{"inputs": {"text": [[[1, 2, 3]]], "audio": [[[1, 2]], [[3, 4]]]}}', "a value per utterance each"),
    ('{"inputs": 3}', "a list of utterances is required"),
    ('{"inputs": [3]}', "a list of utterances is required"),
    ('{"dataframe_records": []}', "there is no record to predict"),
    ('{"inputs": []}', "there is no record to predict"),
    ("", "valid JSON"),
    ("not JSON", "valid JSON"),
    ('{"records": []}', "exactly one of the input fields"),
    ("[]", "Received a list"),
]
"""A request, and what the answer says."""


def check_refused(status: int, text: str, said: str, *places: Path) -> None:
    """The answer is a sentence on what the client sent, and has nothing of the server."""
    assert 400 <= status < 500, text
    body = json.loads(text)
    assert said in body["message"], body["message"]
    assert not body.keys() & {"stack_trace"} and "Traceback" not in text and "site-packages" not in text
    assert not [place for place in places if str(place) in text]
