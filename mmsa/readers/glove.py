"""GloVe word vectors: a text file, read once for the words of a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmsa.data.prepare import Progress, silent
from mmsa.data.ragged import Ragged
from mmsa.data.store import PAUSE
from mmsa.errors import DataError

_CHUNK = 1 << 22
_NUMERALS = b"0123456789+-.eE "
_SHOWN = 10
"""The most frequent words without a vector that are reported."""


def glove_file(path: str | None) -> dict[str, Path]:
    """The file by its role, "glove", if one is given.

    Raises:
        DataError: it does not exist.
    """
    if path is None:
        return {}
    if not Path(path).is_file():
        raise DataError(
            f"dataset.glove={path}: no such file. A text file with a word and its vector per line is needed, such as "
            "glove.840B.300d.txt of nlp.stanford.edu/projects/glove.\n  type dataset.glove=FILE"
        )
    return {"glove": Path(path)}


def embed_words(
    utterances: Sequence[Sequence[str]], path: Path, progress: Progress = silent
) -> tuple[Ragged, dict[str, Any]]:
    """The vector of every word, and the counts.

    A word is looked up as it is, then in lower case. Pauses, and words without a vector, get zeros, which mean "nothing
    there" everywhere here.

    Reference: GloVe (Pennington, Socher, Manning, EMNLP 2014). Where we differ: MISA gives words without a vector
    values of N(0, 1), which are far larger than GloVe's.

    Args:
        utterances: the words of every row.
        path: a line per token: the token, which may hold spaces, a space, and its vector.
        progress: shown per 4 MiB.

    Returns:
        Vectors (T, D) of every row; counts of tokens and word types (pauses are neither), and the most frequent absent
        words.

    Raises:
        DataError: a line is damaged, or no word is in the file.
    """
    counts = Counter(word for words in utterances for word in words if word != PAUSE)
    vectors, width = read_vectors(path, {form for word in counts for form in (word, word.lower())}, progress)
    found = {word: form for word in counts for form in (word.lower(), word) if form in vectors}  # the later form wins
    if not found:
        raise DataError(
            f"dataset.glove={path} has a vector for none of the {len(counts)} words.\n"
            "  type dataset.glove=FILE of the language of the corpus"
        )
    rows = {word: row for row, word in enumerate(found, start=1)}
    table = np.stack([np.zeros(width, np.float32), *(vectors[form] for form in found.values())])
    steps = [table[[rows.get(word, 0) for word in words]] for words in utterances]
    report = {
        "tokens": counts.total(),
        "tokens_found": sum(counts[word] for word in found),
        "types": len(counts),
        "types_found": len(found),
        "most_frequent_absent": [(word, n) for word, n in counts.most_common() if word not in found][:_SHOWN],
    }
    return Ragged.join(steps), report


def read_vectors(path: Path, tokens: Collection[str], progress: Progress = silent) -> tuple[dict[str, np.ndarray], int]:
    """The vectors (D,) float32 of these tokens, the first line of each, and D, the numbers on the file's first line.

    Raises:
        DataError: a line is damaged.
    """
    wanted = {token.encode(): token for token in tokens}
    vectors: dict[str, np.ndarray] = {}
    with open(path, "rb") as file:
        width = _width(path, file)
        total = -(-path.stat().st_size // _CHUNK)
        chunks = progress(iter(lambda: file.readlines(_CHUNK), []), f"reading {path.name}", total)
        for number, line in enumerate(chain.from_iterable(chunks), start=1):
            token, *values = line.rstrip(b" \r\n").rsplit(b" ", width)
            if len(values) != width or _is_number(token.rpartition(b" ")[2] if b" " in token else b""):
                raise _damaged(path, number, f"a token and {width} numbers are required", line)
            if b" ".join(values).translate(None, _NUMERALS):
                raise _damaged(path, number, "finite numbers are required", line)
            if token in wanted:
                vectors.setdefault(wanted[token], _vector(path, number, values, line))
    return vectors, width


def _width(path: Path, file: BinaryIO) -> int:
    """Numbers on the first line; the file is where it was."""
    line = file.readline()
    file.seek(0)
    _, *values = line.rstrip(b" \r\n").split(b" ")
    if len(values) < 2 or not all(map(_is_number, values)):
        raise _damaged(path, 1, "a token and the numbers of its vector are required, as in GloVe's text files", line)
    return len(values)


def _vector(path: Path, number: int, values: list[bytes], line: bytes) -> np.ndarray:
    with np.errstate(over="ignore"):
        try:
            vector = np.array(values, dtype=np.float64).astype(np.float32)
        except ValueError:
            raise _damaged(path, number, "numbers are required", line) from None
    if not np.isfinite(vector).all():
        raise _damaged(path, number, "finite numbers are required", line)
    return vector


def _is_number(field: bytes) -> bool:
    if field.translate(None, _NUMERALS):  # such as the token "nan"
        return False
    try:
        float(field)
    except ValueError:
        return False
    return True


def _damaged(path: Path, number: int, required: str, line: bytes) -> DataError:
    shown = line.decode("utf-8", errors="replace").rstrip("\r\n")
    return DataError(
        f"dataset.glove={path}, line {number}: {required}, got {shown[:40]!r}{'…' * (len(shown) > 40)}\n"
        "  get the file again, or type dataset.glove=FILE of another one"
    )
